//! Namespaces that are being deleted: first their pods go, then everything else, then the namespace itself.

use std::{collections::BTreeMap, sync::Arc};

use futures::stream::{self, StreamExt};
use http::{Method, Request};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::Key,
    executor::{self, Outcome},
    garbage::{Inventory, Resource},
    hub::Hub,
};

const FINALIZER: &str = "kubernetes";
/// Requests under way at once.
const AT_ONCE: usize = 16;
/// Workers that look at namespaces.
const WORKERS: usize = 2;

/// What to do next with a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Delete all objects of these resources.
    Delete(Vec<Arc<Resource>>),
    /// Wait until something is gone.
    Wait,
    /// Nothing seems to be left.
    Finish,
}

/// Pods first, so that nothing they use goes before them.
fn step(contents: &BTreeMap<Arc<Resource>, bool>) -> Step {
    let pods = |resource: &Resource| resource.group.is_empty() && resource.plural == "pods";
    let has_pods = contents.keys().any(|resource| pods(resource));
    let due = contents.iter().filter(|(resource, alive)| **alive && (!has_pods || pods(resource)));
    let due: Vec<_> = due.map(|(resource, _)| Arc::clone(resource)).collect();
    match (due.is_empty(), contents.is_empty()) {
        (false, _) => Step::Delete(due),
        (true, false) => Step::Wait,
        (true, true) => Step::Finish,
    }
}

/// The namespace controller.
pub(crate) struct Namespaces {
    pub(crate) client: Client,
    pub(crate) hub: Arc<Hub>,
    pub(crate) inventory: Arc<Inventory>,
}

// === impl Namespaces ===

impl Namespaces {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let work = async {
            self.hub.wait_until_synced().await;
            self.inventory.wait_until_filled().await;
            futures::future::join_all((0..WORKERS).map(|_| self.work())).await
        };
        stop.run_until_cancelled(work).await;
    }

    async fn work(&self) {
        let queue = &self.hub.queues.namespaces;
        loop {
            let key = queue.next().await;
            match self.look_at(&key).await {
                Outcome::Done | Outcome::Pointless => queue.forget(&key),
                Outcome::Stale | Outcome::Failed => queue.add_failed(key.clone()),
            }
            queue.done(&key);
        }
    }

    async fn look_at(&self, key: &Key) -> Outcome {
        let Some(namespace) = self.hub.caches.namespaces.get(key) else { return Outcome::Done };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none()
            || !finalizers.iter().any(|finalizer| finalizer == FINALIZER)
        {
            return Outcome::Done;
        }
        // A definition that was added meanwhile may have objects here.
        self.inventory.wait_until_filled().await;
        let contents = self.inventory.graph.lock().contents(&key.name);
        match step(&contents) {
            Step::Delete(resources) => self.delete_all(&key.name, resources).await,
            Step::Wait => Outcome::Done,
            Step::Finish => self.finish(&namespace, &key.name, finalizers).await,
        }
    }

    async fn delete_all(&self, namespace: &str, resources: Vec<Arc<Resource>>) -> Outcome {
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        let place = Key::new(namespace, "");
        let requests = resources.into_iter().map(|resource| {
            let (place, body) = (&place, &body);
            async move { self.send(Method::DELETE, &resource.path(place), body).await.map(|_| ()) }
        });
        worst(stream::iter(requests).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await)
    }

    /// Makes sure that nothing is left, for caches may be late, and lets the namespace go.
    async fn finish(&self, namespace: &Namespace, name: &str, finalizers: Vec<String>) -> Outcome {
        let place = Key::new(name, "");
        let events = format!("/api/v1/namespaces/{name}/events");
        if let Err(outcome) =
            self.send(Method::DELETE, &events, &json!({"apiVersion": "v1", "kind": "DeleteOptions"})).await
        {
            return outcome;
        }
        let resources = self.inventory.resources().into_iter().filter(|resource| resource.namespaced);
        let checks = resources.map(|resource| {
            let path = format!("{}?limit=1", resource.path(&place));
            async move {
                let request = Request::get(&path).body(Vec::new()).map_err(|_| Outcome::Failed)?;
                match self.client.request::<Value>(request).await {
                    Ok(list) if list["items"].as_array().is_none_or(Vec::is_empty) => Ok(()),
                    Ok(_) => Err(Outcome::Stale),
                    // The definition went away with its objects.
                    Err(Error::Api(status)) if status.code == 404 => Ok(()),
                    Err(error) => {
                        tracing::debug!(%error, path, "Cannot see what is left of a namespace");
                        Err(Outcome::Failed)
                    }
                }
            }
        });
        let checked = worst(stream::iter(checks).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
        if checked != Outcome::Done {
            return checked;
        }
        let left: Vec<_> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "uid": namespace.metadata.uid, "resourceVersion": namespace.metadata.resource_version},
            "spec": {"finalizers": left},
        });
        match self.send(Method::PUT, &format!("/api/v1/namespaces/{name}/finalize"), &body).await {
            Ok(_) => Outcome::Done,
            Err(outcome) => outcome,
        }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Outcome> {
        executor::send(&self.client, method.clone(), path, "application/json", body).await.or_else(|error| {
            match executor::judge(&method, &error) {
                Outcome::Done => Ok(Value::Null),
                outcome => {
                    if outcome == Outcome::Failed {
                        tracing::warn!(%method, path, error = executor::words(&error), "Deleting a namespace's content failed; trying again");
                    }
                    Err(outcome)
                }
            }
        })
    }
}

fn worst(results: Vec<Result<(), Outcome>>) -> Outcome {
    results.into_iter().filter_map(Result::err).fold(Outcome::Done, Outcome::or)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_go_first() {
        let resource = |plural: &str| {
            Arc::new(Resource {
                group: String::new(),
                version: "v1".into(),
                kind: plural.into(),
                plural: plural.into(),
                namespaced: true,
            })
        };
        let (pods, secrets) = (resource("pods"), resource("secrets"));
        let look = |contents: &[(&Arc<Resource>, bool)]| {
            step(&contents.iter().map(|(r, alive)| (Arc::clone(r), *alive)).collect())
        };
        assert_eq!(look(&[(&pods, true), (&secrets, true)]), Step::Delete(vec![Arc::clone(&pods)]));
        assert_eq!(look(&[(&pods, false), (&secrets, true)]), Step::Wait);
        assert_eq!(look(&[(&secrets, true)]), Step::Delete(vec![Arc::clone(&secrets)]));
        assert_eq!(look(&[(&secrets, false)]), Step::Wait);
        assert_eq!(look(&[]), Step::Finish);
    }
}
