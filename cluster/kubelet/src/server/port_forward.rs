//! `/portForward`: connections to ports inside a pod, in the three forms that clients use: SPDY/3.1 after an upgrade (kubectl 1.30), SPDY/3.1
//! in binary messages of a WebSocket (kubectl 1.31 and later, KEP-4006), and a WebSocket with two channels a port: data and error.

mod session;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use cluster_network::NetNs;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::query::Query;
use super::websocket::{self, Protocol, Socket};
use super::{Answer, Api, Refusal};
use crate::node::PodEntry;
use crate::pod;

/// Ports one session may forward: two channels each, in one byte.
const PORTS_MAX: usize = 64;
const BLOCK_BYTES: usize = 32 << 10;
const BLOCKS_WAITING_MAX: usize = 8;

type Sink = Arc<Mutex<SplitSink<Socket, Message>>>;

/// Forwards ports: those that a SPDY session's streams name, else those named in the query.
pub(super) fn start(
    api: &Arc<Api>,
    found: &PodEntry,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let namespace = namespace(api, found).ok_or_else(|| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the pod has no network at the moment")
    })?;
    let shutdown = api.shutdown.clone();
    if websocket::is_tunnel(&request) {
        let (answer, upgrade) = websocket::accept_tunnel(request)?;
        tokio::spawn(async move {
            let Ok(socket) = websocket::open(upgrade).await else { return };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = session::tunnel(socket, &namespace) => {}
            }
        });
        return Ok(answer);
    }
    if is_spdy(&request) {
        let (answer, upgrade) = accept_spdy(request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = session::serve(TokioIo::new(upgraded), &namespace) => {}
            }
        });
        return Ok(answer);
    }
    let ports = ports(query)?;
    let (answer, protocol, upgrade) = websocket::accept(request)?;
    tokio::spawn(async move {
        let Ok(socket) = websocket::open(upgrade).await else { return };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = forward(socket, protocol, &namespace, &ports) => {}
        }
    });
    Ok(answer)
}

fn is_spdy(request: &Request<Incoming>) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"SPDY/3.1"))
}

/// Accepts an upgrade to SPDY/3.1 with the one subprotocol there is.
fn accept_spdy(mut request: Request<Incoming>) -> (Answer, OnUpgrade) {
    let mut answer = Answer::new(Empty::new().boxed());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static("portforward.k8s.io"));
    (answer, hyper::upgrade::on(&mut request))
}

fn ports(query: &Query) -> Result<Vec<u16>, Refusal> {
    let bad = |message: &str| Refusal::new(StatusCode::BAD_REQUEST, message);
    let texts: Vec<String> = query
        .all("port")
        .iter()
        .chain(&query.all("ports"))
        .flat_map(|text| text.split(','))
        .map(str::to_owned)
        .collect();
    let ports: Vec<u16> =
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| bad("invalid port"))?;
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(bad("between 1 and 64 ports are needed"));
    }
    Ok(ports)
}

fn namespace(api: &Api, found: &PodEntry) -> Option<PathBuf> {
    if pod::host_network(&found.pod) {
        return Some(api.node.network.node().net_ns.clone());
    }
    let uid = pod::uid(&found.pod);
    api.node.network.existing().into_iter().find(|net| net.uid == uid).map(|net| net.net_ns)
}

async fn forward(socket: Socket, protocol: Protocol, namespace: &std::path::Path, ports: &[u16]) {
    let (sink, mut messages) = socket.split();
    let sink: Sink = Arc::new(Mutex::new(sink));
    let mut inputs = Vec::new();
    // Dropping the set ends every connection with the session.
    let mut connections = JoinSet::new();
    for (index, port) in ports.iter().enumerate() {
        let Ok(data) = u8::try_from(index * 2) else { return };
        for channel in [data, data + 1] {
            if !send(&sink, protocol, channel, &port.to_le_bytes()).await {
                return;
            }
        }
        let (input, waiting) = mpsc::channel(BLOCKS_WAITING_MAX);
        inputs.push(input);
        let (sink, namespace, port) = (sink.clone(), namespace.to_owned(), *port);
        connections.spawn(async move {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let connected = async { NetNs::open(&namespace)?.connect(address).await }.await;
            match connected {
                Ok(stream) => copy(stream, &sink, protocol, data, waiting).await,
                Err(error) => {
                    let text = format!("failed to connect to localhost:{port} inside the pod: {error}");
                    send(&sink, protocol, data + 1, text.as_bytes()).await;
                }
            }
        });
    }
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            _ = connections.join_next(), if !connections.is_empty() => {
                if connections.is_empty() {
                    // The client may have closed first.
                    let _closed = sink.lock().await.close().await;
                    return;
                }
                continue;
            }
        };
        let Some(Ok(message)) = message else { return };
        if matches!(message, Message::Close(_)) {
            return;
        }
        if let Some((channel, data)) = protocol.parse(&message)
            && channel % 2 == 0
            && let Some(input) = inputs.get(usize::from(channel / 2))
        {
            // A connection that has ended takes no more.
            let _ended = input.send(data).await;
        }
    }
}

async fn send(sink: &Sink, protocol: Protocol, channel: u8, data: &[u8]) -> bool {
    sink.lock().await.send(protocol.message(channel, data)).await.is_ok()
}

async fn copy(
    stream: TcpStream,
    sink: &Sink,
    protocol: Protocol,
    channel: u8,
    mut waiting: mpsc::Receiver<Bytes>,
) {
    let (mut reader, mut writer) = stream.into_split();
    let to_pod = async {
        while let Some(data) = waiting.recv().await {
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
    };
    let from_pod = async {
        let mut buffer = vec![0; BLOCK_BYTES];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    if !send(sink, protocol, channel, &buffer[..length]).await {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        // A client that stops sending may still be reading.
        () = from_pod => {}
        () = async { to_pod.await; std::future::pending().await } => {}
    }
}
