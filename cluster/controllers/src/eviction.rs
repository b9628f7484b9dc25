//! Taint eviction: pods leave nodes whose `NoExecute` taints they do not tolerate, or not for ever.

use std::time::Duration;

use cluster_machinery::time;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use serde_json::{Value, json};

use crate::{
    cache::{Change, Key},
    hub::Caches,
    plan::{Action, Kind, Note, Plan},
    pod,
    queue::Queue,
};

/// When a pod must leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    Never,
    At(Timestamp),
}

/// Removes the pods of a node that may not stay.
pub fn reconcile(caches: &Caches, key: &Key, now: Timestamp) -> Plan {
    let Some(node) = caches.nodes.get(key) else { return Plan::nothing() };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let taints: Vec<_> = taints.filter(|taint| taint.effect == "NoExecute").collect();
    if taints.is_empty() {
        return Plan::nothing();
    }
    let (mut actions, mut next) = (Vec::new(), None::<Duration>);
    for pod in caches.pods.all() {
        let here = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(&key.name));
        if !here || pod::is_terminating(&pod) || pod::is_finished(&pod) {
            continue;
        }
        match leave(&pod, &taints, now) {
            Leave::Never => {}
            Leave::At(at) if at <= now => actions.extend(evict(&pod, now)),
            Leave::At(at) => {
                let wait = Duration::from_millis(
                    u64::try_from(at.as_millisecond() - now.as_millisecond()).unwrap_or(0),
                );
                next = Some(next.map_or(wait, |next| next.min(wait)));
            }
        }
    }
    let (first, then): (Vec<_>, Vec<_>) = actions.into_iter().unzip();
    Plan::of(first).then(then).again_after(next)
}

fn leave(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Leave {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut earliest = Leave::Never;
    for taint in taints {
        let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if matching.peek().is_none() {
            return Leave::At(now);
        }
        let Some(seconds) = matching.filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        let at = added
            .checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
            .unwrap_or(Timestamp::MAX);
        earliest = match earliest {
            Leave::At(other) if other <= at => earliest,
            _ => Leave::At(at),
        };
    }
    earliest
}

/// Whether a toleration tolerates a taint.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any = |field: &Option<String>| field.as_deref().is_none_or(str::is_empty);
    if !any(&toleration.effect) && toleration.effect.as_deref() != Some(&taint.effect) {
        return false;
    }
    let exists = toleration.operator.as_deref() == Some("Exists");
    if any(&toleration.key) {
        return exists;
    }
    toleration.key.as_deref() == Some(&taint.key)
        && (exists
            || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

/// The write that says why a pod leaves, and the one that makes it.
fn evict(pod: &Pod, now: Timestamp) -> Option<(Action, Action)> {
    let mut conditions: Vec<Value> = pod
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref())
        .flatten()
        .map(|c| json!(c))
        .collect();
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": time::format(now),
    }));
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": conditions}});
    let note = Note {
        about: Kind::Pod.reference(&pod.metadata),
        reason: "TaintManagerEviction",
        message: format!("Marking for deletion Pod {}", Key::of(pod)),
        failure: None,
    };
    let delete = Action::delete(Kind::Pod, Key::of(pod), pod.metadata.uid.clone());
    Some((Action::patch_status(Kind::Pod, Key::of(pod), patch), delete.noted(note)))
}

/// Wakes the look at a tainted node that gets a pod.
pub fn wake_for_pod(caches: &Caches, change: &Change<Pod>, queue: &Queue<Key>) {
    let Some(node) = change.new.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone()) else { return };
    let key = Key::new("", node);
    let taints = caches.nodes.get(&key).and_then(|node| node.spec.as_ref()?.taints.clone());
    if taints.into_iter().flatten().any(|taint| taint.effect == "NoExecute") {
        queue.add(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Verb;

    fn caches(taints: &Value, tolerations: &Value) -> Caches {
        let caches = Caches::default();
        let node = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"taints": taints}});
        caches.nodes.told(serde_json::from_value(node).unwrap());
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": "p", "resourceVersion": "1"},
            "spec": {"nodeName": "a", "containers": [], "tolerations": tolerations}, "status": {"phase": "Running"}});
        caches.pods.told(serde_json::from_value(pod).unwrap());
        caches
    }

    fn look(taints: &Value, tolerations: Value) -> (bool, Option<u64>) {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let plan = reconcile(&caches(taints, &tolerations), &Key::new("", "a"), now);
        let deleted = plan.actions().any(|action| matches!(action.verb, Verb::Delete { .. }));
        (deleted, plan.again_after.map(|after| after.as_secs()))
    }

    #[test]
    fn tolerations_decide() {
        let taint =
            json!([{"key": "k", "value": "v", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]);
        assert_eq!(look(&taint, json!([])), (true, None));
        assert_eq!(look(&taint, json!([{"operator": "Exists"}])), (false, None));
        assert_eq!(
            look(&taint, json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}])),
            (false, None)
        );
        assert_eq!(look(&taint, json!([{"key": "k", "value": "v"}])), (false, None));
        assert_eq!(look(&taint, json!([{"key": "k", "value": "w"}])), (true, None));
        assert_eq!(
            look(&taint, json!([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}])),
            (true, None)
        );
        assert_eq!(
            look(&taint, json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}])),
            (false, Some(240))
        );
        assert_eq!(
            look(&taint, json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 60}])),
            (true, None)
        );
        assert_eq!(
            look(
                &taint,
                json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}, {"operator": "Exists", "tolerationSeconds": 90}])
            ),
            (false, Some(30))
        );
        assert_eq!(look(&json!([{"key": "k", "effect": "NoSchedule"}]), json!([])), (false, None));
    }
}
