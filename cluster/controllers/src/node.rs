//! Node lifecycle: a node whose Lease is not renewed is not ready, and says so by conditions and taints.
//!
//! A Lease's age is counted from when its last renewal was heard here, by the monotonic clock; the clocks of machines are never compared.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use cluster_machinery::time;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    cache::Key,
    hub::Caches,
    plan::{Action, Kind, Note, Plan},
    pod,
};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions that keep pods away, with their taints.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The conditions that only the kubelet knows.
const OF_KUBELET: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When each node was last heard of.
#[derive(Debug, Default)]
pub struct Leases(Mutex<HashMap<String, Instant>>);

// === impl Leases ===

impl Leases {
    /// Notes that a node's Lease was renewed; true if the node was silent before, or new.
    pub fn heard(&self, node: &str, now: Instant) -> bool {
        let before = self.0.lock().insert(node.to_owned(), now);
        // A node that renews in time needs no look; the one that its grace ends is planned already.
        before.is_none_or(|before| now.duration_since(before) > Duration::from_secs(15))
    }

    /// How long a node has been silent. A node never heard of begins its grace with the first question.
    fn silent_for(&self, node: &str, now: Instant) -> Duration {
        now.saturating_duration_since(*self.0.lock().entry(node.to_owned()).or_insert(now))
    }

    fn forget(&self, node: &str) {
        self.0.lock().remove(node);
    }
}

/// Judges a node's health.
pub fn reconcile(caches: &Caches, key: &Key, grace: Duration, clock: Instant, now: Timestamp) -> Plan {
    let Some(node) = caches.nodes.get(key) else {
        caches.leases.forget(&key.name);
        return Plan::nothing();
    };
    let silent = caches.leases.silent_for(&key.name, clock);
    let lost = silent >= grace;
    let mut plan = Plan::nothing();
    let ready = if lost {
        let unknown = unknown_conditions(&node, now);
        if !unknown.is_empty() {
            let note = Note {
                about: Kind::Node.reference(&node.metadata),
                reason: "NodeNotReady",
                message: format!("Node {} status is now: NodeNotReady", key.name),
                failure: None,
            };
            plan = plan.then(vec![set_conditions(&node, unknown).noted(note)]);
        }
        "Unknown"
    } else {
        condition(&node, "Ready").unwrap_or_default()
    };
    plan = plan.then(taints(&node, ready, now).into_iter().collect());
    if ready != "True" && condition(&node, "Ready").is_some() {
        plan = plan.then(unready_pods(caches, &key.name, now));
    }
    plan.again_after((!lost).then(|| grace - silent + Duration::from_millis(10)))
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// The conditions that must become unknown when the kubelet is silent.
fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<Value> {
    let reported = |kind: &str| {
        node.status
            .as_ref()?
            .conditions
            .as_ref()?
            .iter()
            .find(|condition| condition.type_ == kind)
            .map(|condition| json!(condition))
    };
    let unknown = |kind: &str| {
        let old = reported(kind);
        if old.as_ref().is_some_and(|old| old["status"] == "Unknown") || (old.is_none() && kind != "Ready") {
            return None;
        }
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        Some(json!({
            "type": kind, "status": "Unknown", "reason": reason, "message": message,
            "lastHeartbeatTime": old.as_ref().map(|old| old["lastHeartbeatTime"].clone()),
            "lastTransitionTime": time::format(now),
        }))
    };
    OF_KUBELET.into_iter().filter_map(unknown).collect()
}

fn set_conditions(node: &Node, changed: Vec<Value>) -> Action {
    let old = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut all: Vec<Value> = old.iter().map(|condition| json!(condition)).collect();
    for new in changed {
        match all.iter_mut().find(|old| old["type"] == new["type"]) {
            Some(old) => *old = new,
            None => all.push(new),
        }
    }
    let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "status": {"conditions": all}});
    Action::patch_status(Kind::Node, Key::of(node), patch)
}

