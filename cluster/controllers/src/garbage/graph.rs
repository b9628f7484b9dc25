//! Who owns whom, over all objects of the cluster, and what follows from it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use crate::cache::Key;

/// Deleting an owner waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Deleting an owner frees its dependents.
pub(crate) const ORPHAN: &str = "orphan";

/// A kind of object that can be listed, watched and deleted.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
}

/// An object, as far as ownership goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) resource: Arc<Resource>,
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) version: String,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) terminating: bool,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    objects: HashMap<String, Object>,
    /// By the owner's UID, whether the owner is known or not.
    dependents: HashMap<String, BTreeSet<String>>,
    /// The UIDs by namespace; cluster-scoped objects are under the empty name.
    namespaces: HashMap<String, BTreeSet<String>>,
}

/// What to do about an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Find out whether these owners exist; the graph does not know them.
    Ask(Vec<OwnerReference>),
    /// Delete it: no owner is left. The word is the propagation policy.
    Delete(Object, &'static str),
    /// Apply a merge patch to it.
    Patch(Object, Value),
    /// First apply patches to these, then one to the object itself.
    Free(Vec<(Object, Value)>, Object, Value),
}

// === impl Resource ===

impl Resource {
    /// The path of a collection, or of an object in it.
    pub(crate) fn path(&self, key: &Key) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !key.namespace.is_empty() {
            path.push_str(&format!("/namespaces/{}", key.namespace));
        }
        path.push_str(&format!("/{}", self.plural));
        if !key.name.is_empty() {
            path.push_str(&format!("/{}", key.name));
        }
        path
    }
}

// === impl Object ===

impl Object {
    pub(crate) fn new(resource: Arc<Resource>, meta: ObjectMeta) -> Self {
        Self {
            resource,
            key: Key::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
            uid: meta.uid.unwrap_or_default(),
            version: meta.resource_version.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            terminating: meta.deletion_timestamp.is_some(),
        }
    }

    fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }

    /// Whether its deletion waits for its dependents'.
    fn waits_for_dependents(&self) -> bool {
        self.terminating && self.has_finalizer(FOREGROUND)
    }

    fn patch(&self, meta: &Value) -> Value {
        let mut meta = meta.clone();
        meta["uid"] = self.uid.clone().into();
        meta["resourceVersion"] = self.version.clone().into();
        json!({ "metadata": meta })
    }

    fn without_finalizer(&self, name: &str) -> Value {
        let left: Vec<_> = self.finalizers.iter().filter(|finalizer| *finalizer != name).collect();
        self.patch(&json!({ "finalizers": left }))
    }

    fn with_owners(&self, keep: impl Fn(&OwnerReference) -> bool) -> Value {
        let left: Vec<_> = self.owners.iter().filter(|owner| keep(owner)).collect();
        self.patch(&json!({ "ownerReferences": left }))
    }
}

// === impl Graph ===

