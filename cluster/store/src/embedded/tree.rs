//! The key space in memory: the newest value of each key, what it was before, and the changes in order.
//!
//! Pure data: the writer changes it, readers read it, nobody here knows of files.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    error::StoreError,
    model::{Event, EventKind, KeyValue, Page},
};

/// A durable change, ready to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) key: Arc<str>,
    /// `None` deletes.
    pub(super) value: Option<Bytes>,
}

#[derive(Debug, Clone)]
struct Version {
    create_revision: u64,
    mod_revision: u64,
    /// `None` for a deleted key.
    value: Option<Bytes>,
}

#[derive(Debug)]
struct Versions {
    /// What `newest` replaced, oldest first, as far as history reaches.
    older: Vec<Version>,
    newest: Version,
}

/// All keys with their history.
#[derive(Debug, Default)]
pub(super) struct Tree {
    keys: BTreeMap<Arc<str>, Versions>,
    changes: VecDeque<Event>,
    changes_bytes: usize,
    live: usize,
    live_bytes: u64,
    revision: u64,
    compacted: u64,
}

// === impl Version ===

impl Version {
    fn pair(&self, key: &Arc<str>) -> Option<KeyValue> {
        let value = self.value.clone()?;
        Some(KeyValue {
            key: Arc::clone(key),
            value,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        })
    }
}

// === impl Versions ===

impl Versions {
    fn at(&self, revision: u64) -> Option<&Version> {
        if self.newest.mod_revision <= revision {
            return Some(&self.newest);
        }
        self.older.iter().rev().find(|version| version.mod_revision <= revision)
    }
}

// === impl Tree ===

impl Tree {
    /// A tree that begins with a checkpoint: no history before `revision`.
    pub(super) fn from_checkpoint(revision: u64, pairs: impl IntoIterator<Item = KeyValue>) -> Self {
        let mut tree = Self { revision, compacted: revision, ..Self::default() };
        for kv in pairs {
            tree.live += 1;
            tree.live_bytes += entry_bytes(&kv);
            let newest = Version {
                create_revision: kv.create_revision,
                mod_revision: kv.mod_revision,
                value: Some(kv.value),
            };
            tree.keys.insert(kv.key, Versions { older: Vec::new(), newest });
        }
        tree
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// How many keys exist.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// How many bytes their keys and values have.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// How many changes are kept.
    pub(super) fn history(&self) -> usize {
        self.changes.len()
    }

    /// How many bytes their values have.
    pub(super) fn history_bytes(&self) -> usize {
        self.changes_bytes
    }

    /// The revision of the change in the middle of the history.
    pub(super) fn middle_of_history(&self) -> Option<u64> {
        self.changes.get(self.changes.len() / 2).map(|event| event.kv.mod_revision)
    }

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        let (key, versions) = self.keys.get_key_value(key)?;
        versions.newest.pair(key)
    }

    /// All pairs, for a checkpoint.
    pub(super) fn pairs(&self) -> Vec<KeyValue> {
        self.keys.iter().filter_map(|(key, versions)| versions.newest.pair(key)).collect()
    }

