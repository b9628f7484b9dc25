//! Garbage collection: objects go when their owners are gone, in the order and with the exceptions their owners' deletion asks for.

mod graph;
mod inventory;

use std::{collections::HashSet, sync::Arc};

use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Client, Error};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) use graph::Resource;
pub(crate) use inventory::Inventory;

use crate::{
    cache::Key,
    executor::{self, Outcome},
};
use graph::{Object, Step};

/// Workers that look at objects.
const WORKERS: usize = 4;
/// Owners remembered not to exist; a UID never comes back.
const ABSENT: usize = 10_000;

/// The collector.
pub(crate) struct Collector {
    client: Client,
    inventory: Arc<Inventory>,
    absent: Mutex<HashSet<String>>,
}

// === impl Collector ===

impl Collector {
    pub(crate) fn new(client: Client, inventory: Arc<Inventory>) -> Self {
        Self { client, inventory, absent: Mutex::default() }
    }

    /// Collects until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let work = async {
            self.inventory.wait_until_filled().await;
            futures::future::join_all((0..WORKERS).map(|_| self.work())).await
        };
        stop.run_until_cancelled(work).await;
    }

    async fn work(&self) {
        let queue = &self.inventory.queue;
        loop {
            let uid = queue.next().await;
            match self.look_at(&uid).await {
                Outcome::Done | Outcome::Pointless => queue.forget(&uid),
                Outcome::Stale | Outcome::Failed => queue.add_failed(uid.clone()),
            }
            queue.done(&uid);
        }
    }

    async fn look_at(&self, uid: &str) -> Outcome {
        let mut present = HashSet::new();
        // Each turn but the last settles at least one owner.
        loop {
            let step = self.inventory.graph.lock().step(uid, &self.absent.lock(), &present);
            match step {
                Step::Nothing => return Outcome::Done,
                Step::Ask(owners) => {
                    for owner in owners {
                        match self.exists(uid, &owner).await {
                            Some(true) => {
                                present.insert(owner.uid);
                            }
                            Some(false) => self.remember_absent(owner.uid),
                            None => return Outcome::Failed,
                        }
                    }
                }
                Step::Delete(object, policy) => return self.delete(&object, policy).await,
                Step::Patch(object, patch) => return self.patch(&object, &patch).await,
                Step::Free(dependents, object, patch) => {
                    for (dependent, patch) in dependents {
                        match self.patch(&dependent, &patch).await {
                            Outcome::Done => {}
                            other => return other,
                        }
                    }
                    return self.patch(&object, &patch).await;
                }
            }
        }
    }

    /// Asks the API server whether an owner exists; `None` if it cannot be known.
    async fn exists(&self, dependent: &str, owner: &OwnerReference) -> Option<bool> {
        let namespace = self.inventory.graph.lock().get(dependent)?.key.namespace.clone();
        let Some(resource) = self.inventory.resource_of(&owner.api_version, &owner.kind) else {
            tracing::debug!(
                api_version = owner.api_version,
                kind = owner.kind,
                "An owner is of an unknown kind"
            );
            return None;
        };
        if resource.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned by a namespaced one.
            return Some(false);
        }
        let key = Key::new(if resource.namespaced { namespace } else { String::new() }, owner.name.clone());
        let request = Request::get(resource.path(&key)).body(Vec::new()).ok()?;
        match self.client.request::<Value>(request).await {
            Ok(found) => Some(found["metadata"]["uid"] == owner.uid.as_str()),
            Err(Error::Api(status)) if status.code == 404 => Some(false),
            Err(error) => {
                tracing::debug!(%error, "Cannot ask for an owner");
                None
            }
        }
    }

    fn remember_absent(&self, uid: String) {
        let mut absent = self.absent.lock();
        if absent.len() >= ABSENT {
            absent.clear();
        }
        absent.insert(uid);
    }

    async fn delete(&self, object: &Object, policy: &str) -> Outcome {
        let body = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy,
            "preconditions": {"uid": object.uid, "resourceVersion": object.version},
        });
        tracing::debug!(resource = object.resource.plural, key = %object.key, policy, "Collecting an object without owner");
        self.send(Method::DELETE, object, "application/json", &body).await
    }

    async fn patch(&self, object: &Object, patch: &Value) -> Outcome {
        self.send(Method::PATCH, object, "application/merge-patch+json", patch).await
    }

    async fn send(&self, method: Method, object: &Object, content: &str, body: &Value) -> Outcome {
        let path = object.resource.path(&object.key);
        match executor::send(&self.client, method.clone(), &path, content, body).await {
            Ok(_) => Outcome::Done,
            Err(error) => {
                let outcome = executor::judge(&method, &error);
                if outcome == Outcome::Failed {
                    tracing::warn!(%method, path, error = executor::words(&error), "Collecting garbage failed; trying again");
                }
                outcome
            }
        }
    }
}
