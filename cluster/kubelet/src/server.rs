//! stub
use std::sync::Arc;
pub(crate) async fn run(_node: Arc<crate::node::Node>, _l: tokio::net::TcpListener, _s: base_tls::Rotating, shutdown: tokio_util::sync::CancellationToken) {
    shutdown.cancelled().await;
}