impl Graph {
    pub(crate) fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// The objects of a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Object> {
        self.namespaces.get(namespace).into_iter().flatten().filter_map(|uid| self.objects.get(uid))
    }

    /// The UIDs of a resource's objects.
    pub(crate) fn of_resource(&self, resource: &Resource) -> Vec<String> {
        let of = |object: &&Object| *object.resource == *resource;
        self.objects.values().filter(of).map(|object| object.uid.clone()).collect()
    }

    /// Takes in an object; answers the UIDs to look at.
    pub(crate) fn set(&mut self, object: Object) -> Vec<String> {
        let uid = object.uid.clone();
        let mut look = Vec::new();
        let old = self.take(&uid);
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        if !object.owners.is_empty() || object.terminating {
            look.push(uid.clone());
        }
        if object.waits_for_dependents() {
            look.extend(self.dependents_of(&uid).map(|dependent| dependent.uid.clone()));
        }
        // An owner that waits may have one dependent less.
        for owner in old.iter().flat_map(|old| &old.owners) {
            look.push(owner.uid.clone());
        }
        self.namespaces.entry(object.key.namespace.clone()).or_default().insert(uid.clone());
        self.objects.insert(uid, object);
        look
    }

    /// Takes in that an object is gone; answers the UIDs to look at.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(old) = self.take(uid) else { return Vec::new() };
        let mut look: Vec<_> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        look.extend(old.owners.into_iter().map(|owner| owner.uid));
        look
    }

    fn take(&mut self, uid: &str) -> Option<Object> {
        let old = self.objects.remove(uid)?;
        for owner in &old.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        if let Some(namespace) = self.namespaces.get_mut(&old.key.namespace) {
            namespace.remove(uid);
            if namespace.is_empty() {
                self.namespaces.remove(&old.key.namespace);
            }
        }
        Some(old)
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &Object> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.objects.get(uid))
    }

    /// What to do about an object, given the owners that are known not to exist, and those known to exist though the graph lacks them.
    pub(crate) fn step(&self, uid: &str, absent: &HashSet<String>, present: &HashSet<String>) -> Step {
        let Some(object) = self.objects.get(uid) else { return Step::Nothing };
        if object.terminating {
            return self.finish(object);
        }
        if object.owners.is_empty() {
            return Step::Nothing;
        }
        let (mut solid, mut dangling, mut waiting, mut unknown) =
            (false, HashSet::new(), HashSet::new(), Vec::new());
        for owner in &object.owners {
            match self.objects.get(&owner.uid).filter(|known| reaches(known, object)) {
                Some(known) if known.waits_for_dependents() => {
                    waiting.insert(owner.uid.as_str());
                }
                Some(_) => solid = true,
                None if absent.contains(&owner.uid) => {
                    dangling.insert(owner.uid.as_str());
                }
                None if present.contains(&owner.uid) => solid = true,
                None => unknown.push(owner.clone()),
            }
        }
        if !unknown.is_empty() {
            return Step::Ask(unknown);
        }
        let gone = |owner: &OwnerReference| {
            dangling.contains(owner.uid.as_str()) || waiting.contains(owner.uid.as_str())
        };
        if solid {
            if dangling.is_empty() && waiting.is_empty() {
                return Step::Nothing;
            }
            return Step::Patch(object.clone(), object.with_owners(|owner| !gone(owner)));
        }
        let has_dependents = self.dependents_of(uid).next().is_some();
        let policy = if object.has_finalizer(ORPHAN) {
            "Orphan"
        } else if object.has_finalizer(FOREGROUND) || (!waiting.is_empty() && has_dependents) {
            "Foreground"
        } else {
            "Background"
        };
        Step::Delete(object.clone(), policy)
    }

    /// What to do about an object that is being deleted.
    fn finish(&self, object: &Object) -> Step {
        if object.has_finalizer(ORPHAN) {
            let free = |dependent: &Object| {
                (dependent.clone(), dependent.with_owners(|owner| owner.uid != object.uid))
            };
            let dependents = self.dependents_of(&object.uid).map(free).collect();
            return Step::Free(dependents, object.clone(), object.without_finalizer(ORPHAN));
        }
        if object.has_finalizer(FOREGROUND) {
            let blocks = |dependent: &Object| {
                dependent
                    .owners
                    .iter()
                    .any(|owner| owner.uid == object.uid && owner.block_owner_deletion == Some(true))
            };
            if !self.dependents_of(&object.uid).any(blocks) {
                return Step::Patch(object.clone(), object.without_finalizer(FOREGROUND));
            }
        }
        Step::Nothing
    }

    /// How many objects of each resource a namespace has, and whether any of them is not being deleted yet.
    pub(crate) fn contents(&self, namespace: &str) -> BTreeMap<Arc<Resource>, bool> {
        let mut contents = BTreeMap::new();
        for object in self.in_namespace(namespace) {
            *contents.entry(Arc::clone(&object.resource)).or_default() |= !object.terminating;
        }
        contents
    }
}

