//! What differs between two snapshots that were published one after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use policies_api::Kind;

/// What sort of thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// A policy object.
    Policy(Kind),
    /// A service: its ports, addresses or selector.
    Service,
    /// Endpoints of a service only.
    Endpoints,
    /// A pod: labels, address, service account.
    Workload,
    /// A namespace's labels.
    Namespace,
    /// A secret that a gateway serves.
    Secret,
    /// The mesh's configuration.
    MeshConfig,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeKey {
    /// What sort.
    pub kind: ChangeKind,
    /// Its namespace, empty when it has none.
    pub namespace: Arc<str>,
    /// Its name; a host name for services and endpoints.
    pub name: Arc<str>,
}

/// Everything that changed since the previous publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The things that changed; empty together with `everything` on the first publication.
    pub keys: BTreeSet<ChangeKey>,
    /// Nothing may be assumed unchanged.
    pub everything: bool,
}

// === impl Change ===

impl Change {
    /// A change of which nothing is known.
    #[must_use]
    pub fn everything() -> Self {
        Self { keys: BTreeSet::new(), everything: true }
    }

    /// Adds a thing.
    pub fn add(&mut self, kind: ChangeKind, namespace: &str, name: &str) {
        self.keys.insert(ChangeKey { kind, namespace: namespace.into(), name: name.into() });
    }

    /// Adds all that `later` holds.
    pub fn merge(&mut self, later: &Self) {
        self.everything |= later.everything;
        self.keys.extend(later.keys.iter().cloned());
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.keys.is_empty()
    }

    /// Whether endpoints are all that changed.
    #[must_use]
    pub fn is_endpoints_only(&self) -> bool {
        !self.everything && self.keys.iter().all(|key| key.kind == ChangeKind::Endpoints)
    }
}
