//! Which of the nodes a pod can run on is best.

use crate::{
    cluster::{Cluster, NodeInfo, Offer, weight},
    filter::{self, Unfit},
    pod::PodInfo,
};

/// The best single score.
const MAX: i64 = 100;

/// The node for a pod. Among equals the one with the fewest pods, then the first after `turn`, so that equals take turns.
pub(crate) fn choose(cluster: &Cluster, pod: &PodInfo, turn: usize) -> Result<String, Unfit> {
    let fit = filter::feasible(cluster, pod)?;
    let nodes: Vec<_> = cluster.nodes().filter(|(name, ..)| fit.contains(name)).collect();
    let group =
        |node: &NodeInfo| pod.group.as_ref().and_then(|group| node.groups.get(group)).copied().unwrap_or(0);
    let most_of_group = nodes.iter().map(|(_, node, _)| group(node)).max().unwrap_or(0);
    let most_taints = nodes.iter().map(|(_, _, offer)| unwelcome(offer, pod)).max().unwrap_or(0);
    let most_liked =
        nodes.iter().map(|(name, _, offer)| pod.affinity.weight(name, &offer.labels)).max().unwrap_or(0);
    let share = |part: i64, whole: i64| if whole == 0 { 0 } else { MAX * part / whole };
    let best = nodes.iter().enumerate().max_by_key(|(index, (name, node, offer))| {
        let (least, balanced) = allocation(node, offer, pod);
        let spread = if most_of_group == 0 { MAX } else { MAX - share(group(node), most_of_group) };
        let taints = if most_taints == 0 { MAX } else { MAX - share(unwelcome(offer, pod), most_taints) };
        let liked = share(pod.affinity.weight(name, &offer.labels), most_liked);
        let total = least + balanced + 2 * spread + 3 * taints + 2 * liked;
        let place = (index + nodes.len() - turn % nodes.len()) % nodes.len();
        (total, -node.pods, std::cmp::Reverse(place))
    });
    best.map(|(_, (name, ..))| (*name).to_owned()).ok_or(Unfit { message: String::new() })
}

/// How free the node would be with the pod, and how evenly its CPU and memory would be used.
fn allocation(node: &NodeInfo, offer: &Offer, pod: &PodInfo) -> (i64, i64) {
    let (asked, used, offered) = (weight(pod), &node.weight, &offer.allocatable);
    let fraction = |asked: i64, used: i64, offered: i64| {
        if offered <= 0 { 1.0 } else { ((asked + used) as f64 / offered as f64).min(1.0) }
    };
    let cpu = fraction(asked.milli_cpu, used.milli_cpu, offered.milli_cpu);
    let memory = fraction(asked.memory, used.memory, offered.memory);
    let points = |fraction: f64| (fraction * MAX as f64) as i64;
    let least = (points(1.0 - cpu) + points(1.0 - memory)) / 2;
    // The standard deviation of two numbers is half their distance.
    (least, points(1.0 - (cpu - memory).abs() / 2.0))
}

/// How many taints of a node a pod would rather avoid.
fn unwelcome(offer: &Offer, pod: &PodInfo) -> i64 {
    let soft = offer.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !pod.tolerations.iter().any(|toleration| filter::tolerates(toleration, taint)))
        .count() as i64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::tests::{node, pod};

    fn cluster(count: usize) -> Cluster {
        let mut cluster = Cluster::default();
        for index in 0..count {
            cluster.set_node(node(&format!("n{index}"), json!({})));
        }
        cluster
    }

    /// Places pods one after the other; answers how many each node got.
    fn place(cluster: &mut Cluster, count: usize, patch: &Value) -> BTreeMap<String, usize> {
        let mut placed = BTreeMap::new();
        for index in 0..count {
            let pod = pod(&format!("p{index}"), patch.clone());
            let key = pod.key.clone();
            cluster.set_pod(pod.clone());
            let node = choose(cluster, &pod, index).unwrap();
            cluster.assume(&key, &node);
            *placed.entry(node).or_default() += 1;
        }
        placed
    }

    #[test]
    fn pods_of_a_controller_are_spread() {
        let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w", "uid": "w", "controller": true}]}});
        let placed = place(&mut cluster(3), 9, &owner);
        assert_eq!(placed.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    }

    #[test]
    fn equal_nodes_take_turns() {
        let placed = place(&mut cluster(2), 4, &json!({}));
        assert_eq!(placed.into_values().collect::<Vec<_>>(), [2, 2]);
        let best = |turn| choose(&cluster(3), &pod("p", json!({})), turn).unwrap();
        assert_eq!([best(0), best(1), best(2), best(3)], ["n0", "n1", "n2", "n0"]);
    }

    #[test]
    fn the_emptier_node_wins() {
        let mut cluster = cluster(2);
        let mut large = pod(
            "large",
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m", "memory": "3Gi"}}}]}}),
        );
        large.node = Some("n0".to_owned());
        cluster.set_pod(large);
        for turn in 0..4 {
            assert_eq!(choose(&cluster, &pod("p", json!({})), turn).unwrap(), "n1");
        }
    }

    #[test]
    fn preferences_count() {
        let mut cluster = cluster(2);
        cluster.set_node(node("n1", json!({"metadata": {"labels": {"disk": "ssd"}}})));
        let likes = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}}});
        assert_eq!(choose(&cluster, &pod("p", likes.clone()), 0).unwrap(), "n1");
        cluster.set_node(node("n1", json!({"metadata": {"labels": {"disk": "ssd"}}, "spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}})));
        assert_eq!(choose(&cluster, &pod("p", likes), 0).unwrap(), "n0", "an unwelcome taint weighs more");
    }
}