    pub(super) fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at_revision: Option<u64>,
    ) -> Result<Page, StoreError> {
        let revision = at_revision.unwrap_or(self.revision);
        self.check(revision)?;
        let start = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        let mut found = self
            .keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, versions)| {
                versions.at(revision).filter(|v| v.value.is_some()).map(|v| (key, v))
            });
        let wanted = if limit == 0 { usize::MAX } else { limit };
        let items: Vec<_> =
            found.by_ref().take(wanted).filter_map(|(key, version)| version.pair(key)).collect();
        let remaining = found.count() as u64;
        Ok(Page { items, revision, remaining, more: remaining > 0 })
    }

    /// The changes after `after` to keys with a prefix.
    pub(super) fn changes(&self, prefix: &str, after: u64) -> Result<VecDeque<Event>, StoreError> {
        self.check(after)?;
        let first = self.changes.partition_point(|event| event.kv.mod_revision <= after);
        Ok(self.changes.range(first..).filter(|event| event.kv.key.starts_with(prefix)).cloned().collect())
    }

    fn check(&self, revision: u64) -> Result<(), StoreError> {
        if revision < self.compacted {
            return Err(StoreError::Compacted { oldest: self.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::Future { requested: revision, current: self.revision });
        }
        Ok(())
    }

    /// Applies a change, which must be the next one. A delete of an absent key changes nothing but the revision.
    pub(super) fn apply(&mut self, change: Change) -> Option<Event> {
        let Change { revision, key, value } = change;
        debug_assert_eq!(revision, self.revision + 1, "changes are applied in order");
        self.revision = revision;
        let previous = self.get(&key);
        let event = match (value, &previous) {
            (None, None) => return None,
            (None, Some(kv)) => {
                self.live -= 1;
                self.live_bytes -= entry_bytes(kv);
                Event {
                    kind: EventKind::Delete,
                    kv: KeyValue { mod_revision: revision, ..kv.clone() },
                    previous,
                }
            }
            (Some(value), _) => {
                if let Some(kv) = &previous {
                    self.live_bytes -= entry_bytes(kv);
                } else {
                    self.live += 1;
                }
                let create_revision = previous.as_ref().map_or(revision, |kv| kv.create_revision);
                // One allocation a key: every version shares the first one's.
                let key = previous.as_ref().map_or(key, |kv| Arc::clone(&kv.key));
                let kv = KeyValue { key, value, create_revision, mod_revision: revision };
                self.live_bytes += entry_bytes(&kv);
                Event { kind: EventKind::Put, kv, previous }
            }
        };
        self.remember(&event);
        Some(event)
    }

    fn remember(&mut self, event: &Event) {
        let kv = &event.kv;
        let newest = Version {
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            value: (event.kind == EventKind::Put).then(|| kv.value.clone()),
        };
        match self.keys.get_mut(&kv.key) {
            Some(versions) => {
                let old = std::mem::replace(&mut versions.newest, newest);
                versions.older.push(old);
            }
            None => {
                self.keys.insert(Arc::clone(&kv.key), Versions { older: Vec::new(), newest });
            }
        }
        self.changes_bytes += event_bytes(event);
        self.changes.push_back(event.clone());
    }

    /// Forgets at most `count` changes at or before `revision`; true when there is nothing more to forget.
    pub(super) fn compact(&mut self, revision: u64, count: usize) -> bool {
        let revision = revision.min(self.revision);
        for _ in 0..count {
            match self.changes.front() {
                Some(event) if event.kv.mod_revision <= revision => {}
                _ => {
                    self.compacted = self.compacted.max(revision);
                    if self.changes.capacity() > 1024 && self.changes.len() < self.changes.capacity() / 4 {
                        self.changes.shrink_to(self.changes.len() * 2);
                    }
                    return true;
                }
            }
            let Some(event) = self.changes.pop_front() else { break };
            self.changes_bytes -= event_bytes(&event);
            self.compacted = self.compacted.max(event.kv.mod_revision);
            self.forget(&event.kv);
        }
        false
    }

    /// Drops what the change at `kv.mod_revision` replaced, and the key itself if that change deleted it.
    fn forget(&mut self, kv: &KeyValue) {
        let Some(versions) = self.keys.get_mut(&kv.key) else { return };
        let obsolete = versions.older.partition_point(|version| version.mod_revision < kv.mod_revision);
        versions.older.drain(..obsolete);
        if versions
            .older
            .first()
            .is_some_and(|version| version.value.is_none() && version.mod_revision == kv.mod_revision)
        {
            versions.older.remove(0);
        }
        if versions.older.is_empty() {
            versions.older = Vec::new();
            if versions.newest.value.is_none() && versions.newest.mod_revision == kv.mod_revision {
                self.keys.remove(&kv.key);
            }
        }
    }
}

fn entry_bytes(kv: &KeyValue) -> u64 {
    (kv.key.len() + kv.value.len()) as u64
}

/// What an event keeps alive beyond the live data; puts count their new value, which is the next change's previous one.
fn event_bytes(event: &Event) -> usize {
    size_of::<Event>() + event.kv.value.len()
}
