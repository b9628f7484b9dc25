//! The proxy's metrics, alone or with the application's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base_types::ErrorChain;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::Full;

use crate::config::Scrape;
use crate::fetch::{self, Question, Scheme};
use crate::life::Life;

/// The application must give its metrics within this time.
const LIMIT: Duration = Duration::from_secs(3);
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The proxy's own metrics.
pub(crate) fn own(life: &Life) -> String {
    let mut text = String::with_capacity(16 * 1024);
    let shared = life.proxy.shared();
    shared.metrics.render(&mut text);
    sidecar_proxy::stats::prometheus(shared, &mut text);
    let version = env!("CARGO_PKG_VERSION");
    text.push_str("# TYPE istio_build gauge\n");
    text.push_str(&format!("istio_build{{component=\"proxy\",tag=\"{version}\"}} 1\n"));
    let view = life.status.view();
    let expiry = view.certificate.as_ref().map_or(0, |certificate| certificate.not_after_seconds);
    let rejected: usize = view.types.values().map(|of_type| of_type.rejected.len()).sum();
    for (name, kind, value) in [
        ("sidecar_certificate_expiry_seconds", "gauge", expiry),
        (
            "sidecar_certificates_issued_total",
            "counter",
            view.certificate.map_or(0, |certificate| certificate.issued),
        ),
        ("sidecar_discovery_connected", "gauge", u64::from(view.connected)),
        ("sidecar_discovery_streams_total", "counter", view.streams),
        ("sidecar_discovery_rejected_resources", "gauge", rejected as u64),
        ("sidecar_config_version", "gauge", view.snapshot_version),
    ] {
        text.push_str(&format!("# TYPE {name} {kind}\n{name} {value}\n"));
    }
    text
}

/// The proxy's metrics and, after them, the application's.
pub(crate) async fn merged(life: &Life, scrape: Option<&Scrape>, pod: IpAddr) -> String {
    let mut text = own(life);
    let Some(scrape) = scrape else { return text };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4"));
    let question = Question {
        scheme: Scheme::Http,
        address: SocketAddr::new(pod, scrape.port),
        path: scrape.path.clone(),
        headers,
        body: Bytes::new(),
        limit: LIMIT,
    };
    match fetch::ask(question).await {
        Ok(answer) if answer.status().is_success() => {
            let body = String::from_utf8_lossy(answer.body());
            // What OpenMetrics ends with would end the merged text too.
            text.push_str(body.trim_end().trim_end_matches("# EOF"));
            text.push('\n');
        }
        Ok(answer) => tracing::debug!(status = %answer.status(), "The application's metrics cannot be read"),
        Err(error) => {
            tracing::debug!(error = %ErrorChain(&error), "The application's metrics cannot be read")
        }
    }
    text
}

/// Metrics as an answer.
pub(crate) fn response(text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}
