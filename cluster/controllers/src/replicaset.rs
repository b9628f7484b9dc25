//! ReplicaSets: as many pods as asked for, adopted, made or removed.

mod rank;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use serde_json::{Value, json};

use crate::{
    cache::{Change, Key},
    hub::Caches,
    plan::{Action, Kind, Note, Plan},
    pod,
    queue::Queue,
};

/// Pods made or removed in one go; the rest follows when these are seen.
const BURST: usize = 500;

/// The condition that says why pods cannot be made or removed.
pub(crate) const FAILURE: &str = "ReplicaFailure";

/// Whether the status says that pods could not be made or removed.
pub(crate) fn has_failure(set: &ReplicaSet) -> bool {
    let conditions = set.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == FAILURE)
}

/// Brings a ReplicaSet's pods closer to what its spec asks for.
pub fn reconcile(caches: &Caches, key: &Key, now: Timestamp) -> Plan {
    let Some(set) = caches.replica_sets.get(key) else { return Plan::nothing() };
    let (mine, claims) = claim(caches, &set);
    let mine: Vec<_> =
        mine.into_iter().filter(|pod| !pod::is_finished(pod) && !pod::is_terminating(pod)).collect();
    let mut plan = Plan::of(claims);
    let wanted = wanted(&set);
    if set.metadata.deletion_timestamp.is_none() {
        if mine.len() < wanted {
            plan = slow_start(plan, &set, (wanted - mine.len()).min(BURST));
        } else if mine.len() > wanted {
            let surplus = (mine.len() - wanted).min(BURST);
            plan = plan.then(
                rank::surplus(mine.clone(), surplus, now).iter().map(|pod| remove(&set, pod)).collect(),
            );
        }
    }
    let (status, next) = status(&set, &mine, now);
    // The status goes with the first batch, so that it is told even when pods cannot be made.
    if let Some(status) = status {
        let patch = json!({"metadata": {"uid": set.metadata.uid}, "status": status});
        let action = Action::patch_status(Kind::ReplicaSet, key.clone(), patch);
        match plan.batches.first_mut() {
            Some(first) => first.push(action),
            None => plan = plan.then(vec![action]),
        }
    }
    plan.again_after(next.map(Duration::from_secs))
}

fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// The set's pods, and the writes that adopt stray ones and release those that do not match any more.
fn claim(caches: &Caches, set: &ReplicaSet) -> (Vec<Arc<Pod>>, Vec<Action>) {
    let (mut mine, mut actions) = (Vec::new(), Vec::new());
    let Some(spec) = &set.spec else { return (mine, actions) };
    let uid = set.metadata.uid.as_deref();
    for pod in caches.pods.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default()) {
        let matches = pod::selects(&spec.selector, &pod.metadata);
        if pod::is_controlled_by(&pod.metadata, uid) {
            if matches {
                mine.push(pod);
            } else if set.metadata.deletion_timestamp.is_none() {
                let owners = pod.metadata.owner_references.iter().flatten();
                let others: Vec<_> = owners.filter(|owner| Some(owner.uid.as_str()) != uid).collect();
                actions.push(own(&pod, json!(others)));
            }
        } else if matches
            && pod::controller(&pod.metadata).is_none()
            && pod::is_active(&pod)
            && set.metadata.deletion_timestamp.is_none()
        {
            let mut owners: Vec<Value> =
                pod.metadata.owner_references.iter().flatten().map(|owner| json!(owner)).collect();
            owners.push(Kind::ReplicaSet.owner(&set.metadata));
            actions.push(own(&pod, json!(owners)).while_alive(Kind::ReplicaSet, &set.metadata));
            mine.push(pod);
        }
    }
    (mine, actions)
}

/// Sets a pod's owners, if it has not changed meanwhile.
fn own(pod: &Pod, owners: Value) -> Action {
    let meta = &pod.metadata;
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
    Action::patch(Kind::Pod, Key::of(pod), patch)
}