/// The write that makes a node's taints say what its conditions say.
fn taints(node: &Node, ready: &str, now: Timestamp) -> Option<Action> {
    let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = match ready {
        "True" => Vec::new(),
        // A node that has only just registered: nothing is placed there, but nothing leaves either.
        "" => vec![(NOT_READY, "NoSchedule")],
        "False" => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
        _ => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
    };
    for (kind, taint) in PRESSURES {
        if condition(node, kind) == Some("True") {
            wanted.push((taint, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| {
        let known = PRESSURES.iter().map(|(_, taint)| *taint).chain([NOT_READY, UNREACHABLE, UNSCHEDULABLE]);
        known.into_iter().any(|known| taint.key == known)
    };
    let is = |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let kept = old.iter().filter(|taint| !ours(taint) || wanted.iter().any(|wanted| is(taint, wanted)));
    let mut new: Vec<Value> = kept.map(|taint| json!(taint)).collect();
    let mut changed = new.len() != old.len();
    for (key, effect) in wanted.iter().filter(|wanted| !old.iter().any(|taint| is(taint, wanted))) {
        let mut taint = json!({"key": key, "effect": effect});
        if *effect == "NoExecute" {
            taint["timeAdded"] = time::format(now).into();
        }
        new.push(taint);
        changed = true;
    }
    if !changed {
        return None;
    }
    let patch =
        json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": new}});
    Some(Action::patch(Kind::Node, Key::of(node), patch))
}

/// Writes that make the pods of a node that is not ready not ready either, so that nobody sends them requests.
fn unready_pods(caches: &Caches, node: &str, now: Timestamp) -> Vec<Action> {
    let here = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let pods = caches.pods.all();
    pods.iter().filter(|pod| here(pod) && pod::is_ready(pod)).map(|pod| unready(pod, now)).collect()
}

fn unready(pod: &Pod, now: Timestamp) -> Action {
    let mut conditions: Vec<Value> = pod
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref())
        .flatten()
        .map(|c| json!(c))
        .collect();
    for ready in conditions.iter_mut().filter(|condition| condition["type"] == "Ready") {
        ready["status"] = "False".into();
        ready["reason"] = "NodeNotReady".into();
        ready["lastTransitionTime"] = time::format(now).into();
    }
    let patch = json!({
        "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": {"conditions": conditions},
    });
    Action::patch_status(Kind::Pod, Key::of(pod), patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Verb;

    const GRACE: Duration = Duration::from_secs(40);

    fn told(caches: &Caches, version: u32, ready: &str, more: Value) {
        let mut node = json!({"metadata": {"name": "a", "uid": "a", "resourceVersion": version.to_string()}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]}});
        cluster_machinery::patch::merge(&mut node, &more).unwrap();
        caches.nodes.told(serde_json::from_value(node).unwrap());
    }

    fn look(caches: &Caches, clock: Instant) -> Plan {
        reconcile(caches, &Key::new("", "a"), GRACE, clock, Timestamp::UNIX_EPOCH)
    }

    fn patches(plan: &Plan) -> Vec<Value> {
        let patch = |action: &Action| match &action.verb {
            Verb::Patch { patch, .. } => patch.clone(),
            other => panic!("{other:?}"),
        };
        plan.actions().map(patch).collect()
    }

    #[test]
    fn a_silent_node_is_lost_after_its_grace() {
        let caches = Caches::default();
        told(&caches, 1, "True", json!({}));
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "resourceVersion": "1"}, "spec": {"nodeName": "a", "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        caches.pods.told(serde_json::from_value(pod).unwrap());
        let start = Instant::now();
        assert!(caches.leases.heard("a", start));
        let plan = look(&caches, start);
        assert_eq!(plan.batches, Vec::<Vec<Action>>::new());
        assert_eq!(plan.again_after.map(|after| after.as_secs()), Some(40));
        assert!(look(&caches, start + Duration::from_secs(39)).batches.is_empty());
        let patches = patches(&look(&caches, start + GRACE));
        assert_eq!(patches[0]["status"]["conditions"][0]["status"], "Unknown");
        assert_eq!(patches[0]["status"]["conditions"][1]["status"], "Unknown");
        let taints = patches[1]["spec"]["taints"].as_array().unwrap();
        assert_eq!(
            taints.iter().map(|taint| taint["effect"].as_str().unwrap()).collect::<Vec<_>>(),
            ["NoSchedule", "NoExecute"]
        );
        assert_eq!(taints[1]["timeAdded"], "1970-01-01T00:00:00Z");
        assert_eq!(patches[2]["status"]["conditions"][0]["reason"], "NodeNotReady");
        assert!(caches.leases.heard("a", start + GRACE), "a node that comes back is looked at");
        assert!(look(&caches, start + GRACE).batches.is_empty());
    }

    #[test]
    fn a_new_node_takes_nothing_until_it_is_ready() {
        let (caches, start) = (Caches::default(), Instant::now());
        told(&caches, 1, "True", json!({"status": {"conditions": null}}));
        let taints = patches(&look(&caches, start))[0]["spec"]["taints"].clone();
        assert_eq!(taints, json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        told(&caches, 2, "True", json!({"spec": {"taints": taints}}));
        assert_eq!(patches(&look(&caches, start))[0]["spec"]["taints"], json!([]));
    }

    #[test]
    fn taints_follow_conditions() {
        let caches = Caches::default();
        let start = Instant::now();
        caches.leases.heard("a", start);
        told(
            &caches,
            1,
            "False",
            json!({"spec": {"unschedulable": true, "taints": [{"key": "mine", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "DiskPressure", "status": "True"}]}}),
        );
        let plan = look(&caches, start);
        let taints = patches(&plan)[0]["spec"]["taints"].clone();
        let keys: Vec<_> =
            taints.as_array().unwrap().iter().map(|taint| taint["key"].as_str().unwrap()).collect();
        assert_eq!(keys, ["mine", NOT_READY, NOT_READY, "node.kubernetes.io/disk-pressure", UNSCHEDULABLE]);
        told(&caches, 2, "True", json!({"spec": {"taints": taints}}));
        assert_eq!(
            patches(&look(&caches, start))[0]["spec"]["taints"],
            json!([{"key": "mine", "effect": "NoSchedule"}])
        );
        told(&caches, 3, "True", json!({"spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}}));
        assert!(look(&caches, start).batches.is_empty());
    }
}
