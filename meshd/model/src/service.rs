//! Services, their endpoints, and the workloads behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policies_api::matching::StringMap;

use crate::protocol::Protocol;
use crate::proxy::Locality;

/// A host of the registry. Hosts are unique per namespace, not over all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Full host name.
    pub host: Arc<str>,
    /// Namespace of the object that defines it.
    pub namespace: Arc<str>,
}

/// A name with ports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Full host name.
    pub host: Arc<str>,
    /// Namespace of the object that defines it.
    pub namespace: Arc<str>,
    /// Name of that object.
    pub name: Arc<str>,
    /// Seconds since 1970 of that object's creation.
    pub created: i64,
    /// Virtual addresses, single ones and networks (`10.0.0.0/8`) as text.
    pub addresses: Vec<ipnet::IpNet>,
    /// Ports in the order of the object.
    pub ports: Vec<ServicePort>,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Outside the mesh: never mutual TLS by itself.
    pub external: bool,
    /// From a `ServiceEntry`, not from a Kubernetes Service.
    pub from_entry: bool,
    /// Labels that its pods carry; none when empty.
    pub selector: Arc<StringMap>,
    /// Namespaces that see it; everywhere when empty.
    pub export_to: Vec<String>,
    /// Names that the servers' certificates must have.
    pub subject_alt_names: Vec<String>,
    /// Namespaces whose virtual services may take the host for all clients; `*` is any.
    pub route_grants: Vec<String>,
    /// Whether endpoints that are not ready count as well.
    pub publish_not_ready: bool,
    /// Target of a Kubernetes `ExternalName` service.
    pub external_name: Option<Arc<str>>,
}

/// How a client finds the endpoints of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// From the registry, balanced by the client's sidecar.
    #[default]
    Static,
    /// Wherever the connection was going: headless services, `NONE`.
    Passthrough,
    /// By DNS, all addresses used.
    Dns,
    /// By DNS, one address at a time.
    DnsRoundRobin,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty when it has none.
    pub name: Arc<str>,
    /// Number that clients use.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Port of the pod.
    pub target: TargetPort,
}

/// A port of a pod, by number or by the name the container gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By name.
    Name(Arc<str>),
}

/// An address and port that serves a service port.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: EndpointAddress,
    /// Port to connect to.
    pub port: u16,
    /// Number of the service's port it serves.
    pub service_port: u16,
    /// The workload behind it.
    pub workload: Arc<Workload>,
    /// Whether it takes requests.
    pub health: Health,
    /// Relative weight, 1 unless a `ServiceEntry` says otherwise.
    pub weight: u32,
}

/// An IP address, or a name that the client resolves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddress {
    /// An address.
    Ip(IpAddr),
    /// A host name.
    Name(Arc<str>),
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// It does.
    #[default]
    Ready,
    /// Not yet, or not any more.
    NotReady,
    /// It still serves what it has and is going away.
    Draining,
}

/// Something that runs: a pod, or an entry written by hand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Name of what controls it: deployment, daemon set, …
    pub workload_name: Arc<str>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its labels.
    pub labels: Arc<StringMap>,
    /// Service account it runs as.
    pub service_account: Arc<str>,
    /// Node it runs on.
    pub node: Arc<str>,
    /// Where it runs.
    pub locality: Locality,
    /// It accepts mutual TLS (`security.istio.io/tlsMode: istio`).
    pub mutual_tls: bool,
    /// Named ports of its containers.
    pub named_ports: BTreeMap<Arc<str>, u16>,
    /// When its deletion was asked to be complete, as the pod says it; none while it is to stay.
    pub leaving: Option<Arc<str>>,
}

// === impl Service ===

impl Service {
    /// Its key in the endpoints' map.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey { host: Arc::clone(&self.host), namespace: Arc::clone(&self.namespace) }
    }

    /// Its port by number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }

    /// A Kubernetes service without a virtual address.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        !self.from_entry && self.resolution == Resolution::Passthrough
    }
}

// === impl ServicePort ===

impl ServicePort {
    /// The pod's port behind this one, if the pod has it.
    #[must_use]
    pub fn target_of(&self, workload: &Workload) -> Option<u16> {
        match &self.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => workload.named_ports.get(name).copied(),
        }
    }
}

// === impl Workload ===

impl Workload {
    /// Name under which metrics show it.
    #[must_use]
    pub fn canonical_name(&self) -> &str {
        use policies_api::names::labels::{APP_NAME, CANONICAL_NAME};
        let by_label = [CANONICAL_NAME, APP_NAME, "app"].into_iter().find_map(|key| self.labels.get(key));
        by_label.map_or(&*self.workload_name, String::as_str)
    }

    /// Version under which metrics show it.
    #[must_use]
    pub fn canonical_revision(&self) -> &str {
        use policies_api::names::labels::{APP_VERSION, CANONICAL_REVISION};
        [CANONICAL_REVISION, APP_VERSION, "version"]
            .into_iter()
            .find_map(|key| self.labels.get(key))
            .map_or("latest", String::as_str)
    }
}
