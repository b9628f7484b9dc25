//! Carries out plans: one place for requests, for what their answers mean, and for the workers of all controllers.

use std::{sync::Arc, time::Duration};

use cluster_machinery::time;
use futures::stream::{self, StreamExt};
use http::{Method, Request, header::CONTENT_TYPE};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::Key,
    events::{Event, Recorder},
    hub::Hub,
    plan::{Action, Alive, Kind, Plan, Verb},
    queue::Queue,
    replicaset,
};

/// Requests of one batch under way at once.
const AT_ONCE: usize = 16;
/// How long requests may take that are under way when the controllers are stopped.
const LAST_REQUESTS: Duration = Duration::from_secs(3);
/// Workers of one controller.
const WORKERS: usize = 4;

/// Carries out the plans of one controller.
#[derive(Clone)]
pub struct Executor {
    /// How requests are sent.
    pub client: Client,
    /// Where their answers go.
    pub hub: Arc<Hub>,
    /// Where Events go.
    pub recorder: Recorder,
    /// The controller's name in Events.
    pub source: &'static str,
}

/// Makes a plan for a key.
pub type Reconcile = Box<dyn Fn(&Hub, &Key) -> Plan + Send + Sync>;

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it should, or there was nothing to do any more.
    Done,
    /// The world has changed meanwhile: look again.
    Stale,
    /// It failed.
    Failed,
    /// It can never succeed: the namespace is going away.
    Pointless,
}

// === impl Executor ===

impl Executor {
    /// Runs the workers of a controller until `stop`.
    pub async fn work(self, queue: fn(&Hub) -> &Queue<Key>, reconcile: Reconcile, stop: CancellationToken) {
        if stop.run_until_cancelled(self.hub.wait_until_synced()).await.is_none() {
            return;
        }
        let work = || async {
            let queue = queue(&self.hub);
            while let Some(key) = stop.run_until_cancelled(queue.next()).await {
                let plan = reconcile(&self.hub, &key);
                let again_after = plan.again_after;
                match self.carry_out(plan).await {
                    Outcome::Done | Outcome::Pointless => queue.forget(&key),
                    Outcome::Stale | Outcome::Failed => queue.add_failed(key.clone()),
                }
                queue.done(&key);
                if let Some(after) = again_after {
                    queue.add_after(key, after);
                }
            }
        };
        let workers = futures::future::join_all((0..WORKERS).map(|_| work()));
        // What is begun is finished: a request that is dropped may succeed without anybody knowing.
        let out_of_time = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_REQUESTS).await;
        };
        tokio::select! {
            _ = workers => {}
            () = out_of_time => {}
        }
    }

    /// Carries out a plan; the outcome is that of the worst action.
    pub async fn carry_out(&self, plan: Plan) -> Outcome {
        for batch in plan.batches {
            let outcomes = stream::iter(batch).map(|action| self.act(action)).buffer_unordered(AT_ONCE);
            let worst = outcomes.fold(Outcome::Done, |worst, outcome| async move { worst.or(outcome) }).await;
            if worst != Outcome::Done {
                return worst;
            }
        }
        Outcome::Done
    }

    async fn act(&self, action: Action) -> Outcome {
        let Action { verb, kind, key, note, only_while_alive } = action;
        if let Some(alive) = only_while_alive
            && !self.is_alive(&alive).await
        {
            return Outcome::Stale;
        }
        let (method, content, path, body, uid) = match verb {
            Verb::Create(object) => (Method::POST, "application/json", kind.path(&key, ""), object, None),
            Verb::Patch { subresource, patch } => {
                (Method::PATCH, "application/merge-patch+json", kind.path(&key, subresource), patch, None)
            }
            Verb::Delete { uid, grace, version } => {
                let body = json!({
                    "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace, "propagationPolicy": "Background",
                    "preconditions": {"uid": uid, "resourceVersion": version},
                });
                (Method::DELETE, "application/json", kind.path(&key, ""), without_nulls(body), uid)
            }
        };
        let answer = send(&self.client, method.clone(), &path, content, &body).await;
        let outcome = match &answer {
            Ok(_) => Outcome::Done,
            Err(error) => judge(&method, error),
        };
        if let Some(note) = note {
            let name = answer
                .as_ref()
                .ok()
                .and_then(|object| object["metadata"]["name"].as_str())
                .unwrap_or(&key.name);
            match (&answer, note.failure) {
                (Ok(_), _) => {
                    let message = note.message.replacen("{}", name, 1);
                    self.record(note.about, false, note.reason, message);
                }
                (Err(error), Some(reason)) if outcome == Outcome::Failed => {
                    self.condition(&note.about, reason, &words(error)).await;
                    self.record(note.about, true, reason, format!("Error: {}", words(error)));
                }
                _ => {}
            }
        }
        match answer {
            Ok(object) if object["kind"] == kind.name() => self.hub.wrote(kind, object),
            Ok(_) if method == Method::DELETE => self.hub.deleted(kind, &key, uid.as_deref()),
            Ok(_) => {}
            Err(error) => {
                if outcome == Outcome::Done && method == Method::DELETE {
                    self.hub.deleted(kind, &key, uid.as_deref());
                }
                if outcome == Outcome::Failed {
                    tracing::warn!(controller = self.source, %method, path, error = words(&error), "A request failed; trying again");
                }
            }
        }
        outcome
    }

    async fn is_alive(&self, object: &Alive) -> bool {
        let Ok(request) = Request::get(object.kind.path(&object.key, "")).body(Vec::new()) else {
            return false;
        };
        self.client.request::<Value>(request).await.is_ok_and(|found| {
            found["metadata"]["uid"] == object.uid.as_str()
                && found["metadata"]["deletionTimestamp"].is_null()
        })
    }

    /// Says in a ReplicaSet's status why it has not the pods it wants; it takes that away itself once it has them. A failure that is told
    /// already is not told again: each try would change the words.
    async fn condition(&self, about: &Value, reason: &str, message: &str) {
        let text = |key: &str| about[key].as_str().unwrap_or_default();
        if text("kind") != Kind::ReplicaSet.name() {
            return;
        }
        let key = Key::new(text("namespace"), text("name"));
        let known = self.hub.caches.replica_sets.get(&key);
        if known.is_none_or(|set| replicaset::has_failure(&set)) {
            return;
        }
        // It is the only condition that ReplicaSets have.
        let patch = json!({
            "metadata": {"uid": about["uid"]},
            "status": {"conditions": [{
                "type": replicaset::FAILURE, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": time::format(jiff::Timestamp::now()),
            }]},
        });
        let path = Kind::ReplicaSet.path(&key, "status");
        match send(&self.client, Method::PATCH, &path, "application/merge-patch+json", &patch).await {
            Ok(object) => self.hub.wrote(Kind::ReplicaSet, object),
            Err(error) => tracing::debug!(path, error = words(&error), "A failure could not be told"),
        }
    }

    fn record(&self, about: Value, warning: bool, reason: &'static str, message: String) {
        self.recorder.record(Event { about, warning, reason, message, source: self.source });
    }
}

