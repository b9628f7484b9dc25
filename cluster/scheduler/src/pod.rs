//! What the scheduler keeps of a pod.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, Toleration};

use crate::{
    affinity::NodeAffinity,
    resources::{self, Resources},
};

/// Where a pod is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A port on the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    pub(crate) protocol: String,
    pub(crate) address: String,
    pub(crate) port: i32,
}

/// A pod, as far as placing it goes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodInfo {
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) version: u64,
    /// Its node, once it has one.
    pub(crate) node: Option<String>,
    /// Whether `node` is our choice, which the API server has not told back yet.
    pub(crate) assumed: bool,
    /// Whether it waits to be placed by us.
    pub(crate) waiting: bool,
    /// Whether it has ended, and takes no room.
    pub(crate) finished: bool,
    pub(crate) priority: i32,
    pub(crate) created: Option<Timestamp>,
    pub(crate) requests: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) affinity: NodeAffinity,
    pub(crate) tolerations: Vec<Toleration>,
    /// The controller, whose pods are spread.
    pub(crate) group: Option<String>,
    pub(crate) conditions: Vec<PodCondition>,
}

// === impl Key ===

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl HostPort ===

impl HostPort {
    /// Whether both cannot be had at once.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        let any = |address: &str| address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || any(&self.address) || any(&other.address))
    }
}

// === impl PodInfo ===

impl PodInfo {
    pub(crate) fn of(pod: Pod) -> Self {
        let (meta, spec, status) =
            (pod.metadata, pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let node = spec.node_name.clone().filter(|node| !node.is_empty());
        let finished = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler");
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let group = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Self {
            key: Key { namespace: meta.namespace.unwrap_or_default(), name: meta.name.unwrap_or_default() },
            uid: meta.uid.unwrap_or_default(),
            version: meta.resource_version.and_then(|version| version.parse().ok()).unwrap_or(0),
            waiting: node.is_none() && ours && !gated && !finished && meta.deletion_timestamp.is_none(),
            node,
            assumed: false,
            finished,
            priority: spec.priority.unwrap_or(0),
            created: meta.creation_timestamp.map(|time| time.0),
            requests: resources::of_pod(&spec),
            ports: spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
                .flat_map(|container| container.ports.iter().flatten())
                .filter_map(|port| {
                    let number = port.host_port.filter(|port| *port > 0)?;
                    Some(HostPort {
                        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                        address: port
                            .host_ip
                            .clone()
                            .filter(|ip| !ip.is_empty())
                            .unwrap_or_else(|| "0.0.0.0".to_owned()),
                        port: number,
                    })
                })
                .collect(),
            affinity: NodeAffinity::of(&spec),
            tolerations: spec.tolerations.unwrap_or_default(),
            group: group.map(|owner| owner.uid.clone()),
            conditions: status.conditions.unwrap_or_default(),
        }
    }
}
