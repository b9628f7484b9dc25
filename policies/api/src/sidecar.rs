//! `Sidecar` (networking.istio.io): what part of the mesh a sidecar gets.

use serde::Deserialize;

use crate::destination_rule::ConnectionPool;
use crate::gateway::{Port, ServerTls};
use crate::matching::LabelsSelector;
use crate::virtual_service::Destination;

/// The spec of a `Sidecar`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sidecar {
    /// Pods of the namespace it is for; all when absent.
    pub workload_selector: Option<LabelsSelector>,
    /// Inbound listeners.
    pub ingress: Vec<Ingress>,
    /// Hosts that can be reached.
    pub egress: Vec<Egress>,
    /// Limits of inbound connections.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens to unknown destinations.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// An inbound listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ingress {
    /// The port.
    pub port: Port,
    /// Address to bind to.
    pub bind: String,
    /// `DEFAULT`, `IPTABLES` or `NONE`.
    pub capture_mode: String,
    /// Where the connection goes.
    pub default_endpoint: String,
    /// TLS of the listener.
    pub tls: Option<ServerTls>,
    /// Limits of the port.
    pub connection_pool: Option<ConnectionPool>,
}

/// Hosts behind one outbound listener, or behind all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Egress {
    /// The port; all ports when absent.
    pub port: Option<Port>,
    /// Address to bind to.
    pub bind: String,
    /// `DEFAULT`, `IPTABLES` or `NONE`.
    pub capture_mode: String,
    /// `namespace/host`, with `.`, `*` and `~` for the namespace.
    pub hosts: Vec<String>,
}

/// `outboundTrafficPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutboundTrafficPolicy {
    /// `ALLOW_ANY` or `REGISTRY_ONLY`.
    pub mode: String,
    /// Proxy for unknown destinations.
    pub egress_proxy: Option<Destination>,
}
