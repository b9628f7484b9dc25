//! Events: what controllers tell people. Best effort; repeated ones are counted up instead of written anew.

use std::collections::HashMap;

use http::{Method, Request};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use cluster_machinery::time;

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 1024;
/// Events that are remembered to be counted up.
const REMEMBERED: usize = 4096;

/// An Event to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The `involvedObject`.
    pub about: Value,
    /// Whether something is wrong.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// Who says it, `replicaset-controller`.
    pub source: &'static str,
}

/// Takes Events to be written.
#[derive(Debug, Clone)]
pub struct Recorder(mpsc::Sender<Event>);

// === impl Recorder ===

impl Recorder {
    /// Writes an Event some time soon.
    pub fn record(&self, event: Event) {
        if self.0.try_send(event).is_err() {
            tracing::debug!("Dropped an event");
        }
    }
}

/// A recorder, and the task that writes what it takes.
pub fn recorder(client: Client, stop: CancellationToken) -> (Recorder, impl Future<Output = ()>) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (Recorder(sender), write_all(client, queue, stop))
}

async fn write_all(client: Client, mut queue: mpsc::Receiver<Event>, stop: CancellationToken) {
    let mut known: HashMap<String, (String, u64)> = HashMap::new();
    while let Some(Some(event)) = stop.run_until_cancelled(queue.recv()).await {
        let identity = format!("{}\0{}\0{}", event.about["uid"], event.reason, event.message);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let namespace = match event.about["namespace"].as_str() {
            Some(namespace) if !namespace.is_empty() => namespace.to_owned(),
            _ => "default".to_owned(),
        };
        let path = format!("/api/v1/namespaces/{namespace}/events");
        let now = Timestamp::now();
        if let Some((name, count)) = known.get_mut(&identity) {
            *count += 1;
            let patch = json!({"count": *count, "lastTimestamp": time::format(now)});
            if send(&client, Method::PATCH, &format!("{path}/{name}"), &patch).await {
                continue;
            }
        }
        let body = body(&event, &namespace, now);
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if send(&client, Method::POST, &path, &body).await {
            known.insert(identity, (name, 1));
        }
    }
}

fn body(event: &Event, namespace: &str, now: Timestamp) -> Value {
    let about = event.about["name"].as_str().unwrap_or("unknown");
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{about}.{:x}", now.as_nanosecond()), "namespace": namespace},
        "involvedObject": event.about,
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason, "message": event.message, "source": {"component": event.source},
        "reportingComponent": event.source, "reportingInstance": "",
        "firstTimestamp": time::format(now), "lastTimestamp": time::format(now), "count": 1,
    })
}

async fn send(client: &Client, method: Method, path: &str, body: &Value) -> bool {
    let content = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, content);
    let Ok(request) = request.body(body.to_string().into_bytes()) else { return false };
    match client.request::<Value>(request).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, path, "Cannot write an event");
            false
        }
    }
}
