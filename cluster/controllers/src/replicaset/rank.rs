//! Which pods go first when there are too many.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// The `count` pods that are missed least: not yet placed before placed, pending before running, not ready before ready, cheap before dear,
/// crowded nodes before empty ones, young before old, restarted often before seldom.
pub(super) fn surplus(mut pods: Vec<Arc<Pod>>, count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut crowd: HashMap<String, usize> = HashMap::new();
    for pod in &pods {
        *crowd.entry(node(pod).to_owned()).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let phase = match pod::phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        (
            !node(pod).is_empty(),
            phase,
            pod::is_ready(pod),
            deletion_cost(pod),
            Reverse(crowd.get(node(pod)).copied().unwrap_or(0)),
            bucket(pod::ready_since(pod), now),
            Reverse(restarts(pod)),
            bucket(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
        )
    });
    pods.truncate(count);
    pods
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().map(|container| container.restart_count).max().unwrap_or(0)
}

/// Ages in powers of two: nearly equal ones do not decide. The young sort first.
fn bucket(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let Some(since) = since else { return 0 };
    let seconds = u64::try_from(now.as_second() - since.as_second()).unwrap_or(0);
    u64::BITS - seconds.leading_zeros()
}
