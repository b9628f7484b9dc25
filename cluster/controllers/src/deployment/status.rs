//! The status of a Deployment: counts and the conditions `Available`, `Progressing` and `ReplicaFailure`.

use std::time::Duration;

use cluster_machinery::time;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use serde_json::{Value, json};

use super::{available, seconds, view::View};
use crate::plan::{Action, Kind, Plan};

/// A deadline that means none.
const NO_DEADLINE: i32 = i32::MAX;

/// Writes the status if it differs. `created` names a ReplicaSet that is just being made.
pub(super) fn plan(view: &View, now: Timestamp, created: Option<&str>) -> Plan {
    let old = view.deployment.status.clone().unwrap_or_default();
    let counts = counts(view, &old);
    let conditions = conditions(view, &old, &counts, now, created);
    let mut status = json!(counts);
    status["conditions"] = json!(conditions);
    if same(&old, &counts, &conditions) {
        return Plan::nothing();
    }
    for name in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"] {
        // Absent means zero; a merge patch removes by null.
        if status[name].as_i64().unwrap_or(0) == 0 {
            status[name] = Value::Null;
        }
    }
    let patch = json!({"metadata": {"uid": view.deployment.metadata.uid}, "status": status});
    Plan::of(vec![Action::patch_status(Kind::Deployment, view.key(), patch)])
}

fn counts(view: &View, old: &DeploymentStatus) -> DeploymentStatus {
    let sum = |count: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        view.all_sets().filter_map(|set| set.status.as_ref()).map(count).sum()
    };
    let replicas = sum(|status| status.replicas);
    let available = sum(|status| status.available_replicas.unwrap_or(0));
    DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: Some(replicas),
        updated_replicas: Some(
            view.new_set().and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas),
        ),
        ready_replicas: Some(sum(|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((view.total_replicas() - available).max(0)),
        collision_count: old.collision_count,
        ..DeploymentStatus::default()
    }
}

fn same(old: &DeploymentStatus, new: &DeploymentStatus, conditions: &[DeploymentCondition]) -> bool {
    let counts = |status: &DeploymentStatus| {
        [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
            status.available_replicas,
            status.unavailable_replicas,
        ]
        .map(|count| count.unwrap_or(0))
    };
    let plain = |list: &[DeploymentCondition]| {
        let strip = |condition: &DeploymentCondition| DeploymentCondition {
            last_update_time: None,
            ..condition.clone()
        };
        list.iter().map(strip).collect::<Vec<_>>()
    };
    old.observed_generation == new.observed_generation
        && counts(old) == counts(new)
        && plain(old.conditions.as_deref().unwrap_or_default()) == plain(conditions)
}

