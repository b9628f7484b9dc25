//! Servers that say what reached them: who they are, the method, the path, and all headers in order of their names.
//!
//! A request may ask for another status: `x-fail: 503,2` lets the first two attempts fail (by `x-envoy-attempt-count`; without that
//! header all of them), with `x-failed: yes`.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const BODY_BYTES_MAX: usize = 1 << 20;

/// Serves HTTP/1.1 and HTTP/2 on all of `addresses` until it is dropped.
///
/// # Errors
/// When one is taken.
pub async fn start(addresses: Vec<SocketAddr>) -> anyhow::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await?;
        tasks.spawn(accept(listener, address));
    }
    Ok(tasks)
}

async fn accept(listener: TcpListener, own: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let service = service_fn(move |request| answer(own, request));
            // The proxy closes as it likes.
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(own: SocketAddr, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map(|it| it.to_bytes()).unwrap_or_default();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let mut response = Response::builder().header("x-multi", "1").header("x-multi", "2");
    if let Some(status) = failure(header("x-fail"), header("x-envoy-attempt-count")) {
        response = response.status(status).header("x-failed", "yes");
    }
    if let Some(server) = header("x-server") {
        response = response.header("server", server);
    }
    if let Some(value) = header("x-echo") {
        response = response.header("x-b", value).header("x-c", "backend");
    }
    let mut text = format!("endpoint {own}\n{} {}\n", head.method, head.uri);
    let mut headers: Vec<String> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    // Values of one name keep their order.
    headers.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
    for line in headers {
        writeln!(text, "{line}").expect("a string takes everything");
    }
    writeln!(text, "body {}", String::from_utf8_lossy(&body)).expect("a string takes everything");
    Ok(response.body(Full::new(text.into())).unwrap_or_default())
}

/// The status asked for, if this attempt should fail.
fn failure(wish: Option<&str>, attempt: Option<&str>) -> Option<StatusCode> {
    let (status, times) = wish?.split_once(',')?;
    let attempt: u32 = attempt.and_then(|it| it.parse().ok()).unwrap_or(1);
    let times: u32 = times.parse().ok()?;
    (attempt <= times).then(|| status.parse().ok()).flatten()
}
