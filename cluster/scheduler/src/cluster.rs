//! The nodes with what is placed on them.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::{
    pod::{HostPort, Key, PodInfo},
    resources::Resources,
};

/// What a node offers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Offer {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    pub(crate) pods_max: i64,
}

/// A node, and what its pods take.
#[derive(Debug, Default)]
pub(crate) struct NodeInfo {
    /// `None` for a node that is not there, but whose pods are.
    pub(crate) offer: Option<Offer>,
    pub(crate) used: Resources,
    /// What pods that ask for nothing are assumed to take, included.
    pub(crate) weight: Resources,
    pub(crate) pods: i64,
    pub(crate) ports: Vec<HostPort>,
    /// How many pods of each controller are here.
    pub(crate) groups: HashMap<String, i64>,
}

/// All nodes and pods.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<String, NodeInfo>,
    pods: HashMap<Key, PodInfo>,
}

// === impl Offer ===

impl Offer {
    fn of(node: Node) -> Self {
        let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
        let amounts = status.allocatable.or(status.capacity);
        let pods_max =
            amounts.as_ref().and_then(|amounts| amounts.get("pods")).and_then(|count| count.0.parse().ok());
        Self {
            labels: node.metadata.labels.unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            unschedulable: spec.unschedulable.unwrap_or(false),
            allocatable: Resources::read(amounts.as_ref()),
            pods_max: pods_max.map_or(0, cluster_machinery::Quantity::units),
        }
    }
}

// === impl NodeInfo ===

impl NodeInfo {
    fn place(&mut self, pod: &PodInfo) {
        self.used.add(&pod.requests);
        self.weight.add(&weight(pod));
        self.pods += 1;
        self.ports.extend(pod.ports.iter().cloned());
        if let Some(group) = &pod.group {
            *self.groups.entry(group.clone()).or_default() += 1;
        }
    }

    fn displace(&mut self, pod: &PodInfo) {
        self.used.subtract(&pod.requests);
        self.weight.subtract(&weight(pod));
        self.pods -= 1;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|other| other == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(group) = &pod.group
            && let Some(count) = self.groups.get_mut(group)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(group);
            }
        }
    }
}

/// What a pod counts when nodes are compared: one that asks for nothing takes something all the same.
pub(crate) fn weight(pod: &PodInfo) -> Resources {
    let at_least = |asked: i64, assumed: i64| if asked == 0 { assumed } else { asked };
    Resources {
        milli_cpu: at_least(pod.requests.milli_cpu, 100),
        memory: at_least(pod.requests.memory, 200 << 20),
        ..Resources::default()
    }
}

// === impl Cluster ===

