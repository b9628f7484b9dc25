//! A session of `kubectl port-forward`: for each connection a pair of SPDY streams, one for errors and one for data.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use cluster_network::NetNs;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::super::spdy::{self, Decoder, Frame};
use super::super::websocket::Socket;
use super::{BLOCK_BYTES, BLOCKS_WAITING_MAX};

/// Connections under way in one session, and error streams whose data stream has not come yet.
const CONNECTIONS_MAX: usize = 256;
/// Bytes on their way between a WebSocket and the session within it.
const TUNNEL_BYTES: usize = 64 << 10;

/// Serves a session that comes in binary messages of a WebSocket, each a piece of the session's bytes.
pub(super) async fn tunnel(socket: Socket, namespace: &Path) {
    let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
    let (mut sink, mut messages) = socket.split();
    let (mut from_session, mut to_session) = tokio::io::split(near);
    let inward = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) => {
                    if to_session.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    let outward = async {
        let mut buffer = vec![0; BLOCK_BYTES];
        while let Ok(length @ 1..) = from_session.read(&mut buffer).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = outward => {}
        () = serve(far, namespace) => {}
    }
}

/// Serves a session until the client closes, breaks the protocol, or is gone.
pub(super) async fn serve(io: impl AsyncRead + AsyncWrite, namespace: &Path) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let (frames, mut waiting) = mpsc::channel::<Bytes>(BLOCKS_WAITING_MAX);
    let write = async {
        while let Some(frame) = waiting.recv().await {
            if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    let read = async {
        let mut session = Session::new(frames, namespace);
        let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::with_capacity(BLOCK_BYTES));
        while let Ok(1..) = reader.read_buf(&mut buffer).await {
            loop {
                match decoder.next(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if !session.take(frame).await {
                            return;
                        }
                    }
                    Err(error) => return tracing::debug!(%error, "Port-forward session ended"),
                }
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
}

struct Session {
    frames: mpsc::Sender<Bytes>,
    namespace: PathBuf,
    /// Whether a stream was accepted before.
    answered: bool,
    /// Error streams that wait for their data stream, by the request's id.
    errors: HashMap<String, u32>,
    /// What clients send, by data stream; gone when they have finished.
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
    /// Dropping it ends every connection with the session.
    connections: JoinSet<()>,
}

// === impl Session ===

impl Session {
    fn new(frames: mpsc::Sender<Bytes>, namespace: &Path) -> Self {
        Self {
            frames,
            namespace: namespace.to_owned(),
            answered: false,
            errors: HashMap::new(),
            inputs: HashMap::new(),
            connections: JoinSet::new(),
        }
    }

    /// Does what a frame says; false when the session is over.
    async fn take(&mut self, frame: Frame) -> bool {
        while self.connections.try_join_next().is_some() {}
        match frame {
            Frame::Open { stream, headers, .. } => self.open(stream, &headers).await,
            Frame::Data { stream, data, finished } => {
                if let Some(input) = self.inputs.get(&stream).filter(|_| !data.is_empty()) {
                    // A connection that has ended takes no more.
                    let _ended = input.send(data).await;
                }
                if finished {
                    self.inputs.remove(&stream);
                }
                true
            }
            Frame::Reset { stream } => {
                self.inputs.remove(&stream);
                self.errors.retain(|_, waiting| *waiting != stream);
                true
            }
            Frame::Ping(id) => self.send(spdy::ping(id)).await,
            Frame::GoAway => false,
            Frame::Other => true,
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(String, String)]) -> bool {
        let header = |name: &str| {
            headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        };
        let id = header("requestID").unwrap_or_default().to_owned();
        let port = header("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
        let (true, Some(port)) = (self.connections.len() < CONNECTIONS_MAX, port) else {
            return self.send(spdy::refuse(stream)).await;
        };
        match header("streamType") {
            Some("error") if self.errors.len() < CONNECTIONS_MAX => {
                self.errors.insert(id, stream);
                self.accept(stream).await
            }
            Some("data") => {
                let Some(error) = self.errors.remove(&id) else {
                    return self.send(spdy::refuse(stream)).await;
                };
                // The answer goes before the first bytes.
                if !self.accept(stream).await {
                    return false;
                }
                let (input, waiting) = mpsc::channel(BLOCKS_WAITING_MAX);
                self.inputs.insert(stream, input);
                let (namespace, frames) = (self.namespace.clone(), self.frames.clone());
                self.connections.spawn(connection(namespace, port, frames, stream, error, waiting));
                true
            }
            _ => self.send(spdy::refuse(stream)).await,
        }
    }

    async fn accept(&mut self, stream: u32) -> bool {
        let first = !std::mem::replace(&mut self.answered, true);
        self.send(spdy::accept(stream, first)).await
    }

    async fn send(&self, frame: Bytes) -> bool {
        self.frames.send(frame).await.is_ok()
    }
}

/// One connection to a port of the pod, from its beginning to its end.
async fn connection(
    namespace: PathBuf,
    port: u16,
    frames: mpsc::Sender<Bytes>,
    data: u32,
    error: u32,
    waiting: mpsc::Receiver<Bytes>,
) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = async { NetNs::open(&namespace)?.connect(address).await }.await;
    let said = match connected {
        Ok(stream) => {
            copy(stream, &frames, data, waiting).await;
            String::new()
        }
        Err(why) => format!("failed to connect to localhost:{port} inside the pod: {why}"),
    };
    // The client reads both to their end.
    for frame in [spdy::data(error, said.as_bytes(), true), spdy::data(data, &[], true)] {
        let _gone = frames.send(frame).await;
    }
}

/// Copies until the pod's side ends; a client that has finished may still be reading.
async fn copy(
    stream: TcpStream,
    frames: &mpsc::Sender<Bytes>,
    data: u32,
    mut waiting: mpsc::Receiver<Bytes>,
) {
    let (mut reader, mut writer) = stream.into_split();
    let to_pod = async {
        while let Some(bytes) = waiting.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _closed = writer.shutdown().await;
    };
    let from_pod = async {
        let mut buffer = vec![0; BLOCK_BYTES];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if frames.send(spdy::data(data, &buffer[..length], false)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = from_pod => {}
        () = async { to_pod.await; std::future::pending().await } => {}
    }
}
