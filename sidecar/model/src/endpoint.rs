//! Endpoints of a cluster, by locality and priority.

pub(crate) mod proto;

use crate::address::Address;
use crate::metadata::Metadata;
use serde::Serialize;
use std::sync::Arc;

/// What the control plane knows of an endpoint's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// Nothing: taken as healthy.
    #[default]
    Unknown,
    /// It serves.
    Healthy,
    /// It does not.
    Unhealthy,
    /// It finishes what it has; nothing new.
    Draining,
    /// It timed out: does not serve.
    Timeout,
    /// It serves, if nobody else does.
    Degraded,
}

/// Where an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Locality {
    /// Region; empty: not known.
    pub region: Box<str>,
    /// Zone; empty: not known.
    pub zone: Box<str>,
    /// Sub-zone; empty: not known.
    pub sub_zone: Box<str>,
}

/// One place that serves.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// Its share among the endpoints of its locality; at least 1.
    pub weight: u32,
    /// Its health.
    pub health: Health,
    /// Its host name, for automatic host rewriting; empty: none.
    pub hostname: Box<str>,
    /// Metadata: `istio.workload`, `envoy.transport_socket_match.tlsMode`, subset labels under `envoy.lb`.
    pub metadata: Metadata,
}

/// Endpoints in one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityEndpoints {
    /// Where.
    pub locality: Locality,
    /// 0 is used first.
    pub priority: u32,
    /// Its share among the localities of its priority; `None`: not weighted.
    pub weight: Option<u32>,
    /// The endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// All endpoints of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Name of the resource: the cluster's service name.
    pub name: Arc<str>,
    /// Endpoints by place.
    pub localities: Vec<LocalityEndpoints>,
    /// Shares of requests to drop, each with its category.
    pub drop_overloads: Vec<(Box<str>, crate::matcher::Fraction)>,
    /// Percentage by which a priority's health may be low before the next one helps; `None`: the cluster's.
    pub overprovisioning_percent: Option<u32>,
    /// Localities are chosen by weight in proportion to their health.
    pub weighted_priority_health: bool,
}

// === impl Health ===

impl Health {
    /// Whether new requests may go there.
    pub fn is_available(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy | Self::Degraded)
    }
}

// === impl Endpoints ===

impl Endpoints {
    /// All endpoints, whatever their place or health.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.localities.iter().flat_map(|locality| &locality.endpoints)
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.localities.iter().map(|locality| locality.endpoints.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Name, namespace, canonical name, canonical revision and cluster of the workload, as Istio writes them.
    pub fn workload(&self) -> Option<[&str; 5]> {
        let mut parts = self.metadata.text("istio", "workload")?.split(';');
        Some(std::array::from_fn(|_| parts.next().unwrap_or_default()))
    }
}