impl Cluster {
    /// The nodes that are there.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &NodeInfo, &Offer)> {
        self.nodes.iter().filter_map(|(name, node)| Some((name.as_str(), node, node.offer.as_ref()?)))
    }

    pub(crate) fn node_names(&self) -> Vec<String> {
        self.nodes().map(|(name, ..)| name.to_owned()).collect()
    }

    pub(crate) fn pod(&self, key: &Key) -> Option<&PodInfo> {
        self.pods.get(key)
    }

    pub(crate) fn pod_keys(&self) -> impl Iterator<Item = &Key> {
        self.pods.keys()
    }

    /// Takes in a node; true if it may now take pods that it did not take before.
    pub(crate) fn set_node(&mut self, node: Node) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let offer = Some(Offer::of(node));
        let known = self.nodes.entry(name).or_default();
        let changed = known.offer != offer;
        known.offer = offer;
        changed
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.offer = None;
            if node.pods == 0 {
                self.nodes.remove(name);
            }
        }
    }

    /// Takes in a pod; true if that made room somewhere. News older than what is known is ignored, and a place that was assumed is kept
    /// until the pod has one.
    pub(crate) fn set_pod(&mut self, mut pod: PodInfo) -> bool {
        let old = self.pods.get(&pod.key);
        if let Some(old) = old {
            if old.uid == pod.uid && old.version > pod.version {
                return false;
            }
            if old.uid == pod.uid && pod.node.is_none() && !pod.finished {
                pod.node.clone_from(&old.node);
                pod.assumed = old.assumed;
                pod.waiting &= pod.node.is_none();
            }
        }
        let freed = self.remove_pod(&pod.key.clone());
        let placed = pod.node.clone().filter(|_| !pod.finished);
        if let Some(node) = &placed {
            self.nodes.entry(node.clone()).or_default().place(&pod);
        }
        self.pods.insert(pod.key.clone(), pod);
        freed && placed.is_none()
    }

    /// Takes in that a pod is gone; true if that made room somewhere.
    pub(crate) fn remove_pod(&mut self, key: &Key) -> bool {
        let Some(pod) = self.pods.remove(key) else { return false };
        let Some(name) = pod.node.as_ref().filter(|_| !pod.finished) else { return false };
        if let Some(node) = self.nodes.get_mut(name) {
            node.displace(&pod);
            if node.pods == 0 && node.offer.is_none() {
                self.nodes.remove(name);
            }
        }
        true
    }

    /// Takes a place for a pod, before the API server agrees.
    pub(crate) fn assume(&mut self, key: &Key, node: &str) {
        if let Some(pod) = self.pods.get_mut(key).filter(|pod| pod.node.is_none()) {
            pod.node = Some(node.to_owned());
            (pod.assumed, pod.waiting) = (true, false);
            let pod = pod.clone();
            self.nodes.entry(node.to_owned()).or_default().place(&pod);
        }
    }

    /// Gives an assumed place back; the pod waits again.
    pub(crate) fn give_back(&mut self, key: &Key, uid: &str) {
        if let Some(mut pod) = self.pods.get(key).filter(|pod| pod.uid == uid && pod.assumed).cloned() {
            self.remove_pod(key);
            pod.node = None;
            (pod.assumed, pod.waiting) = (false, true);
            self.pods.insert(key.clone(), pod);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn node(name: &str, patch: Value) -> Node {
        let mut node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}}});
        cluster_machinery::patch::merge(&mut node, &patch).unwrap();
        serde_json::from_value(node).unwrap()
    }

    pub(crate) fn pod(name: &str, patch: Value) -> PodInfo {
        let mut pod = json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": "1"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
        cluster_machinery::patch::merge(&mut pod, &patch).unwrap();
        PodInfo::of(serde_json::from_value(pod).unwrap())
    }

    fn used(cluster: &Cluster, name: &str) -> (i64, i64) {
        cluster.nodes.get(name).map_or((0, 0), |node| (node.used.milli_cpu, node.pods))
    }

    #[test]
    fn places_are_counted_once() {
        let mut cluster = Cluster::default();
        assert!(cluster.set_node(node("a", json!({}))));
        assert!(
            !cluster.set_node(node("a", json!({"status": {"conditions": []}}))),
            "a heartbeat is no news"
        );
        let waiting = pod("p", json!({}));
        let key = waiting.key.clone();
        assert!(waiting.waiting);
        cluster.set_pod(waiting.clone());
        cluster.assume(&key, "a");
        assert_eq!(used(&cluster, "a"), (500, 1));
        cluster.set_pod(PodInfo { version: 2, ..waiting.clone() });
        assert_eq!(used(&cluster, "a"), (500, 1), "an assumed place is kept");
        assert!(!cluster.pod(&key).unwrap().waiting);
        let bound = pod("p", json!({"metadata": {"resourceVersion": "3"}, "spec": {"nodeName": "a"}}));
        cluster.set_pod(bound.clone());
        cluster.set_pod(waiting);
        assert_eq!(used(&cluster, "a"), (500, 1), "old news is ignored");
        let done = pod(
            "p",
            json!({"metadata": {"resourceVersion": "4"}, "spec": {"nodeName": "a"}, "status": {"phase": "Succeeded"}}),
        );
        assert!(cluster.set_pod(done));
        assert_eq!(used(&cluster, "a"), (0, 0));
        assert!(!cluster.remove_pod(&key));
        cluster.set_pod(bound);
        cluster.remove_node("a");
        assert_eq!(
            (cluster.node_names().len(), used(&cluster, "a")),
            (0, (500, 1)),
            "its pods are still there"
        );
        assert!(cluster.remove_pod(&key));
        assert!(cluster.nodes.is_empty());
    }

    #[test]
    fn a_place_can_be_given_back() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("a", json!({})));
        let waiting = pod("p", json!({}));
        let key = waiting.key.clone();
        cluster.set_pod(waiting);
        cluster.assume(&key, "a");
        cluster.give_back(&key, "another");
        assert_eq!(used(&cluster, "a"), (500, 1));
        cluster.give_back(&key, "p");
        assert_eq!(used(&cluster, "a"), (0, 0));
        assert!(cluster.pod(&key).unwrap().waiting);
        cluster.assume(&key, "a");
        cluster.set_pod(pod("p", json!({"metadata": {"resourceVersion": "2"}, "spec": {"nodeName": "b"}})));
        cluster.give_back(&key, "p");
        assert_eq!(
            (used(&cluster, "a"), used(&cluster, "b")),
            ((0, 0), (500, 1)),
            "what the API server says stands"
        );
    }
}
