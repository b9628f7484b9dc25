//! Which nodes a pod can run on, and why not on the others.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::{
    cluster::{Cluster, NodeInfo, Offer},
    pod::PodInfo,
};

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a pod cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// In the words of Kubernetes: `0/2 nodes are available: 2 Insufficient cpu.`
    pub(crate) message: String,
}

/// The names of the nodes a pod can run on.
pub(crate) fn feasible<'a>(cluster: &'a Cluster, pod: &PodInfo) -> Result<Vec<&'a str>, Unfit> {
    let (mut fit, mut count) = (Vec::new(), 0);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (name, node, offer) in cluster.nodes() {
        count += 1;
        let problems = problems(name, node, offer, pod);
        if problems.is_empty() {
            fit.push(name);
        }
        for problem in problems {
            *reasons.entry(problem).or_default() += 1;
        }
    }
    if !fit.is_empty() {
        return Ok(fit);
    }
    if count == 0 {
        return Err(Unfit { message: "no nodes available to schedule pods".to_owned() });
    }
    let mut reasons: Vec<_> =
        reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    Err(Unfit { message: format!("0/{count} nodes are available: {}.", reasons.join(", ")) })
}

/// The problems of the first filter that has any, as Kubernetes runs them.
fn problems(name: &str, node: &NodeInfo, offer: &Offer, pod: &PodInfo) -> Vec<String> {
    if offer.unschedulable && !tolerates_unschedulable(pod) {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    let blocking = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let mut taints = offer.taints.iter().filter(blocking);
    if let Some(taint) =
        taints.find(|taint| !pod.tolerations.iter().any(|toleration| tolerates(toleration, taint)))
    {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
    }
    if !pod.affinity.admits(name, &offer.labels) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    if pod.ports.iter().any(|port| node.ports.iter().any(|taken| taken.clashes(port))) {
        return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
    }
    insufficient(node, offer, pod)
}

fn insufficient(node: &NodeInfo, offer: &Offer, pod: &PodInfo) -> Vec<String> {
    let mut problems = Vec::new();
    if node.pods + 1 > offer.pods_max {
        problems.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, asked: i64, used: i64, offered: i64| {
        if asked > 0 && asked > offered - used {
            problems.push(format!("Insufficient {name}"));
        }
    };
    let (asked, used, offered) = (&pod.requests, &node.used, &offer.allocatable);
    check("cpu", asked.milli_cpu, used.milli_cpu, offered.milli_cpu);
    check("memory", asked.memory, used.memory, offered.memory);
    check("ephemeral-storage", asked.ephemeral, used.ephemeral, offered.ephemeral);
    for (name, amount) in &asked.others {
        let of = |amounts: &BTreeMap<String, i64>| amounts.get(name).copied().unwrap_or(0);
        check(name, *amount, of(&used.others), of(&offered.others));
    }
    problems
}

fn tolerates_unschedulable(pod: &PodInfo) -> bool {
    let taint = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    pod.tolerations.iter().any(|toleration| tolerates(toleration, &taint))
}

/// Whether a toleration tolerates a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let exists = toleration.operator.as_deref() == Some("Exists");
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if key.is_empty() {
        return exists;
    }
    key == taint.key && (exists || text(&toleration.value) == text(&taint.value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::tests::{node, pod};

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        cluster.set_node(node("a", json!({})));
        cluster.set_node(node("b", json!({"metadata": {"labels": {"disk": "ssd"}}})));
        cluster
    }

    fn message(cluster: &Cluster, pod: &PodInfo) -> String {
        feasible(cluster, pod).unwrap_err().message
    }

    #[test]
    fn resources_count() {
        let mut cluster = cluster();
        let cpu = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]}});
        assert_eq!(feasible(&cluster, &pod("p", cpu("2"))).unwrap(), ["a", "b"]);
        assert_eq!(
            message(&cluster, &pod("p", cpu("2001m"))),
            "0/2 nodes are available: 2 Insufficient cpu."
        );
        let mut placed = pod("x", cpu("1500m"));
        placed.node = Some("a".to_owned());
        cluster.set_pod(placed);
        assert_eq!(feasible(&cluster, &pod("p", cpu("1"))).unwrap(), ["b"]);
        cluster.set_node(node("b", json!({"spec": {"unschedulable": true}})));
        assert_eq!(
            message(&cluster, &pod("p", cpu("1"))),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable."
        );
        let extended =
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"x.io/gpu": "1"}}}]}});
        cluster.set_node(node("b", json!({"status": {"allocatable": {"x.io/gpu": "1"}}})));
        assert_eq!(feasible(&cluster, &pod("p", extended)).unwrap(), ["b"]);
    }

    #[test]
    fn a_node_can_be_full_of_pods() {
        let mut cluster = Cluster::default();
        cluster.set_node(node("a", json!({"status": {"allocatable": {"pods": "1"}}})));
        let mut first = pod("x", json!({}));
        first.node = Some("a".to_owned());
        cluster.set_pod(first);
        assert_eq!(message(&cluster, &pod("p", json!({}))), "0/1 nodes are available: 1 Too many pods.");
        assert_eq!(message(&Cluster::default(), &pod("p", json!({}))), "no nodes available to schedule pods");
    }

    #[test]
    fn taints_ports_and_selectors() {
        let mut cluster = cluster();
        assert_eq!(
            feasible(&cluster, &pod("p", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}))).unwrap(),
            ["b"]
        );
        assert_eq!(
            message(&cluster, &pod("p", json!({"spec": {"nodeSelector": {"disk": "tape"}}}))),
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
        );
        for name in ["a", "b"] {
            cluster.set_node(node(name, json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}})));
        }
        assert_eq!(
            message(&cluster, &pod("p", json!({}))),
            "0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
        );
        let tolerant = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        assert_eq!(feasible(&cluster, &pod("p", tolerant)).unwrap().len(), 2);
        let mut cluster = self::cluster();
        let port = |ip: &str| json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]}});
        let mut taken = pod("x", port("127.0.0.1"));
        taken.node = Some("a".to_owned());
        cluster.set_pod(taken);
        assert_eq!(feasible(&cluster, &pod("p", port("127.0.0.1"))).unwrap(), ["b"]);
        assert_eq!(feasible(&cluster, &pod("p", port("127.0.0.2"))).unwrap(), ["a", "b"]);
        assert_eq!(feasible(&cluster, &pod("p", port(""))).unwrap(), ["b"]);
    }
}
