//! Deployments: one ReplicaSet for each template that was ever asked for, and a controlled move from the old ones to the new one.

mod revision;
mod rolling;
mod scale;
mod status;
mod view;

use std::time::Duration;

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
use view::View;

/// Says which revision of its Deployment a ReplicaSet is, and which one a Deployment is at.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const HASH: &str = "pod-template-hash";

/// One step of a Deployment. Each step's effect wakes the next.
pub fn reconcile(caches: &Caches, key: &Key, now: Timestamp) -> Plan {
    let Some(deployment) = caches.deployments.get(key) else { return Plan::nothing() };
    let Some(mut view) = View::new(caches, deployment) else { return Plan::nothing() };
    if view.deployment.metadata.deletion_timestamp.is_some() {
        return status::plan(&view, now, None);
    }
    let claims = std::mem::take(&mut view.claims);
    if !claims.is_empty() {
        return Plan::of(claims);
    }
    let mut writes = Vec::new();
    let mut created = None;
    if view.paused() {
        writes = scale::plan(&view);
    } else if view.was_scaled() {
        writes = revision::refresh(&view);
        writes.extend(scale::plan(&view));
    } else {
        match view.new_set() {
            Some(_) => writes = revision::refresh(&view),
            None if view.is_recreate() && view.old_pods_remain(caches) => {}
            None => match revision::create(&view, caches) {
                revision::Creation::Set { name, action, deployment } => {
                    created = Some(name);
                    writes.extend([Some(*action), deployment.map(|action| *action)].into_iter().flatten());
                }
                revision::Creation::Collision(action) => return Plan::of(vec![*action]),
            },
        }
        if created.is_none() {
            writes.extend(if view.is_recreate() { recreate(&view, caches) } else { rolling::plan(&view) });
        }
    }
    if writes.is_empty() && status::is_complete(&view) {
        writes = revision::clean_up(&view);
    }
    let again = status::deadline(&view, now);
    let plan = Plan::of(merged(writes));
    let status = status::plan(&view, now, created.as_deref());
    status.batches.into_iter().fold(plan, Plan::then).again_after(again)
}

/// First all old pods go, then the new ones come.
fn recreate(view: &View, caches: &Caches) -> Vec<Action> {
    let down: Vec<_> =
        view.old_sets().filter(|set| replicas(set) > 0).map(|set| scale_to(view, set, 0)).collect();
    if !down.is_empty() || view.old_pods_remain(caches) {
        return down;
    }
    match view.new_set() {
        Some(set) if replicas(set) != view.replicas() => vec![scale_to(view, set, view.replicas())],
        _ => Vec::new(),
    }
}

/// Patches to the same object as one patch, later fields winning.
fn merged(actions: Vec<Action>) -> Vec<Action> {
    use crate::plan::Verb;
    let mut merged: Vec<Action> = Vec::new();
    for action in actions {
        let same = merged.iter_mut().find(|other| {
            other.kind == action.kind && other.key == action.key && !action.key.name.is_empty()
        });
        match (same, &action.verb) {
            (
                Some(Action { verb: Verb::Patch { patch: first, .. }, note, .. }),
                Verb::Patch { patch, .. },
            ) => {
                // A merge patch upon a merge patch, where a null stays a null.
                combine(first, patch);
                *note = note.take().or(action.note);
            }
            _ => merged.push(action),
        }
    }
    merged
}

fn combine(first: &mut Value, second: &Value) {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            for (name, value) in second {
                combine(first.entry(name).or_insert(Value::Null), value);
            }
        }
        (first, second) => *first = second.clone(),
    }
}

/// The replicas a ReplicaSet is asked for.
fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The replicas of a ReplicaSet that are available.
fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn annotation<'a>(set: &'a ReplicaSet, name: &str) -> Option<&'a str> {
    set.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Scales a ReplicaSet, and notes in it for how large a Deployment that was.
fn scale_to(view: &View, set: &ReplicaSet, count: i32) -> Action {
    let before = replicas(set);
    let patch = json!({
        "metadata": {
            "resourceVersion": set.metadata.resource_version,
            "annotations": {DESIRED_REPLICAS: view.replicas().to_string(), MAX_REPLICAS: view.max_total().to_string()},
        },
        "spec": {"replicas": count},
    });
    let action = Action::patch(Kind::ReplicaSet, Key::of(set), patch);
    if before == count {
        return action;
    }
    let (direction, name) =
        (if count > before { "up" } else { "down" }, set.metadata.name.as_deref().unwrap_or_default());
    action.noted(Note {
        about: Kind::Deployment.reference(&view.deployment.metadata),
        reason: "ScalingReplicaSet",
        message: format!("Scaled {direction} replica set {name} from {before} to {count}"),
        failure: None,
    })
}

/// Wakes the Deployments that a ReplicaSet's change concerns.
pub fn wake_for_replica_set(caches: &Caches, change: &Change<ReplicaSet>, queue: &Queue<Key>) {
    for set in change.both() {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        match pod::controller(&set.metadata) {
            Some(owner) if owner.kind == "Deployment" => queue.add(Key::new(namespace, &owner.name)),
            Some(_) => {}
            None => {
                for deployment in caches.deployments.in_namespace(namespace) {
                    if deployment
                        .spec
                        .as_ref()
                        .is_some_and(|spec| pod::selects(&spec.selector, &set.metadata))
                    {
                        queue.add(Key::of(&*deployment));
                    }
                }
            }
        }
    }
}

/// Wakes the Deployment of a pod that is gone or has ended: one that recreates waits for that.
pub fn wake_for_pod(caches: &Caches, change: &Change<Pod>, queue: &Queue<Key>) {
    if change.new.as_deref().is_some_and(|pod| !pod::is_finished(pod)) {
        return;
    }
    let Some(pod) = change.current() else { return };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(owner) = pod::controller(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet") else {
        return;
    };
    let Some(set) = caches.replica_sets.get(&Key::new(namespace, &owner.name)) else { return };
    if let Some(owner) = pod::controller(&set.metadata).filter(|owner| owner.kind == "Deployment") {
        queue.add(Key::new(namespace, &owner.name));
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests;
