//! What the scheduler writes: bindings, the condition `PodScheduled`, Events.

use cluster_machinery::time;
use http::{Method, Request, header::CONTENT_TYPE};
use jiff::Timestamp;
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::pod::{Key, PodInfo};

/// How a binding went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The pod has its node.
    Yes,
    /// It failed, or somebody else was faster.
    No,
}

/// Binds a pod to a node.
pub(crate) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Bound {
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    match send(client, Method::POST, &format!("{}/binding", path(&pod.key)), &body).await {
        Ok(_) => Bound::Yes,
        Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {
            tracing::debug!(pod = %pod.key, message = status.message, "Nothing to bind");
            Bound::No
        }
        Err(error) => {
            tracing::warn!(pod = %pod.key, node, %error, "Binding failed; trying again");
            Bound::No
        }
    }
}

/// Tells that a pod was placed.
pub(crate) async fn placed(client: &Client, pod: &PodInfo, node: &str) {
    let message = format!("Successfully assigned {} to {node}", pod.key);
    event(client, pod, "Normal", "Scheduled", &message).await;
}

/// Whether a pod's status does not say yet that it cannot be placed, in these words.
pub(crate) fn is_news(pod: &PodInfo, message: &str) -> bool {
    !pod.conditions.iter().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.message.as_deref() == Some(message)
    })
}

/// Tells that a pod cannot be placed, in its status and by an Event.
pub(crate) async fn unplaceable(client: &Client, pod: &PodInfo, message: &str) {
    let now = time::format(Timestamp::now());
    let old = pod.conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    let since = old.filter(|old| old.status == "False").and_then(|old| old.last_transition_time.as_ref());
    let since = since.map_or(now, |since| time::format(since.0));
    let mut conditions: Vec<Value> =
        pod.conditions.iter().filter(|c| c.type_ != "PodScheduled").map(|c| json!(c)).collect();
    conditions.push(json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastTransitionTime": since,
    }));
    let patch = json!({"metadata": {"uid": pod.uid, "resourceVersion": pod.version.to_string()}, "status": {"conditions": conditions}});
    // If the pod has changed meanwhile it will be looked at again, and told again.
    if let Err(error) = send(client, Method::PATCH, &format!("{}/status", path(&pod.key)), &patch).await {
        tracing::debug!(pod = %pod.key, %error, "Cannot tell that a pod is unschedulable");
        return;
    }
    event(client, pod, "Warning", "FailedScheduling", message).await;
}

async fn event(client: &Client, pod: &PodInfo, kind: &str, reason: &str, message: &str) {
    let (now, key) = (Timestamp::now(), &pod.key);
    let body = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{}.{:x}", key.name, now.as_nanosecond()), "namespace": key.namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": key.namespace, "name": key.name, "uid": pod.uid},
        "type": kind, "reason": reason, "message": message, "source": {"component": "default-scheduler"},
        "reportingComponent": "default-scheduler", "reportingInstance": "",
        "firstTimestamp": time::format(now), "lastTimestamp": time::format(now), "count": 1,
    });
    if let Err(error) =
        send(client, Method::POST, &format!("/api/v1/namespaces/{}/events", key.namespace), &body).await
    {
        tracing::debug!(pod = %key, %error, "Cannot write an event");
    }
}

fn path(key: &Key) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name)
}

async fn send(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
    let content = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content);
    let request =
        request.body(serde_json::to_vec(body).map_err(Error::SerdeError)?).map_err(Error::HttpError)?;
    client.request(request).await
}
