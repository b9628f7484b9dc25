//! Fetches the key sets of token issuers, through clusters of the configuration, before the requests that need them are judged.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use sidecar_model::cluster::ClusterKind;
use tokio::task::spawn_local;

use super::callout::{Answered, Callout, CalloutError};
use crate::jwt::{JwtPlan, Need, RemoteKeys, may_fetch_from};
use crate::worker::Worker;

/// Longest key set that is read.
const KEYS_BYTES_MAX: usize = 1 << 20;
/// Beyond the fetch's own time, for a fetch that another worker does.
const GRACE: Duration = Duration::from_millis(100);

/// Sees to it that the keys which a request needs are there, or cannot be had.
pub(super) async fn ready(plan: &JwtPlan, parts: &Parts, worker: &Rc<Worker>) {
    let mut wanted = Vec::new();
    for keys in plan.due(parts, Instant::now()) {
        let done = keys.watch();
        if keys.begin() {
            // Apart from the request: a client that goes away breaks off no fetch that others wait for.
            spawn_local(fetch(Rc::clone(worker), Arc::clone(keys)));
        }
        wanted.push((Arc::clone(keys), done));
    }
    for (keys, mut done) in wanted {
        if keys.need(Instant::now()) == Need::Now {
            // Whether it went well is asked of the keys themselves.
            let _ = tokio::time::timeout(keys.timeout + GRACE, done.changed()).await;
        }
    }
}

async fn fetch(worker: Rc<Worker>, keys: Arc<RemoteKeys>) {
    // However this ends, the next one may fetch.
    let mut ending = Ending { keys: &keys, body: None };
    match ask(&worker, &keys).await {
        Ok(answer) if answer.status() == StatusCode::OK => ending.body = Some(answer.body),
        // Redirects among them: they could lead anywhere.
        Ok(answer) => tracing::debug!(uri = %keys.uri, status = %answer.status(), "No key set"),
        Err(error) => tracing::debug!(uri = %keys.uri, ?error, "No key set"),
    }
}

async fn ask(worker: &Worker, keys: &RemoteKeys) -> Result<Answered, CalloutError> {
    let config = worker.shared.config.load_full();
    // Only addresses that stand in the cluster itself were written by who configures this proxy.
    let plan = config.clusters.get(&keys.cluster);
    let found = plan.is_none_or(|plan| !matches!(plan.cluster.kind, ClusterKind::Static));
    let callout = Callout {
        worker,
        config: &config,
        cluster: &keys.cluster,
        http2: false,
        timeout: keys.timeout,
        body_bytes_max: KEYS_BYTES_MAX,
        addresses: None,
    };
    let parts = request(&keys.uri).ok_or(CalloutError::NoEndpoint)?;
    callout.send(&parts, &Bytes::new(), |pick| may_fetch_from(pick.target.address.ip(), found)).await
}

fn request(uri: &str) -> Option<Parts> {
    let uri: Uri = uri.parse().ok()?;
    let mut parts = Request::new(()).into_parts().0;
    parts.headers.insert(header::HOST, HeaderValue::try_from(uri.authority()?.as_str()).ok()?);
    parts.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    parts.uri = Uri::from(uri.path_and_query()?.clone());
    Some(parts)
}

/// Tells the keys how a fetch ended, also when it was broken off.
struct Ending<'a> {
    keys: &'a RemoteKeys,
    body: Option<Bytes>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.keys.put(self.body.as_deref(), Instant::now());
    }
}
