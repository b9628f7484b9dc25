//! Making the next snapshot out of the last one and of what the control plane sent.

use super::{Resources, Snapshot};
use crate::invalid::Invalid;
use crate::resource::ResourceType;
use std::sync::Arc;

/// A resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} resource `{name}`: {reason}")]
pub struct Rejected {
    /// Its type.
    pub kind: ResourceType,
    /// Its name.
    pub name: Arc<str>,
    /// Why.
    pub reason: Invalid,
}

/// The next snapshot in the making.
#[derive(Debug)]
pub struct SnapshotBuilder {
    next: Snapshot,
    changed: bool,
}

// === impl SnapshotBuilder ===

impl SnapshotBuilder {
    /// Begins with all of `base`.
    pub fn new(base: &Snapshot) -> Self {
        Self { next: base.clone(), changed: false }
    }

    /// Takes out a resource; nothing happens when it is not there.
    pub fn remove(&mut self, kind: ResourceType, name: &str) {
        let next = &mut self.next;
        self.changed |= match kind {
            ResourceType::Cluster => take(&mut next.clusters, name),
            ResourceType::Endpoints => take(&mut next.endpoints, name),
            ResourceType::Listener => take(&mut next.listeners, name),
            ResourceType::Route => take(&mut next.routes, name),
            ResourceType::Secret => take(&mut next.secrets, name),
        };
    }

    /// Whether anything differs from the base.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The snapshot as it stands now.
    pub fn peek(&self) -> &Snapshot {
        &self.next
    }

    /// The new snapshot, its version one higher than that of the base if anything changed.
    pub fn build(mut self) -> Arc<Snapshot> {
        if self.changed {
            self.next.version += 1;
        }
        Arc::new(self.next)
    }
}

fn take<T: Clone>(all: &mut Resources<T>, name: &str) -> bool {
    all.contains_key(name) && Arc::make_mut(all).remove(name).is_some()
}
