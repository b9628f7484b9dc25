//! The parts of Service and EndpointSlice that routing and DNS look at.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use super::{ServiceKey, ServiceView};

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Transport protocols a service can have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// What a service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceKind {
    /// One virtual address, translated on every node.
    ClusterIp(Ipv4Addr),
    /// Its endpoints themselves.
    Headless,
    /// Another name.
    ExternalName(String),
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) kind: ServiceKind,
    pub(crate) ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP`.
    pub(crate) sticky: bool,
    /// `internalTrafficPolicy: Local`.
    pub(crate) internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub(crate) external_local: bool,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// An address behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ip: Ipv4Addr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) node: Option<String>,
    pub(crate) hostname: Option<String>,
}

/// One EndpointSlice: endpoints that share their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointGroup {
    pub(crate) endpoints: Vec<Endpoint>,
    /// Name, protocol and number.
    pub(crate) ports: Vec<(String, Protocol, u16)>,
}

// === impl Protocol ===

impl Protocol {
    /// TCP unless said otherwise; `None` for what this cluster does not carry.
    fn parse(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }

    /// As nftables and DNS write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

// === impl Service ===

impl Service {
    /// Reads a Service; `None` while it has no address yet.
    pub(crate) fn read(service: &core::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let kind = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
            (Some("ExternalName"), _) => ServiceKind::ExternalName(spec.external_name.clone()?),
            (_, Some("None")) => ServiceKind::Headless,
            (_, ip) => ServiceKind::ClusterIp(ip?.parse().ok()?),
        };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: port.port.try_into().ok()?,
                node_port: port.node_port.and_then(|port| port.try_into().ok()).filter(|port| *port != 0),
            })
        });
        Some(Self {
            kind,
            ports: ports.collect(),
            sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        })
    }
}

// === impl EndpointGroup ===

impl EndpointGroup {
    /// Reads an EndpointSlice and which service it belongs to; `None` when it belongs to none or is not of IPv4.
    pub(crate) fn read(slice: &discovery::EndpointSlice) -> Option<(ServiceKey, Self)> {
        let owner = ServiceKey {
            namespace: slice.metadata.namespace.clone()?,
            name: slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone(),
        };
        if slice.address_type != "IPv4" {
            return None;
        }
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            Some(Endpoint {
                ip: endpoint.addresses.first()?.parse().ok()?,
                ready,
                serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
                terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
                node: endpoint.node_name.clone(),
                hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
            })
        });
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            Some((port.name.clone().unwrap_or_default(), protocol, port.port?.try_into().ok()?))
        });
        Some((owner, Self { endpoints: endpoints.collect(), ports: ports.collect() }))
    }
}

// === impl ServiceView ===

impl ServiceView {
    /// The endpoints that take traffic for `port`, each with its own port, in a stable order. The ready ones; while there is none,
    /// those that still serve although they are going away.
    pub(crate) fn backends(&self, port: &ServicePort) -> Vec<(&Endpoint, u16)> {
        let all = || {
            self.groups.iter().flat_map(|group| {
                let target = group
                    .ports
                    .iter()
                    .find(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)
                    .map(|(_, _, number)| *number);
                group.endpoints.iter().filter_map(move |endpoint| Some((endpoint, target?)))
            })
        };
        let mut chosen: Vec<_> = all().filter(|(endpoint, _)| endpoint.ready).collect();
        if chosen.is_empty() {
            chosen = all().filter(|(endpoint, _)| endpoint.serving && endpoint.terminating).collect();
        }
        chosen.sort_by_key(|(endpoint, port)| (endpoint.ip, *port));
        chosen.dedup_by_key(|(endpoint, port)| (endpoint.ip, *port));
        chosen
    }
}