// === impl Outcome ===

impl Outcome {
    /// The worse of two.
    pub(crate) fn or(self, other: Self) -> Self {
        let rank = |outcome| match outcome {
            Self::Done => 0,
            Self::Pointless => 1,
            Self::Stale => 2,
            Self::Failed => 3,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Sends one request and reads its answer.
pub(crate) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    content: &str,
    body: &Value,
) -> Result<Value, Error> {
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content);
    let request =
        request.body(serde_json::to_vec(body).map_err(Error::SerdeError)?).map_err(Error::HttpError)?;
    client.request(request).await
}

/// What a failed request comes to.
pub(crate) fn judge(method: &Method, error: &Error) -> Outcome {
    let Error::Api(status) = error else { return Outcome::Failed };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        404 if method != Method::POST => Outcome::Done,
        409 => Outcome::Stale,
        403 if causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating") => Outcome::Pointless,
        // The namespace is gone.
        404 => Outcome::Pointless,
        _ => Outcome::Failed,
    }
}

/// An error in the words of the API server, if it said any.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// An object without its fields that are null or empty objects.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, without_nulls(value)))
            .filter(|(_, value)| {
                !value.is_null() && value.as_object().is_none_or(|fields| !fields.is_empty())
            })
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_judged() {
        let api = |code: u16, cause: &str| {
            let status = json!({"code": code, "message": "m", "reason": "r", "details": {"causes": [{"reason": cause, "message": "", "field": ""}]}});
            Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        assert_eq!(judge(&Method::DELETE, &api(404, "")), Outcome::Done);
        assert_eq!(judge(&Method::PATCH, &api(404, "")), Outcome::Done);
        assert_eq!(judge(&Method::POST, &api(404, "")), Outcome::Pointless);
        assert_eq!(judge(&Method::POST, &api(409, "")), Outcome::Stale);
        assert_eq!(judge(&Method::POST, &api(403, "NamespaceTerminating")), Outcome::Pointless);
        assert_eq!(judge(&Method::POST, &api(403, "")), Outcome::Failed);
        assert_eq!(judge(&Method::POST, &api(500, "")), Outcome::Failed);
    }

    #[test]
    fn nulls_are_left_out() {
        assert_eq!(
            without_nulls(json!({"a": null, "b": {"c": null}, "d": 0, "e": []})),
            json!({"d": 0, "e": []})
        );
    }
}
