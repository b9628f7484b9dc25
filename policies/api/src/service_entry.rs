//! `ServiceEntry` (networking.istio.io): hosts added to the registry by hand.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::gateway::Port;
use crate::matching::{LabelsSelector, StringMap};

/// The spec of a `ServiceEntry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Host names; a wildcard prefix is allowed, a bare `*` is not.
    pub hosts: Vec<String>,
    /// Virtual addresses.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<Port>,
    /// `MESH_EXTERNAL` (default) or `MESH_INTERNAL`.
    pub location: String,
    /// `NONE` (default), `STATIC`, `DNS`, `DNS_ROUND_ROBIN` or `DYNAMIC_DNS`.
    pub resolution: String,
    /// Endpoints by hand.
    pub endpoints: Vec<WorkloadEntry>,
    /// Endpoints by labels.
    pub workload_selector: Option<LabelsSelector>,
    /// Namespaces that see the object; everywhere when empty.
    pub export_to: Vec<String>,
    /// Names that the server's certificate must have.
    pub subject_alt_names: Vec<String>,
}

/// An endpoint written by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// IP address, host name or `unix://` path.
    pub address: String,
    /// Port name to number.
    pub ports: BTreeMap<String, u32>,
    /// Labels of the workload.
    pub labels: StringMap,
    /// Network of the workload.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Weight among the endpoints.
    pub weight: u32,
    /// Service account of the workload.
    pub service_account: String,
}
