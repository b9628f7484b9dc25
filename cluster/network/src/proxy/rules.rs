//! Pure: which map elements a service needs on a node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::fabric::NodeNet;
use crate::services::{Endpoint, Protocol, ServiceKind, ServicePort, ServiceView};

/// How a service's connections are spread: over so many buckets, at random or by the client's address.
///
/// Up to eight endpoints each have one bucket, so shares are exact. More endpoints share 64 or 512 buckets, where the shares of two
/// differ by one bucket. Endpoints beyond the largest number get no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Spread {
    Random(u32),
    Sticky,
}

/// Every way to spread there is a chain and a map for.
pub(crate) const SPREADS: [Spread; 11] = [
    Spread::Random(1),
    Spread::Random(2),
    Spread::Random(3),
    Spread::Random(4),
    Spread::Random(5),
    Spread::Random(6),
    Spread::Random(7),
    Spread::Random(8),
    Spread::Random(64),
    Spread::Random(512),
    Spread::Sticky,
];

/// A client stays with its endpoint as long as that one lives: buckets move only from endpoints that go, or to ones that come.
const STICKY_BUCKETS: u32 = 256;

/// What a connection is looked up by: a virtual address, or a port of the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Front {
    Address(Ipv4Addr, Protocol, u16),
    NodePort(Protocol, u16),
}

/// The key of one map element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// In the map of verdicts.
    Dispatch(Front),
    /// In the map of endpoints of that spread.
    Bucket(Spread, Front, u32),
}

/// The value of one map element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// The chain of that spread.
    Goto(Spread),
    /// An endpoint.
    Endpoint(Ipv4Addr, u16),
}

/// What the rules need to know of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    name: String,
    pod_cidr: Ipv4Net,
}

// === impl NodeView ===

impl NodeView {
    pub(crate) fn of(node: &NodeNet) -> Self {
        Self { name: node.name.clone(), pod_cidr: node.pod_cidr }
    }

    fn has(&self, endpoint: &Endpoint) -> bool {
        match &endpoint.node {
            Some(node) => *node == self.name,
            None => self.pod_cidr.contains(&endpoint.ip),
        }
    }
}

// === impl Spread ===

impl Spread {
    fn of(sticky: bool, endpoints: usize) -> Self {
        match endpoints {
            _ if sticky => Self::Sticky,
            0..=8 => Self::Random(endpoints as u32),
            9..=64 => Self::Random(64),
            _ => Self::Random(512),
        }
    }

    pub(crate) fn buckets(self) -> u32 {
        match self {
            Self::Random(buckets) => buckets,
            Self::Sticky => STICKY_BUCKETS,
        }
    }
}

/// The elements of a service on a node; none while it has no endpoint, so that its address is refused like any unknown one.
pub(crate) fn elements(view: &ServiceView, node: &NodeView) -> BTreeMap<Key, Value> {
    let mut elements = BTreeMap::new();
    let service = &view.service;
    let ServiceKind::ClusterIp(address) = service.kind else { return elements };
    for port in &service.ports {
        let backends = view.backends(port);
        let chosen = |local: bool| -> Vec<(Ipv4Addr, u16)> {
            let chosen = backends.iter().filter(|(endpoint, _)| !local || node.has(endpoint));
            chosen.map(|(endpoint, port)| (endpoint.ip, *port)).collect()
        };
        let ServicePort { protocol, port, node_port, .. } = *port;
        let front = Front::Address(address, protocol, port);
        spread(&mut elements, front, service.sticky, &chosen(service.internal_local));
        if let Some(node_port) = node_port {
            let front = Front::NodePort(protocol, node_port);
            spread(&mut elements, front, service.sticky, &chosen(service.external_local));
        }
    }
    elements
}

fn spread(elements: &mut BTreeMap<Key, Value>, front: Front, sticky: bool, endpoints: &[(Ipv4Addr, u16)]) {
    if endpoints.is_empty() {
        return;
    }
    let spread = Spread::of(sticky, endpoints.len());
    elements.insert(Key::Dispatch(front), Value::Goto(spread));
    for bucket in 0..spread.buckets() {
        let (ip, port) = match spread {
            Spread::Random(_) => endpoints[bucket as usize % endpoints.len()],
            Spread::Sticky => preferred(bucket, endpoints),
        };
        elements.insert(Key::Bucket(spread, front, bucket), Value::Endpoint(ip, port));
    }
}

/// Rendezvous hashing: every bucket ranks the endpoints on its own, so that others' coming and going does not concern it.
fn preferred(bucket: u32, endpoints: &[(Ipv4Addr, u16)]) -> (Ipv4Addr, u16) {
    let rank = |&(ip, port): &(Ipv4Addr, u16)| {
        let mut mixed = (u64::from(u32::from(ip)) << 16 | u64::from(port)) ^ (u64::from(bucket) << 48);
        // The finalizer of MurmurHash3: every bit of the input reaches every bit of the rank.
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^ (mixed >> 33)
    };
    endpoints.iter().copied().max_by_key(rank).unwrap_or((Ipv4Addr::UNSPECIFIED, 0))
}

#[cfg(test)]
mod tests;
