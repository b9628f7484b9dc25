//! Scaling in the middle of a rollout, or while paused: each ReplicaSet gets its share.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{DESIRED_REPLICAS, MAX_REPLICAS, annotation, available, replicas, scale_to, view::View};
use crate::plan::Action;

/// The writes that bring the ReplicaSets to the Deployment's size.
pub(super) fn plan(view: &View) -> Vec<Action> {
    let active: Vec<_> = view.all_sets().filter(|set| replicas(set) > 0).collect();
    let sole = match active.as_slice() {
        [] => view.new_set().or_else(|| view.all_sets().last()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(sole) = sole {
        let current = annotation(sole, DESIRED_REPLICAS) == Some(&view.replicas().to_string());
        return if replicas(sole) == view.replicas() && current {
            Vec::new()
        } else {
            vec![scale_to(view, sole, view.replicas())]
        };
    }
    if active.is_empty() {
        return Vec::new();
    }
    if view.new_set().is_some_and(|new| is_saturated(view, new)) {
        return view.old_sets().filter(|set| replicas(set) > 0).map(|set| scale_to(view, set, 0)).collect();
    }
    if view.is_recreate() { Vec::new() } else { proportional(view, active) }
}

fn is_saturated(view: &View, set: &ReplicaSet) -> bool {
    let count = view.replicas();
    replicas(set) == count
        && available(set) == count
        && annotation(set, DESIRED_REPLICAS) == Some(count.to_string().as_str())
}

/// Spreads what is to be added or removed over the ReplicaSets by their size; the rest goes to the largest.
fn proportional(view: &View, mut sets: Vec<&ReplicaSet>) -> Vec<Action> {
    let allowed = if view.replicas() > 0 { view.max_total() } else { 0 };
    let to_add = allowed - view.total_replicas();
    // The largest first; among equals the newest when growing, the oldest when shrinking.
    if to_add > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|set| -replicas(set));
    let mut added = 0;
    let mut targets: Vec<_> = sets
        .into_iter()
        .map(|set| {
            let share = if to_add == 0 { 0 } else { share(view, set, to_add - added) };
            added += share;
            (set, replicas(set) + share)
        })
        .collect();
    if let Some((_, target)) = targets.first_mut() {
        *target = (*target + to_add - added).max(0);
    }
    let noted = |set: &ReplicaSet| {
        annotation(set, DESIRED_REPLICAS) == Some(&view.replicas().to_string())
            && annotation(set, MAX_REPLICAS) == Some(&view.max_total().to_string())
    };
    let changed = targets.into_iter().filter(|(set, target)| replicas(set) != *target || !noted(set));
    changed.map(|(set, target)| scale_to(view, set, target)).collect()
}

/// What a ReplicaSet should gain, at most `left`, or lose, at most `-left`.
fn share(view: &View, set: &ReplicaSet, left: i32) -> i32 {
    let current = replicas(set);
    let fraction = if view.replicas() == 0 {
        -current
    } else {
        let before = annotation(set, MAX_REPLICAS)
            .and_then(|count| count.parse().ok())
            .filter(|count: &i64| *count > 0);
        let before = before
            .or_else(|| view.deployment.status.as_ref().and_then(|status| status.replicas).map(i64::from));
        let Some(before) = before.filter(|count| *count > 0) else { return 0 };
        let after = i64::from(view.replicas() + view.max_surge());
        let scaled = (i64::from(current) * after * 2 + before) / (before * 2);
        i32::try_from(scaled).unwrap_or(i32::MAX) - current
    };
    if left > 0 { fraction.clamp(0, left) } else { fraction.clamp(left, 0) }
}