fn conditions(
    view: &View,
    old: &DeploymentStatus,
    counts: &DeploymentStatus,
    now: Timestamp,
    created: Option<&str>,
) -> Vec<DeploymentCondition> {
    let mut list = old.conditions.clone().unwrap_or_default();
    let enough = counts.available_replicas.unwrap_or(0) >= view.replicas() - view.max_unavailable();
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    put(&mut list, "Available", status, reason, message, now, false);
    if let Some((status, reason, message, moved)) = progressing(view, old, counts, now, created) {
        put(&mut list, "Progressing", status, reason, &message, now, moved);
    }
    let failure = view
        .all_sets()
        .filter_map(|set| set.status.as_ref()?.conditions.as_ref())
        .flatten()
        .find(|c| c.type_ == "ReplicaFailure");
    match failure {
        Some(failure) => {
            let (reason, message) = (failure.reason.as_deref(), failure.message.as_deref());
            put(
                &mut list,
                "ReplicaFailure",
                &failure.status,
                reason.unwrap_or_default(),
                message.unwrap_or_default(),
                now,
                false,
            );
        }
        None => list.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    list
}

type Progress = (&'static str, &'static str, String, bool);

/// What the condition `Progressing` should be; `None` leaves it. The last member says that something moved.
fn progressing(
    view: &View,
    old: &DeploymentStatus,
    counts: &DeploymentStatus,
    now: Timestamp,
    created: Option<&str>,
) -> Option<Progress> {
    let current = condition(old);
    let reason = current.and_then(|condition| condition.reason.as_deref()).unwrap_or_default();
    if view.spec.progress_deadline_seconds == Some(NO_DEADLINE) {
        return None;
    }
    if view.paused() {
        return (reason != "DeploymentPaused")
            .then(|| ("Unknown", "DeploymentPaused", "Deployment is paused".to_owned(), true));
    }
    if reason == "DeploymentPaused" {
        return Some(("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), true));
    }
    if let Some(name) = created {
        return Some(("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""), true));
    }
    let name = view.new_set().and_then(|set| set.metadata.name.as_deref());
    let subject = name.map_or_else(
        || format!("Deployment \"{}\"", view.deployment.metadata.name.as_deref().unwrap_or_default()),
        |name| format!("ReplicaSet \"{name}\""),
    );
    let settled = counts.replicas == counts.updated_replicas && reason == "NewReplicaSetAvailable";
    if settled
        && current.is_some_and(|condition| {
            condition.message.as_deref().is_some_and(|message| message.starts_with(&subject))
        })
    {
        return None;
    }
    if complete(view, counts) {
        return Some((
            "True",
            "NewReplicaSetAvailable",
            format!("{subject} has successfully progressed."),
            true,
        ));
    }
    if moved(old, counts) || current.is_none() {
        return Some(("True", "ReplicaSetUpdated", format!("{subject} is progressing."), true));
    }
    if overdue(view, old, now) {
        return Some((
            "False",
            "ProgressDeadlineExceeded",
            format!("{subject} has timed out progressing."),
            false,
        ));
    }
    None
}

fn condition(status: &DeploymentStatus) -> Option<&DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Progressing")
}

fn complete(view: &View, counts: &DeploymentStatus) -> bool {
    let wanted = Some(view.replicas());
    counts.updated_replicas == wanted && counts.replicas == wanted && counts.available_replicas == wanted
}

/// Whether the rollout is complete as the ReplicaSets stand.
pub(super) fn is_complete(view: &View) -> bool {
    let old = view.deployment.status.clone().unwrap_or_default();
    let new_available = view.new_set().map_or(0, available);
    complete(view, &counts(view, &old)) && new_available == view.replicas()
}

fn moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// When the rollout will be overdue, if it is under way.
fn due_at(view: &View, status: &DeploymentStatus) -> Option<i64> {
    let deadline = view.spec.progress_deadline_seconds.unwrap_or(600);
    let condition = condition(status)?;
    if deadline == NO_DEADLINE
        || view.paused()
        || condition.reason.as_deref() == Some("NewReplicaSetAvailable")
    {
        return None;
    }
    Some(condition.last_update_time.as_ref()?.0.as_second() + i64::from(deadline))
}

fn overdue(view: &View, status: &DeploymentStatus, now: Timestamp) -> bool {
    due_at(view, status).is_some_and(|due| now.as_second() >= due)
}

/// When to look whether the rollout is overdue.
pub(super) fn deadline(view: &View, now: Timestamp) -> Option<Duration> {
    let status = view.deployment.status.clone().unwrap_or_default();
    let exceeded = condition(&status)
        .is_some_and(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    let due = due_at(view, &status).filter(|_| !exceeded && !is_complete(view))?;
    Some(seconds((due - now.as_second()).max(0) + 1))
}

fn put(
    list: &mut Vec<DeploymentCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
    touch: bool,
) {
    let now = || serde_json::from_value(json!(time::format(now))).ok();
    let old = list.iter().position(|condition| condition.type_ == kind);
    let same_status = old.filter(|index| list[*index].status == status);
    let unchanged = same_status.filter(|index| {
        list[*index].reason.as_deref() == Some(reason) && list[*index].message.as_deref() == Some(message)
    });
    if unchanged.is_some() && !touch {
        return;
    }
    let condition = DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: same_status
            .and_then(|index| list[index].last_transition_time.clone())
            .or_else(now),
        last_update_time: now(),
    };
    match old {
        Some(index) => list[index] = condition,
        None => list.push(condition),
    }
}
