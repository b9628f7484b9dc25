//! What a controller wants done: plain data, made by pure functions, carried out by the executor.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::cache::Key;

/// The kinds that controllers write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `v1/pods`.
    Pod,
    /// `v1/nodes`.
    Node,
    /// `v1/serviceaccounts`.
    ServiceAccount,
    /// `v1/configmaps`.
    ConfigMap,
    /// `v1/services`.
    Service,
    /// `discovery.k8s.io/v1/endpointslices`.
    EndpointSlice,
    /// `apps/v1/deployments`.
    Deployment,
    /// `apps/v1/replicasets`.
    ReplicaSet,
}

/// What to do to bring the world closer to what is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Batches are carried out one after the other, the actions of a batch at once. A failure keeps later batches from being begun.
    pub batches: Vec<Vec<Action>>,
    /// When to look again if nothing happens before.
    pub again_after: Option<Duration>,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// What to do.
    pub verb: Verb,
    /// With an object of which kind.
    pub kind: Kind,
    /// Where; for creations with `generateName` the name is empty.
    pub key: Key,
    /// What to tell people about it.
    pub note: Option<Note>,
    /// Do it only if this object is there and not being deleted, which the API server is asked first: caches may be late.
    pub only_while_alive: Option<Alive>,
}

/// An object that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// Its kind.
    pub kind: Kind,
    /// Its place.
    pub key: Key,
    /// Its UID.
    pub uid: String,
}

/// A kind of write.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    /// Creates an object.
    Create(Value),
    /// Applies a merge patch to an object or one of its subresources. A `metadata.resourceVersion` in it makes it conditional.
    Patch {
        /// `status`, or empty.
        subresource: &'static str,
        /// The merge patch.
        patch: Value,
    },
    /// Deletes the object with this UID.
    Delete {
        /// Only if it has this UID.
        uid: Option<String>,
        /// Seconds to end in; `None` for the object's own.
        grace: Option<u32>,
        /// Only if it has this resource version.
        version: Option<String>,
    },
}

/// An Event about an action.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// The `involvedObject`.
    pub about: Value,
    /// Its `reason` if the action succeeds.
    pub reason: &'static str,
    /// Its `message`; `{}` stands for the name of the object written.
    pub message: String,
    /// Its `reason` if the action fails; the message is then the error.
    pub failure: Option<&'static str>,
}

// === impl Kind ===

impl Kind {
    /// The path of the group and version.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Deployment | Self::ReplicaSet => "/apis/apps/v1",
            Self::EndpointSlice => "/apis/discovery.k8s.io/v1",
            _ => "/api/v1",
        }
    }

    /// The resource's name in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::ServiceAccount => "serviceaccounts",
            Self::ConfigMap => "configmaps",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Deployment => "deployments",
            Self::ReplicaSet => "replicasets",
        }
    }

    /// The value of `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::ReplicaSet => "apps/v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            _ => "v1",
        }
    }

    /// The value of `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
        }
    }

    /// The path of the collection, or of an object in it.
    pub fn path(self, key: &Key, subresource: &str) -> String {
        let mut path = self.prefix().to_owned();
        if !key.namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(&key.namespace);
        }
        for part in [self.plural(), &key.name, subresource].into_iter().filter(|part| !part.is_empty()) {
            path.push('/');
            path.push_str(part);
        }
        path
    }

    /// An `ownerReference` to an object of this kind that controls its dependents.
    pub fn owner(self, meta: &ObjectMeta) -> Value {
        json!({
            "apiVersion": self.api_version(), "kind": self.name(), "name": meta.name, "uid": meta.uid,
            "controller": true, "blockOwnerDeletion": true,
        })
    }

    /// An `involvedObject` that names an object of this kind.
    pub fn reference(self, meta: &ObjectMeta) -> Value {
        json!({
            "apiVersion": self.api_version(), "kind": self.name(), "namespace": meta.namespace, "name": meta.name,
            "uid": meta.uid, "resourceVersion": meta.resource_version,
        })
    }
}

// === impl Plan ===

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// One batch.
    pub fn of(actions: Vec<Action>) -> Self {
        Self::nothing().then(actions)
    }

    /// A further batch, if there is anything in it.
    #[must_use]
    pub fn then(mut self, actions: Vec<Action>) -> Self {
        if !actions.is_empty() {
            self.batches.push(actions);
        }
        self
    }

    /// Looks again after a while, or earlier if that was said already.
    #[must_use]
    pub fn again_after(mut self, after: Option<Duration>) -> Self {
        self.again_after = match (self.again_after, after) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self
    }

    /// All actions, in order.
    #[cfg(test)]
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.batches.iter().flatten()
    }
}

// === impl Action ===

impl Action {
    /// Creates an object.
    pub fn create(kind: Kind, namespace: &str, mut object: Value) -> Self {
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.name().into();
        Self {
            verb: Verb::Create(object),
            kind,
            key: Key::new(namespace, ""),
            note: None,
            only_while_alive: None,
        }
    }

    /// Applies a merge patch.
    pub fn patch(kind: Kind, key: Key, patch: Value) -> Self {
        Self { verb: Verb::Patch { subresource: "", patch }, kind, key, note: None, only_while_alive: None }
    }

    /// Applies a merge patch to the status.
    pub fn patch_status(kind: Kind, key: Key, patch: Value) -> Self {
        Self {
            verb: Verb::Patch { subresource: "status", patch },
            kind,
            key,
            note: None,
            only_while_alive: None,
        }
    }

    /// Deletes an object, if it still has the UID.
    pub fn delete(kind: Kind, key: Key, uid: Option<String>) -> Self {
        Self {
            verb: Verb::Delete { uid, grace: None, version: None },
            kind,
            key,
            note: None,
            only_while_alive: None,
        }
    }

    /// Deletes an object at once.
    pub fn delete_now(kind: Kind, key: Key, uid: Option<String>) -> Self {
        Self {
            verb: Verb::Delete { uid, grace: Some(0), version: None },
            kind,
            key,
            note: None,
            only_while_alive: None,
        }
    }

    /// Only while an object lives.
    #[must_use]
    pub fn while_alive(mut self, kind: Kind, meta: &ObjectMeta) -> Self {
        let key = Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        self.only_while_alive = Some(Alive { kind, key, uid: meta.uid.clone().unwrap_or_default() });
        self
    }

    /// With an Event.
    #[must_use]
    pub fn noted(mut self, note: Note) -> Self {
        self.note = Some(note);
        self
    }
}