/// Creates pods in batches of 1, 2, 4, …: when they cannot be made, few requests find that out.
fn slow_start(mut plan: Plan, set: &ReplicaSet, count: usize) -> Plan {
    let (mut left, mut size) = (count, 1);
    while left > 0 {
        let batch = size.min(left);
        plan = plan.then((0..batch).map(|_| make(set)).collect());
        left -= batch;
        size *= 2;
    }
    plan
}

fn make(set: &ReplicaSet) -> Action {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let meta = template.and_then(|template| template.metadata.as_ref());
    let object = json!({
        "metadata": {
            "generateName": format!("{}-", set.metadata.name.as_deref().unwrap_or_default()),
            "namespace": set.metadata.namespace,
            "labels": meta.and_then(|meta| meta.labels.as_ref()),
            "annotations": meta.and_then(|meta| meta.annotations.as_ref()),
            "finalizers": meta.and_then(|meta| meta.finalizers.as_ref()),
            "ownerReferences": [Kind::ReplicaSet.owner(&set.metadata)],
        },
        "spec": template.and_then(|template| template.spec.as_ref()),
    });
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    Action::create(Kind::Pod, namespace, object).noted(Note {
        about: Kind::ReplicaSet.reference(&set.metadata),
        reason: "SuccessfulCreate",
        message: "Created pod: {}".to_owned(),
        failure: Some("FailedCreate"),
    })
}

fn remove(set: &ReplicaSet, pod: &Pod) -> Action {
    Action::delete(Kind::Pod, Key::of(pod), pod.metadata.uid.clone()).noted(Note {
        about: Kind::ReplicaSet.reference(&set.metadata),
        reason: "SuccessfulDelete",
        message: "Deleted pod: {}".to_owned(),
        failure: Some("FailedDelete"),
    })
}

/// The status the set should have, if it differs, and in how many seconds it will change by itself.
fn status(set: &ReplicaSet, mine: &[Arc<Pod>], now: Timestamp) -> (Option<Value>, Option<u64>) {
    let Some(spec) = &set.spec else { return (None, None) };
    let template = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.as_ref());
    let labelled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template.is_none_or(|wanted| {
            wanted.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        })
    };
    let (mut full, mut ready, mut available, mut next) = (0, 0, 0, None::<u64>);
    for pod in mine {
        full += i32::from(labelled(pod));
        ready += i32::from(pod::is_ready(pod));
        match pod::availability(pod, spec.min_ready_seconds.unwrap_or(0), now) {
            Ok(()) => available += 1,
            Err(left) => next = next.into_iter().chain(left).min(),
        }
    }
    let replicas = i32::try_from(mine.len()).unwrap_or(i32::MAX);
    let generation = set.metadata.generation.unwrap_or(0);
    let old = set.status.clone().unwrap_or_default();
    let overcome = has_failure(set) && mine.len() == wanted(set);
    let same = !overcome
        && old.replicas == replicas
        && old.fully_labeled_replicas.unwrap_or(0) == full
        && old.ready_replicas.unwrap_or(0) == ready
        && old.available_replicas.unwrap_or(0) == available
        && old.observed_generation.unwrap_or(0) == generation;
    let mut status = json!({
        "replicas": replicas, "fullyLabeledReplicas": full, "readyReplicas": ready, "availableReplicas": available,
        "observedGeneration": generation,
    });
    if overcome {
        status["conditions"] = Value::Null;
    }
    ((!same).then_some(status), next)
}

/// Wakes the ReplicaSets that a pod's change concerns: its owners, or those that might adopt it.
pub fn wake_for_pod(caches: &Caches, change: &Change<Pod>, queue: &Queue<Key>) {
    for pod in change.both() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        match pod::controller(&pod.metadata) {
            Some(owner) if owner.kind == "ReplicaSet" => queue.add(Key::new(namespace, &owner.name)),
            Some(_) => {}
            None => {
                for set in caches.replica_sets.in_namespace(namespace) {
                    if set.spec.as_ref().is_some_and(|spec| pod::selects(&spec.selector, &pod.metadata)) {
                        queue.add(Key::of(&*set));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
