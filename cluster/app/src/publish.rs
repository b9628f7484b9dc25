//! Ports of the machine's loopback that lead to services: a TCP forwarder from the host's namespace into the fabric.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_network::ServiceCatalog;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::cli::Publish;

/// Connections of one port; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 4096;
/// In each direction: four times tokio's default halves the system calls of large bodies.
const BUFFER_BYTES: usize = 32 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Endpoints tried for one connection.
const TRIES_MAX: usize = 3;
/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Forwards connections until dropped. Runs in the fabric; `listener` was made in the host's namespace.
pub(crate) async fn forward(listener: TcpListener, target: Publish, catalog: Arc<ServiceCatalog>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let turn = AtomicUsize::new(0);
    let target = Arc::new(target);
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let mut endpoints =
                    catalog.ready_endpoints(&target.namespace, &target.service, target.service_port);
                if !endpoints.is_empty() {
                    let first = turn.fetch_add(1, Ordering::Relaxed) % endpoints.len();
                    endpoints.rotate_left(first);
                }
                let target = target.clone();
                tokio::spawn(async move {
                    carry(client, &endpoints, &target).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, port = target.host_port, "Accepting a connection failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, endpoints: &[SocketAddrV4], target: &Publish) {
    for endpoint in endpoints.iter().take(TRIES_MAX) {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(*endpoint)).await;
        if let Ok(Ok(mut server)) = connected {
            let _without_delay = (client.set_nodelay(true), server.set_nodelay(true));
            if let Err(error) =
                tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES)
                    .await
            {
                tracing::debug!(%error, %endpoint, "Published connection ended");
            }
            return;
        }
    }
    refuse(client, endpoints.len(), target).await;
}

/// Most callers speak HTTP and get a reason; others get a line of text and an end.
async fn refuse(mut client: TcpStream, endpoints: usize, target: &Publish) {
    let Publish { namespace, service, service_port, .. } = target;
    let body = match endpoints {
        0 => format!("service {namespace}/{service} port {service_port} has no ready endpoint\n"),
        _ => {
            format!("no endpoint of service {namespace}/{service} port {service_port} accepts connections\n")
        }
    };
    let head =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close";
    let response = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // The request is read first, or the kernel would reset the connection under the answer.
    let mut request = [0; 4096];
    let _unread = tokio::time::timeout(CONNECT_TIMEOUT, client.readable()).await;
    let _unread = client.try_read(&mut request);
    let _gone = client.write_all(response.as_bytes()).await;
    let _gone = client.shutdown().await;
}
