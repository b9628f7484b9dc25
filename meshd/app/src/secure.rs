//! TLS in front of the gRPC server.

use base_tls::{ClientAuth, Rotating, Server, TlsStream};
use futures::Stream;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A client must finish its handshake within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections wait in the backlog.
const HANDSHAKES_MAX: usize = 128;

/// A stream that has proven nothing of the client yet: that is its token's task.
pub(crate) struct Secure(TlsStream<TcpStream>);

/// Connections whose handshake is done.
pub(crate) fn incoming(
    listener: TcpListener,
    identity: &Rotating,
) -> impl Stream<Item = io::Result<Secure>> + use<> {
    let tls = Server::new(identity, ClientAuth::None, &[b"h2"]);
    let (ready, streams) = mpsc::channel(16);
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    tokio::spawn(async move {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (tcp, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "Accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, ready) = (tls.clone(), ready.clone());
            tokio::spawn(async move {
                drop(tcp.set_nodelay(true));
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)).await {
                    Ok(Ok(stream)) => drop(ready.send(Ok(Secure(stream))).await),
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, error = %base_types::ErrorChain(&error), "Handshake failed")
                    }
                    Err(_) => tracing::debug!(%peer, "Handshake took too long"),
                }
                drop(slot);
            });
        }
    });
    ReceiverStream::new(streams)
}

impl Connected for Secure {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.io().connect_info()
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
