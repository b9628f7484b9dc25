//! Making one connection to an endpoint: socket, source address, TLS, identity.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use base_tls::TlsStream;
use base_types::ErrorChain;
use sidecar_http::BoxIo;
use sidecar_model::cluster::{ProxyProtocolVersion, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Held, Protocol, Target, UpstreamInfo, has_name, thresholds};
use crate::config::TlsSlot;
use crate::usage::{Permit, Totals};
use crate::worker::Worker;

/// Why a connection could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// Not within the cluster's time.
    Timeout,
    /// The operating system or the peer refused, in its words.
    Failed(String),
    /// The handshake failed.
    Tls(String),
}

/// A connection and what is known of it.
pub(crate) struct Connected {
    pub(crate) io: BoxIo,
    pub(crate) info: UpstreamInfo,
}

/// Makes a connection that counts against the cluster while it is open.
pub(crate) async fn open(
    worker: &Worker,
    target: &Target,
    protocol: Protocol,
    permit: Permit,
    live: &Rc<Cell<u32>>,
) -> Result<Connected, ConnectError> {
    let held = Held::new(permit, live);
    let totals = &target.plan.usage.totals;
    let limit = target.plan.cluster.connect_timeout;
    let outcome =
        timeout(limit, connect(worker, target, protocol)).await.unwrap_or(Err(ConnectError::Timeout));
    match outcome {
        Ok(Connected { io, info }) => {
            Totals::inc(&totals.upstream_cx_total);
            Ok(Connected { io: Box::new(Guarded { io, _held: held }), info })
        }
        Err(error) => {
            Totals::inc(&totals.upstream_cx_connect_fail);
            Err(error)
        }
    }
}

/// Makes a connection for bytes; none while the cluster has as many as it may.
pub(crate) async fn open_tcp(worker: &Worker, target: &Target) -> Option<Result<Connected, ConnectError>> {
    let usage = &target.plan.usage;
    let Some(permit) = usage.connection(thresholds(target).max_connections) else {
        Totals::inc(&usage.totals.upstream_cx_overflow);
        return None;
    };
    Some(open(worker, target, Protocol::Tcp, permit, &Rc::default()).await)
}

/// Makes a connection that counts nowhere: for health checks.
pub(crate) async fn connect(
    worker: &Worker,
    target: &Target,
    protocol: Protocol,
) -> Result<Connected, ConnectError> {
    let cluster = &target.plan.cluster;
    let mut stream =
        dial(target.address, cluster.source_address, cluster.tcp_keepalive).await.map_err(failed)?;
    let local = stream.local_addr().ok();
    if let Some(version) = cluster.proxy_protocol {
        let header = proxy_header(version, target.client.or(local).unwrap_or(target.address), target.address);
        stream.write_all(&header).await.map_err(failed)?;
    }
    let mut info = UpstreamInfo {
        local,
        principal: sidecar_telemetry::labels::no_principal(),
        tls: target.tls.is_some(),
        born: Instant::now(),
    };
    let Some(slot) = &target.tls else { return Ok(Connected { io: Box::new(stream), info }) };
    let stream = handshake(slot, target, protocol, stream).await?;
    if let Some(peer) = stream.peer()
        && slot.mutual
    {
        info.principal = worker.principal(peer.uris.first().map_or("", |uri| uri));
    }
    Ok(Connected { io: Box::new(stream), info })
}

async fn handshake(
    slot: &TlsSlot,
    target: &Target,
    protocol: Protocol,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let client = match protocol {
        Protocol::Http1 => &slot.http1,
        Protocol::Http2 => &slot.http2,
        Protocol::Tcp => &slot.tcp,
    };
    let name = target.server_name.as_deref().unwrap_or(&slot.tls.sni);
    // Without a name the address stands in: it is not sent as server name.
    let address;
    let name = if name.is_empty() {
        address = target.address.ip().to_string();
        &address
    } else {
        name
    };
    let stream = client
        .connect(stream, name)
        .await
        .map_err(|error| ConnectError::Tls(ErrorChain(&error).to_string()))?;
    if !slot.names.is_empty() && !stream.peer().is_some_and(|peer| has_name(&slot.names, peer)) {
        return Err(ConnectError::Tls("the certificate has none of the names asked for".to_owned()));
    }
    if protocol == Protocol::Http2 && stream.alpn().is_some_and(|alpn| alpn != b"h2" && alpn != b"istio-h2") {
        return Err(ConnectError::Tls("the peer does not speak HTTP/2".to_owned()));
    }
    Ok(stream)
}

fn failed(error: io::Error) -> ConnectError {
    // The operating system's words without its number, as Envoy has them: `Connection refused`.
    let text = error.to_string();
    ConnectError::Failed(text.split(" (os error").next().unwrap_or_default().to_owned())
}

async fn dial(
    address: SocketAddr,
    source: Option<IpAddr>,
    keepalive: Option<TcpKeepalive>,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    if let Some(keepalive) = keepalive {
        let mut options = socket2::TcpKeepalive::new();
        if let Some(time) = keepalive.time {
            options = options.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            options = options.with_interval(interval);
        }
        if let Some(probes) = keepalive.probes {
            options = options.with_retries(probes);
        }
        socket2::SockRef::from(&socket).set_tcp_keepalive(&options)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A PROXY protocol header (HAProxy's specification, versions 1 and 2) for a connection from `source`.
fn proxy_header(version: ProxyProtocolVersion, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    match version {
        ProxyProtocolVersion::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
        ProxyProtocolVersion::V2 => {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
            match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.extend([0x11, 0, 12]);
                    header.extend(from.octets());
                    header.extend(to.octets());
                }
                (from, to) => {
                    let octets = |address: IpAddr| match address {
                        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                        IpAddr::V6(address) => address.octets(),
                    };
                    header.extend([0x21, 0, 36]);
                    header.extend(octets(from));
                    header.extend(octets(to));
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
            header
        }
    }
}

/// A stream that holds its place in the cluster's limit until it is closed.
struct Guarded {
    io: BoxIo,
    _held: Held,
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
