//! All configuration of a sidecar at one moment: immutable, shared, cheap to replace in part.

pub mod builder;
mod references;

pub use builder::{Rejected, SnapshotBuilder};

use crate::cluster::Cluster;
use crate::endpoint::Endpoints;
use crate::listener::Listener;
use crate::resource::ResourceType;
use crate::route::RouteConfig;
use crate::secret::Secret;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Resources of one type by name.
pub type Resources<T> = Arc<HashMap<Arc<str>, Arc<T>>>;

/// All configuration at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Counts the changes since the process began.
    pub version: u64,
    /// Listeners.
    pub listeners: Resources<Listener>,
    /// Route configurations.
    pub routes: Resources<RouteConfig>,
    /// Clusters.
    pub clusters: Resources<Cluster>,
    /// Endpoints by the name that clusters refer to.
    pub endpoints: Resources<Endpoints>,
    /// Secrets that come from the control plane.
    pub secrets: Resources<Secret>,
}

/// Names that a snapshot refers to, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Endpoints resources of clusters.
    pub endpoints: BTreeSet<Arc<str>>,
    /// Route configurations of listeners.
    pub routes: BTreeSet<Arc<str>>,
    /// Secrets of listeners and clusters, without those that are answered inside the sidecar.
    pub secrets: BTreeSet<Arc<str>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The endpoints of `cluster`: from its endpoints resource, or those it carries.
    pub fn endpoints_of<'a>(&'a self, cluster: &'a Cluster) -> Option<&'a Arc<Endpoints>> {
        match cluster.eds_name() {
            Some(name) => self.endpoints.get(name),
            None => cluster.load_assignment.as_ref(),
        }
    }

    /// The names this snapshot refers to, whether they are there or not.
    pub fn references(&self) -> References {
        references::of(self)
    }

    /// References that nothing answers yet.
    pub fn missing(&self) -> References {
        let mut missing = self.references();
        missing.endpoints.retain(|name| !self.endpoints.contains_key(name));
        missing.routes.retain(|name| !self.routes.contains_key(name));
        missing.secrets.retain(|name| !self.secrets.contains_key(name));
        missing
    }

    /// Number of resources of a type.
    pub fn count(&self, kind: ResourceType) -> usize {
        match kind {
            ResourceType::Cluster => self.clusters.len(),
            ResourceType::Endpoints => self.endpoints.len(),
            ResourceType::Listener => self.listeners.len(),
            ResourceType::Route => self.routes.len(),
            ResourceType::Secret => self.secrets.len(),
        }
    }
}

// === impl References ===

impl References {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.routes.is_empty() && self.secrets.is_empty()
    }
}
