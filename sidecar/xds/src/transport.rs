//! One TLS connection to the control plane with HTTP/2 on it, made small: it is idle most of its life.

use crate::config::Config;
use base_tls::{Client, Material, Roots, Rotating, ServerCheck, TlsError, TlsStream};
use http::Uri;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::metadata::{Ascii, MetadataValue};

/// TCP, TLS and HTTP/2 together may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that is gone without a word is found out this fast.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Why the control plane cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("`{0}` is not `host:port`")]
    Address(String),
    #[error("cannot read `{path}`")]
    File { path: PathBuf, source: io::Error },
    #[error("the token in `{0}` cannot be sent")]
    Token(PathBuf),
    #[error("cannot connect to `{address}`")]
    Tcp { address: String, source: io::Error },
    #[error("cannot speak TLS with `{address}`")]
    Tls { address: String, source: TlsError },
    #[error("`{address}` does not speak HTTP/2")]
    Alpn { address: String },
    #[error("cannot speak HTTP/2 with `{address}`")]
    Http { address: String, source: hyper::Error },
    #[error("`{address}` did not answer within {CONNECT_TIMEOUT:?}")]
    Timeout { address: String },
}

/// Sends requests over the connection.
#[derive(Clone, Debug)]
pub(crate) struct Channel(SendRequest<Body>);

/// Moves the connection's bytes; it must be polled while the channel is used.
pub(crate) type Connection = http2::Connection<TokioIo<TlsStream<TcpStream>>, Body, TokioExecutor>;

/// A connection, the origin its requests name, and the token they carry.
pub(crate) struct Connected {
    pub(crate) channel: Channel,
    pub(crate) connection: Connection,
    pub(crate) origin: Uri,
    pub(crate) authorization: MetadataValue<Ascii>,
}

/// Connects, with the roots and the token as they are in their files now.
pub(crate) async fn connect(config: &Config) -> Result<Connected, ConnectError> {
    let address = &config.discovery_address;
    let timeout = || ConnectError::Timeout { address: address.clone() };
    tokio::time::timeout(CONNECT_TIMEOUT, connect_now(config)).await.map_err(|_| timeout())?
}

async fn connect_now(config: &Config) -> Result<Connected, ConnectError> {
    let address = &config.discovery_address;
    let (host, port) = split(address).ok_or_else(|| ConnectError::Address(address.clone()))?;
    let origin = Uri::builder().scheme("https").authority(address.as_str()).path_and_query("/").build();
    let origin = origin.map_err(|_| ConnectError::Address(address.clone()))?;
    let authorization = authorization(&config.token)?;
    let tls_error = |source| ConnectError::Tls { address: address.clone(), source };
    let roots = Roots::from_pem(&read(&config.root_cert)?).map_err(tls_error)?;
    let trust = Material::trust(Some(roots)).map_err(tls_error)?;
    let client = Client::new(&Rotating::new(trust), ServerCheck::Name, &[b"h2"]);

    let tcp_error = |source| ConnectError::Tcp { address: address.clone(), source };
    let tcp = TcpStream::connect((host, port)).await.map_err(tcp_error)?;
    tcp.set_nodelay(true).map_err(tcp_error)?;
    let stream = client.connect(tcp, host).await.map_err(tls_error)?;
    if stream.alpn() != Some(b"h2") {
        return Err(ConnectError::Alpn { address: address.clone() });
    }
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| ConnectError::Http { address: address.clone(), source })?;
    Ok(Connected { channel: Channel(sender), connection, origin, authorization })
}

/// Host and port; an IPv6 address comes in brackets.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

fn authorization(path: &Path) -> Result<MetadataValue<Ascii>, ConnectError> {
    let token = zeroize::Zeroizing::new(read(path)?);
    let value = zeroize::Zeroizing::new(format!("Bearer {}", token.trim()));
    let mut value: MetadataValue<Ascii> = value.parse().map_err(|_| ConnectError::Token(path.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn read(path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|source| ConnectError::File { path: path.to_owned(), source })
}

// === impl Channel ===

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(split("meshd.mesh-system.svc:15012"), Some(("meshd.mesh-system.svc", 15012)));
        assert_eq!(split("[::1]:1"), Some(("::1", 1)));
        for bad in ["meshd", ":1", "meshd:x", "meshd:70000"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
