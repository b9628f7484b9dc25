//! ConfigMaps and Secrets that pods refer to: which a pod needs, and a watched copy of each while it is needed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::pod;

/// How long a pod's start waits for an object's first answer before it reports the failure.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(20);

/// Kind of a referenced object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum RefKind {
    ConfigMap,
    Secret,
}

/// A referenced object's kind and name; the namespace is the pod's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ref {
    pub(crate) kind: RefKind,
    pub(crate) name: String,
}

/// Contents of a ConfigMap or Secret, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) entries: std::collections::BTreeMap<String, Vec<u8>>,
}

/// What is known of the objects a pod refers to, at one moment. Absent entries do not exist in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    objects: HashMap<Ref, Arc<Data>>,
}

type Key = (String, Ref);
/// `None` until the first answer, then whether the object exists and what it holds.
type Known = Option<Option<Arc<Data>>>;

/// Watched copies of referenced objects, shared by all pods of a node.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
    watched: Arc<Mutex<HashMap<Key, std::sync::Weak<Watched>>>>,
}

struct Watched {
    known: watch::Receiver<Known>,
    _task: AbortOnDropHandle<()>,
}

/// A pod's hold on the objects it refers to; dropping it ends watches nobody else needs.
pub(crate) struct Hold {
    held: Vec<(Ref, Arc<Watched>)>,
}

/// An object did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("timed out waiting for {kind} \"{namespace}/{name}\"")]
pub(crate) struct Unanswered {
    kind: &'static str,
    namespace: String,
    name: String,
}

/// The objects that `pod` refers to in environment and volumes.
pub(crate) fn references(pod: &Pod) -> BTreeSet<Ref> {
    let mut refs = BTreeSet::new();
    let mut add = |kind, name: &str| {
        if !name.is_empty() {
            refs.insert(Ref { kind, name: name.to_owned() });
        }
    };
    for (_, container) in pod::containers(pod) {
        for from in container.env_from.iter().flatten() {
            if let Some(source) = &from.config_map_ref {
                add(RefKind::ConfigMap, &source.name);
            }
            if let Some(source) = &from.secret_ref {
                add(RefKind::Secret, &source.name);
            }
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            if let Some(key) = &source.config_map_key_ref {
                add(RefKind::ConfigMap, &key.name);
            }
            if let Some(key) = &source.secret_key_ref {
                add(RefKind::Secret, &key.name);
            }
        }
    }
    for volume in pod::spec(pod).and_then(|spec| spec.volumes.as_ref()).into_iter().flatten() {
        if let Some(source) = &volume.config_map {
            add(RefKind::ConfigMap, &source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()) {
            add(RefKind::Secret, name);
        }
        for source in volume.projected.iter().filter_map(|projected| projected.sources.as_ref()).flatten() {
            if let Some(source) = &source.config_map {
                add(RefKind::ConfigMap, &source.name);
            }
            if let Some(source) = &source.secret {
                add(RefKind::Secret, &source.name);
            }
        }
    }
    refs
}

// === impl Snapshot ===

impl Snapshot {
    /// The object's contents, if it exists.
    pub(crate) fn get(&self, kind: RefKind, name: &str) -> Option<&Data> {
        self.objects.get(&Ref { kind, name: name.to_owned() }).map(AsRef::as_ref)
    }

    #[cfg(test)]
    pub(crate) fn with(mut self, kind: RefKind, name: &str, entries: &[(&str, &str)]) -> Self {
        let entries =
            entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        self.objects.insert(Ref { kind, name: name.to_owned() }, Arc::new(Data { entries }));
        self
    }
}

// === impl Objects ===

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, watched: Arc::default() }
    }

    /// Holds every object of `refs`; objects that somebody holds already are shared.
    pub(crate) fn hold(&self, namespace: &str, refs: &BTreeSet<Ref>) -> Hold {
        let mut watched = self.watched.lock();
        watched.retain(|_, entry| entry.strong_count() > 0);
        let held = refs
            .iter()
            .map(|reference| {
                let key = (namespace.to_owned(), reference.clone());
                let entry = watched.get(&key).and_then(std::sync::Weak::upgrade).unwrap_or_else(|| {
                    let entry = Arc::new(self.watch(namespace, reference));
                    watched.insert(key, Arc::downgrade(&entry));
                    entry
                });
                (reference.clone(), entry)
            })
            .collect();
        Hold { held }
    }

    fn watch(&self, namespace: &str, reference: &Ref) -> Watched {
        let (publish, known) = watch::channel(None);
        let client = self.client.clone();
        let (namespace, name) = (namespace.to_owned(), reference.name.clone());
        let task = match reference.kind {
            RefKind::ConfigMap => tokio::spawn(follow::<ConfigMap>(client, namespace, name, publish)),
            RefKind::Secret => tokio::spawn(follow::<Secret>(client, namespace, name, publish)),
        };
        Watched { known, _task: AbortOnDropHandle::new(task) }
    }
}