/// Whether an owner can own an object: it is in the same namespace, or in none.
fn reaches(owner: &Object, object: &Object) -> bool {
    !owner.resource.namespaced || owner.key.namespace == object.key.namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(plural: &str) -> Arc<Resource> {
        Arc::new(Resource {
            group: String::new(),
            version: "v1".into(),
            kind: plural.into(),
            plural: plural.into(),
            namespaced: true,
        })
    }

    fn object(uid: &str, owners: &[&str], patch: Value) -> Object {
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| json!({"apiVersion": "v1", "kind": "x", "name": owner, "uid": owner, "blockOwnerDeletion": true}))
            .collect();
        let mut meta = json!({"namespace": "n", "name": uid, "uid": uid, "resourceVersion": "1", "ownerReferences": owners});
        cluster_machinery::patch::merge(&mut meta, &patch).unwrap();
        Object::new(resource("x"), serde_json::from_value(meta).unwrap())
    }

    fn graph(objects: impl IntoIterator<Item = Object>) -> Graph {
        let mut graph = Graph::default();
        for object in objects {
            graph.set(object);
        }
        graph
    }

    fn set(uids: &[&str]) -> HashSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    fn step(graph: &Graph, uid: &str, absent: &[&str]) -> Step {
        graph.step(uid, &set(absent), &HashSet::new())
    }

    #[test]
    fn dependents_go_when_the_last_owner_is_gone() {
        let mut graph = graph([object("a", &[], json!({})), object("c", &["a", "b"], json!({}))]);
        let Step::Ask(owners) = step(&graph, "c", &[]) else { panic!() };
        assert_eq!(owners[0].uid, "b");
        let Step::Patch(_, patch) = step(&graph, "c", &["b"]) else { panic!() };
        assert_eq!(patch["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
        assert_eq!(patch["metadata"]["resourceVersion"], "1");
        assert_eq!(graph.step("c", &HashSet::new(), &set(&["b"])), Step::Nothing);
        assert_eq!(graph.remove("a"), ["c"], "its dependents are looked at");
        assert!(
            matches!(step(&graph, "c", &["a", "b"]), Step::Delete(object, "Background") if object.uid == "c")
        );
        assert_eq!(step(&graph, "a", &[]), Step::Nothing);
    }

    #[test]
    fn an_owner_in_another_namespace_is_none() {
        let graph = graph([object("a", &[], json!({"namespace": "m"})), object("c", &["a"], json!({}))]);
        assert!(matches!(step(&graph, "c", &[]), Step::Ask(_)));
        assert!(matches!(step(&graph, "c", &["a"]), Step::Delete(..)));
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let deleting =
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["mine", FOREGROUND]});
        let mut graph = graph([object("b", &["a"], json!({})), object("c", &["b"], json!({}))]);
        let look = graph.set(object("a", &[], deleting));
        assert_eq!(look, ["a", "b"]);
        assert_eq!(step(&graph, "a", &[]), Step::Nothing);
        assert!(matches!(step(&graph, "b", &[]), Step::Delete(_, "Foreground")), "its own dependents first");
        assert!(graph.remove("c").contains(&"b".to_owned()));
        assert!(matches!(step(&graph, "b", &[]), Step::Delete(_, "Background")));
        assert!(graph.remove("b").contains(&"a".to_owned()));
        let Step::Patch(_, patch) = step(&graph, "a", &[]) else { panic!() };
        assert_eq!(patch["metadata"]["finalizers"], json!(["mine"]));
    }

    #[test]
    fn orphans_are_freed() {
        let deleting = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [ORPHAN]});
        let graph = graph([object("a", &[], deleting), object("b", &["a", "z"], json!({}))]);
        let Step::Free(dependents, owner, patch) = step(&graph, "a", &[]) else { panic!() };
        assert_eq!((dependents.len(), owner.uid.as_str()), (1, "a"));
        assert_eq!(dependents[0].1["metadata"]["ownerReferences"][0]["uid"], "z");
        assert_eq!(patch["metadata"]["finalizers"], json!([]));
    }

    #[test]
    fn contents_of_a_namespace() {
        let mut graph = graph([
            object("a", &[], json!({})),
            object("b", &[], json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})),
        ]);
        assert_eq!(graph.contents("n"), BTreeMap::from([(resource("x"), true)]));
        graph.remove("a");
        assert_eq!(graph.contents("n"), BTreeMap::from([(resource("x"), false)]));
        graph.remove("b");
        assert!(graph.contents("n").is_empty() && graph.namespaces.is_empty() && graph.dependents.is_empty());
    }

    #[test]
    fn paths() {
        let deployments = Resource {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            plural: "deployments".into(),
            namespaced: true,
        };
        assert_eq!(deployments.path(&Key::new("n", "a")), "/apis/apps/v1/namespaces/n/deployments/a");
        assert_eq!(resource("pods").path(&Key::new("n", "")), "/api/v1/namespaces/n/pods");
    }
}
