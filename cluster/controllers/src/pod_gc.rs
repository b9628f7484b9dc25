//! Pods that nobody else will remove: those of nodes that are gone, and those deleted before they had a node.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::{
    cache::Key,
    hub::Caches,
    plan::{Action, Kind, Plan},
    pod,
};

/// A node that is missing for so long will not come.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Removes a pod that is left over.
pub fn reconcile(caches: &Caches, key: &Key, now: Timestamp) -> Plan {
    let Some(pod) = caches.pods.get(key) else { return Plan::nothing() };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let remove = || Action::delete_now(Kind::Pod, key.clone(), pod.metadata.uid.clone());
    if node.is_empty() {
        return if pod::is_terminating(&pod) { Plan::of(vec![remove()]) } else { Plan::nothing() };
    }
    if caches.nodes.get(&Key::new("", node)).is_some() {
        return Plan::nothing();
    }
    // The pod is younger than its node's loss, or the node is about to come: wait first.
    let since =
        pod::condition(&pod, "PodScheduled").and_then(|condition| condition.last_transition_time.as_ref());
    let since = since.or(pod.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let age = u64::try_from(now.as_second() - since.as_second()).unwrap_or(0);
    let age = Duration::from_secs(age);
    if age < QUARANTINE {
        return Plan::nothing().again_after(Some(QUARANTINE - age));
    }
    let mut actions = Vec::new();
    if !pod::is_finished(&pod) {
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "reason": "NodeLost", "message": "The pod's node is gone"}});
        actions.push(Action::patch_status(Kind::Pod, key.clone(), patch));
    }
    Plan::of(actions).then(vec![remove()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_left_over_pods_go() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let look = |node: bool, patch| {
            let caches = Caches::default();
            if node {
                caches.nodes.told(
                    serde_json::from_value(json!({"metadata": {"name": "a", "resourceVersion": "1"}}))
                        .unwrap(),
                );
            }
            let mut pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": "p", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": []}, "status": {"phase": "Running"}});
            cluster_machinery::patch::merge(&mut pod, &patch).unwrap();
            caches.pods.told(serde_json::from_value(pod).unwrap());
            let plan = reconcile(&caches, &Key::new("n", "p"), now);
            (plan.actions().count(), plan.again_after.map(|after| after.as_secs()))
        };
        let placed = json!({"spec": {"nodeName": "a"}});
        assert_eq!(look(true, placed.clone()), (0, None));
        assert_eq!(look(false, placed), (2, None), "its node is gone");
        assert_eq!(look(false, json!({"spec": {"nodeName": "a"}, "status": {"phase": "Failed"}})), (1, None));
        assert_eq!(
            look(
                false,
                json!({"spec": {"nodeName": "a"}, "metadata": {"creationTimestamp": "2026-01-01T00:00:50Z"}})
            ),
            (0, Some(30))
        );
        assert_eq!(look(true, json!({})), (0, None));
        assert_eq!(
            look(true, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
            (1, None),
            "deleted without a node"
        );
    }
}
