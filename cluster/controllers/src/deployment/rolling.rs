//! Rolling updates: the new ReplicaSet grows and the old ones shrink, within the surge and unavailability allowed.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{available, replicas, scale_to, view::View};
use crate::plan::Action;

/// The writes of one step: up first, and only when there is nothing to do there, down.
pub(super) fn plan(view: &View) -> Vec<Action> {
    let Some(new) = view.new_set() else { return Vec::new() };
    let wanted =
        if replicas(new) > view.replicas() { view.replicas() } else { new_replicas(view, replicas(new)) };
    if wanted != replicas(new) {
        return vec![scale_to(view, new, wanted)];
    }
    shrink_old(view, new)
}

/// How many replicas the new ReplicaSet, which has `current`, may have.
pub(super) fn new_replicas(view: &View, current: i32) -> i32 {
    let room = view.max_total() - view.total_replicas();
    if room <= 0 { current } else { current + room.min(view.replicas() - current).max(0) }
}

fn shrink_old(view: &View, new: &ReplicaSet) -> Vec<Action> {
    let mut old: Vec<_> = view.old_sets().map(|set| (set, replicas(set))).collect();
    if old.iter().all(|(_, count)| *count == 0) {
        return Vec::new();
    }
    let min_available = view.replicas() - view.max_unavailable();
    let new_unavailable = replicas(new) - available(new);
    let mut removable = view.total_replicas() - min_available - new_unavailable;
    if removable <= 0 {
        return Vec::new();
    }
    // Pods that do not serve anyhow go first.
    for (set, count) in &mut old {
        let unhealthy = (*count - available(set)).clamp(0, removable);
        *count -= unhealthy;
        removable -= unhealthy;
    }
    // Then as many as serve beyond what must.
    let mut spare = (view.total_available() - min_available).max(0);
    for (_, count) in &mut old {
        let healthy = (*count).min(spare);
        *count -= healthy;
        spare -= healthy;
    }
    old.into_iter()
        .filter(|(set, count)| replicas(set) != *count)
        .map(|(set, count)| scale_to(view, set, count))
        .collect()
}
