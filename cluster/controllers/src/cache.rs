//! A watched kind in memory, never older than the last thing we wrote or were told.
//!
//! What our own writes answer is put in at once, so that the next look sees it and nothing is made twice; the watch event that follows is
//! then no news. Resource versions are compared as numbers, as Kubernetes allows since 1.35.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kube::{Resource, ResourceExt};
use parking_lot::RwLock;

/// An object's place: its namespace, empty for cluster-scoped kinds, and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A change of one object.
#[derive(Debug, Clone)]
pub struct Change<K> {
    /// What was known before.
    pub old: Option<Arc<K>>,
    /// What is known now; `None` when it is gone.
    pub new: Option<Arc<K>>,
}

/// All objects of a kind, ordered by namespace and name.
#[derive(Debug)]
pub struct Cache<K> {
    inner: RwLock<Inner<K>>,
    synced: AtomicBool,
}

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Objects that a write of ours removed, with the version they had: older news of them is ignored.
    removed: BTreeMap<Key, (u64, Instant)>,
    /// When our own writes put objects in that no watch event has confirmed.
    written: BTreeMap<Key, Instant>,
    /// The keys seen since a relist began.
    listed: Option<BTreeSet<Key>>,
}

/// A list that was read before our write may come after it; later than this it does not.
const SETTLED: Duration = Duration::from_secs(10);

// === impl Key ===

impl Key {
    /// A place by its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The place of an object.
    pub fn of(object: &impl Resource) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The resource version of an object as a number.
pub(crate) fn version(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

// === impl Change ===

impl<K> Change<K> {
    /// The object as it is, or as it was last.
    pub fn current(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both states that there are.
    pub fn both(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(&self.new)
    }
}

// === impl Cache ===

impl<K> Default for Cache<K> {
    fn default() -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            removed: BTreeMap::new(),
            written: BTreeMap::new(),
            listed: None,
        };
        Self { inner: RwLock::new(inner), synced: AtomicBool::new(false) }
    }
}

impl<K: Resource<DynamicType = ()>> Cache<K> {
    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.read().objects.get(key).cloned()
    }

    /// All objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let from = Key::new(namespace, "");
        inner
            .objects
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// Whether the first list is complete.
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Takes in what a watch told; `None` if it is no news.
    pub fn told(&self, object: K) -> Option<Change<K>> {
        let key = Key::of(&object);
        let mut inner = self.inner.write();
        inner.written.remove(&key);
        if let Some(listed) = &mut inner.listed {
            listed.insert(key.clone());
        }
        inner.put(key, object)
    }

    /// Takes in what a write of ours answered; `None` if it is no news.
    pub fn wrote(&self, object: K) -> Option<Change<K>> {
        let key = Key::of(&object);
        let mut inner = self.inner.write();
        let change = inner.put(key.clone(), object);
        if change.is_some() {
            inner.written.insert(key, Instant::now());
        }
        change
    }

    /// Takes in that an object is gone.
    pub fn gone(&self, key: &Key, uid: Option<&str>) -> Option<Change<K>> {
        let mut inner = self.inner.write();
        inner.removed.remove(key);
        inner.written.remove(key);
        let old = inner.objects.get(key)?;
        if uid.is_some_and(|uid| old.meta().uid.as_deref() != Some(uid)) {
            return None;
        }
        inner.objects.remove(key).map(|old| Change { old: Some(old), new: None })
    }

    /// Takes in that a delete of ours has removed an object, of which a watch may still tell older news.
    pub fn deleted(&self, key: &Key, uid: Option<&str>) -> Option<Change<K>> {
        let change = self.gone(key, uid)?;
        let version = change.old.as_deref().map_or(0, version);
        let mut inner = self.inner.write();
        inner.removed.retain(|_, (_, at)| at.elapsed() < SETTLED);
        inner.removed.insert(key.clone(), (version, Instant::now()));
        Some(change)
    }

    /// A list begins.
    pub fn list_begins(&self) {
        self.inner.write().listed = Some(BTreeSet::new());
    }

    /// A list has ended: what it did not contain is gone.
    pub fn list_ends(&self) -> Vec<Change<K>> {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        inner.written.retain(|_, at| at.elapsed() < SETTLED);
        let listed = inner.listed.take().unwrap_or_default();
        let gone: Vec<_> = inner
            .objects
            .keys()
            .filter(|key| !listed.contains(*key) && !inner.written.contains_key(*key))
            .cloned()
            .collect();
        let changes = gone
            .iter()
            .filter_map(|key| inner.objects.remove(key))
            .map(|old| Change { old: Some(old), new: None })
            .collect();
        self.synced.store(true, Ordering::Release);
        changes
    }
}

impl<K: Resource<DynamicType = ()>> Inner<K> {
    fn put(&mut self, key: Key, mut object: K) -> Option<Change<K>> {
        object.managed_fields_mut().clear();
        let new_version = version(&object);
        if let Some((removed, _)) = self.removed.get(&key) {
            if new_version <= *removed {
                return None;
            }
            self.removed.remove(&key);
        }
        let old = self.objects.get(&key).cloned();
        if old.as_deref().is_some_and(|old| version(old) >= new_version) {
            return None;
        }
        let new = Arc::new(object);
        self.objects.insert(key, Arc::clone(&new));
        Some(Change { old, new: Some(new) })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, version: u64) -> Pod {
        serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": version.to_string()}})).unwrap()
    }

    #[test]
    fn older_news_is_ignored() {
        let cache = Cache::default();
        assert!(cache.wrote(pod("a", 5)).is_some());
        assert!(cache.told(pod("a", 5)).is_none() && cache.told(pod("a", 4)).is_none());
        let change = cache.told(pod("a", 6)).unwrap();
        assert_eq!((version(&*change.old.unwrap()), version(&*change.new.unwrap())), (5, 6));
        let key = Key::new("n", "a");
        assert!(cache.deleted(&key, Some("other")).is_none());
        assert!(cache.deleted(&key, Some("a")).is_some());
        assert!(cache.told(pod("a", 6)).is_none(), "an event from before the delete");
        assert!(cache.told(pod("a", 9)).is_some(), "a new object of that name");
    }

    #[test]
    fn a_relist_removes_what_it_lacks_but_not_what_was_just_written() {
        let cache = Cache::default();
        cache.told(pod("old", 1));
        cache.told(pod("kept", 2));
        assert!(!cache.synced());
        cache.list_begins();
        cache.told(pod("kept", 2));
        cache.wrote(pod("new", 3));
        let gone = cache.list_ends();
        assert_eq!(
            gone.iter().map(|change| change.old.as_ref().unwrap().name_any()).collect::<Vec<_>>(),
            ["old"]
        );
        assert!(cache.synced());
        assert_eq!(cache.in_namespace("n").len(), 2);
        assert_eq!(cache.in_namespace("m").len(), 0);
    }
}
