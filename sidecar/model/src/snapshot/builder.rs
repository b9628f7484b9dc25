//! Making the next snapshot out of the last one and of what the control plane sent.

use super::{Resources, Snapshot};
use crate::cluster::Cluster;
use crate::endpoint::Endpoints;
use crate::invalid::Invalid;
use crate::listener::Listener;
use crate::resource::ResourceType;
use crate::route::RouteConfig;
use crate::secret::Secret;
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

    /// Decodes, checks and puts in the resource of this type, an encoded xDS message. When it is refused, what was
    /// there under its name stays.
    pub fn upsert(&mut self, kind: ResourceType, name: &str, message: &[u8]) -> Result<(), Rejected> {
        self.decode_and_put(kind, name, message).map_err(|reason| Rejected {
            kind,
            name: name.into(),
            reason,
        })
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

    fn decode_and_put(&mut self, kind: ResourceType, name: &str, message: &[u8]) -> Result<(), Invalid> {
        let next = &mut self.next;
        self.changed |= match kind {
            ResourceType::Cluster => put(&mut next.clusters, name, Cluster::decode(message)?, |c| &c.name)?,
            ResourceType::Endpoints => {
                put(&mut next.endpoints, name, Endpoints::decode(message)?, |e| &e.name)?
            }
            ResourceType::Listener => {
                put(&mut next.listeners, name, Listener::decode(message)?, |l| &l.name)?
            }
            ResourceType::Route => put(&mut next.routes, name, RouteConfig::decode(message)?, |r| &r.name)?,
            ResourceType::Secret => put(&mut next.secrets, name, Secret::decode(message)?, |s| &s.name)?,
        };
        Ok(())
    }
}

/// Puts `value` under its name; true when that changes anything.
fn put<T: Clone + PartialEq>(
    all: &mut Resources<T>,
    name: &str,
    value: T,
    name_of: impl Fn(&T) -> &Arc<str>,
) -> Result<bool, Invalid> {
    let own = name_of(&value);
    if !name.is_empty() && **own != *name {
        return Err(Invalid::new("name", format!("is `{own}`, but the resource was sent as `{name}`")));
    }
    if all.get(own).is_some_and(|old| **old == value) {
        return Ok(false);
    }
    let own = own.clone();
    Arc::make_mut(all).insert(own, Arc::new(value));
    Ok(true)
}

fn take<T: Clone>(all: &mut Resources<T>, name: &str) -> bool {
    all.contains_key(name) && Arc::make_mut(all).remove(name).is_some()
}

#[cfg(test)]
mod tests;
