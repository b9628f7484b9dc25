//! Text exposition of a metric registry.

use bytes::Bytes;
use http::{Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use prometheus_client::registry::Registry;

/// The media type of [`encode`]'s text: OpenMetrics, as Prometheus negotiates it.
pub const CONTENT_TYPE_TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry as OpenMetrics text.
#[must_use]
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail; a failing collector leaves what came before it.
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        tracing::error!("A metric collector failed; the exposition is cut short");
    }
    text
}

/// The registry as an HTTP response.
#[must_use]
pub fn response(registry: &Registry) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(encode(registry))));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(CONTENT_TYPE_TEXT));
    response
}
