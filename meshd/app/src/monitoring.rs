//! Port 15014: metrics, readiness, and what the control plane knows, as JSON.

use crate::figures;
use base_runtime::{
    CancellationToken,
    http_server::{Listener, handler, json, serve as serve_http, text},
};
use http::{Method, StatusCode};
use meshd_xds::{Publisher, Tracker};
use prometheus_client::registry::Registry;
use serde_json::json;
use std::sync::Arc;
use tokio::net::TcpListener;

pub(crate) async fn serve(
    listener: TcpListener,
    registry: Registry,
    publisher: Publisher,
    tracker: Tracker,
    shutdown: CancellationToken,
) {
    let registry = Arc::new(registry);
    let answer = handler(move |request: http::Request<hyper::body::Incoming>| {
        let (registry, publisher, tracker) = (registry.clone(), publisher.clone(), tracker.clone());
        async move {
            if request.method() != Method::GET {
                return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
            }
            match request.uri().path() {
                "/ready" if publisher.current().is_none() => {
                    text(StatusCode::SERVICE_UNAVAILABLE, "the cluster has not been read yet")
                }
                "/ready" | "/healthz" => text(StatusCode::OK, "ok"),
                "/metrics" => text(StatusCode::OK, figures::text(&registry)),
                "/debug/syncz" => {
                    let version = publisher.current().map_or(0, |p| p.snapshot.version);
                    json(StatusCode::OK, json!({"version": version, "proxies": tracker.all()}).to_string())
                }
                _ => text(StatusCode::NOT_FOUND, "not found; try /metrics, /ready, /debug/syncz"),
            }
        }
    });
    serve_http(Listener::Tcp(listener), answer, shutdown).await;
}
