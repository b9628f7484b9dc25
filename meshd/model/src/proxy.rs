//! The identity of a connected proxy, as far as its configuration depends on it.

use std::net::IpAddr;
use std::sync::Arc;

use policies_api::matching::StringMap;

/// What a proxy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyKind {
    /// Beside an application in its pod.
    #[default]
    Sidecar,
    /// A gateway.
    Router,
}

/// Where something runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone in the region.
    pub zone: Arc<str>,
    /// Subzone in the zone.
    pub subzone: Arc<str>,
}

/// A proxy, and everything about it that its configuration depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyKey {
    /// `<pod>.<namespace>`, as in the third part of the node id.
    pub id: Arc<str>,
    /// What it is.
    pub kind: ProxyKind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its pod.
    pub pod: Arc<str>,
    /// Addresses of its pod.
    pub ips: Vec<IpAddr>,
    /// Labels of its pod.
    pub labels: Arc<StringMap>,
    /// Service account it runs as.
    pub service_account: Arc<str>,
    /// Node it runs on.
    pub node: Arc<str>,
    /// Where it runs.
    pub locality: Locality,
    /// Kubernetes cluster it runs in.
    pub cluster_id: Arc<str>,
}

// === impl Locality ===

impl Locality {
    /// Parses `region/zone/subzone`; missing parts are empty.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let mut next = || Arc::from(parts.next().unwrap_or_default());
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }
}