async fn follow<K>(client: Client, namespace: String, name: String, publish: watch::Sender<Known>)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + Into<Data>
        + 'static,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = None,
            Ok(watcher::Event::InitApply(object)) => listed = Some(Arc::new(object.into())),
            Ok(watcher::Event::InitDone) => set(&publish, listed.take()),
            Ok(watcher::Event::Apply(object)) => set(&publish, Some(Arc::new(object.into()))),
            Ok(watcher::Event::Delete(_)) => set(&publish, None),
            Err(error) => tracing::debug!(%namespace, name, %error, "Watch of a referenced object failed"),
        }
    }
}

fn set(publish: &watch::Sender<Known>, value: Option<Arc<Data>>) {
    publish.send_if_modified(|known| {
        let changed = known.as_ref() != Some(&value);
        *known = Some(value);
        changed
    });
}

// === impl Hold ===

impl Hold {
    /// Waits until every object has answered and returns what they hold.
    pub(crate) async fn snapshot(&self, namespace: &str) -> Result<Snapshot, Unanswered> {
        let mut objects = HashMap::new();
        for (reference, watched) in &self.held {
            let mut known = watched.known.clone();
            let answer = tokio::time::timeout(FIRST_ANSWER_MAX, known.wait_for(Option::is_some)).await;
            let Ok(Ok(answer)) = answer else {
                return Err(Unanswered {
                    kind: match reference.kind {
                        RefKind::ConfigMap => "configmap",
                        RefKind::Secret => "secret",
                    },
                    namespace: namespace.to_owned(),
                    name: reference.name.clone(),
                });
            };
            if let Some(Some(data)) = answer.as_ref() {
                objects.insert(reference.clone(), data.clone());
            }
        }
        Ok(Snapshot { objects })
    }

    /// Completes when one of the objects changed since `seen` was taken; never for a pod that refers to none.
    pub(crate) async fn changed(&self, seen: &Snapshot) {
        let waits = self.held.iter().map(|(reference, watched)| {
            let mut known = watched.known.clone();
            let seen = seen.objects.get(reference).cloned();
            Box::pin(async move {
                let differs = |known: &Known| known.as_ref().is_some_and(|known| *known != seen);
                if known.wait_for(differs).await.is_err() {
                    std::future::pending::<()>().await;
                }
            })
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            std::future::pending::<()>().await;
        }
        futures::future::select_all(waits).await;
    }
}

// === impl Data ===

impl From<ConfigMap> for Data {
    fn from(object: ConfigMap) -> Self {
        let text = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
        let binary = object.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
        Self { entries: text.chain(binary).collect() }
    }
}

impl From<Secret> for Data {
    fn from(object: Secret) -> Self {
        let text =
            object.string_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
        let binary = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
        Self { entries: binary.chain(text).collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reference_is_found_once() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {}, "spec": {
                "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "from"}}]}],
                "containers": [{"name": "c",
                    "envFrom": [{"secretRef": {"name": "s1"}}],
                    "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "key", "key": "k"}}},
                            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}]}],
                "volumes": [{"name": "a", "configMap": {"name": "vol"}}, {"name": "b", "secret": {"secretName": "s2"}},
                    {"name": "p", "projected": {"sources": [{"configMap": {"name": "root"}}, {"secret": {"name": "s3"}}]}}],
            }
        }))
        .unwrap();
        let names: Vec<_> = references(&pod).into_iter().map(|reference| reference.name).collect();
        assert_eq!(names, ["from", "key", "root", "vol", "s1", "s2", "s3"]);
    }
}
