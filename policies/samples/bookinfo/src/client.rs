//! Calls to the other services, with the headers that tracing and routing need passed on.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy, client::legacy::connect::HttpConnector, rt::TokioExecutor};
use serde_json::Value;
use std::time::Duration;

/// What a call passes on from the request that caused it.
const PASSED_ON: [&str; 14] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];
const BODY_BYTES_MAX: usize = 1 << 20;

/// A client of one process. Cheap to clone.
#[derive(Clone)]
pub struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

impl Client {
    pub fn new() -> Self {
        Self(
            legacy::Client::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(60))
                .build_http(),
        )
    }

    /// One GET, the whole answer within `within`.
    pub async fn get(
        &self,
        url: &str,
        from: &HeaderMap,
        within: Duration,
    ) -> anyhow::Result<Response<Bytes>> {
        let mut request = Request::get(url).body(Full::default())?;
        *request.headers_mut() = passed_on(from);
        let call = async {
            let (head, body) =
                self.0.request(request).await.with_context(|| format!("calling {url}"))?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX)
                .collect()
                .await
                .map_err(|e| anyhow::anyhow!("reading from {url}: {e}"))?;
            anyhow::Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(within, call)
            .await
            .with_context(|| format!("no answer from {url} within {within:?}"))?
    }

    /// One GET whose answer must be 200 with JSON.
    pub async fn get_json(&self, url: &str, from: &HeaderMap, within: Duration) -> anyhow::Result<Value> {
        let answer = self.get(url, from, within).await?;
        ensure!(answer.status() == StatusCode::OK, "{url} answered {}", answer.status());
        Ok(serde_json::from_slice(answer.body())?)
    }
}

fn passed_on(from: &HeaderMap) -> HeaderMap {
    PASSED_ON
        .iter()
        .filter_map(|name| Some((HeaderName::from_static(name), from.get(*name)?.clone())))
        .collect()
}

/// The number at the end of `/prefix/<number>`, when the path is exactly that.
pub fn id_in(path: &str, prefix: &str) -> Option<u64> {
    path.strip_prefix(prefix)?.parse().ok()
}
