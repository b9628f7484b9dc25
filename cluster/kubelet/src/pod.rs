//! Reading a Pod object: the few questions that every module asks of it, with Kubernetes' defaults filled in.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use policies_api::names::annotations;

/// Grace period of a pod that names none (Kubernetes default).
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs to completion before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, then keeps running.
    Sidecar,
    /// A main container.
    App,
}

/// When an exited container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

// === impl RestartPolicy ===

impl RestartPolicy {
    /// Whether a container that ended with `code` runs again.
    pub(crate) fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// The pod's unique id; empty only for an object that never came from an API server.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's name.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The pod's specification, when it has one.
pub(crate) fn spec(pod: &Pod) -> Option<&PodSpec> {
    pod.spec.as_ref()
}

/// Init containers in order, each with its kind.
pub(crate) fn init_containers(pod: &Pod) -> impl DoubleEndedIterator<Item = (Kind, &Container)> {
    spec(pod).and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (if sidecar { Kind::Sidecar } else { Kind::Init }, container)
    })
}

/// Main containers in order.
pub(crate) fn app_containers(pod: &Pod) -> impl DoubleEndedIterator<Item = &Container> {
    spec(pod).map(|spec| spec.containers.as_slice()).unwrap_or_default().iter()
}

/// Every container, init containers first.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (Kind, &Container)> {
    init_containers(pod).chain(app_containers(pod).map(|container| (Kind::App, container)))
}

/// The container of that name.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Kind, &'a Container)> {
    containers(pod).find(|(_, container)| container.name == name)
}

/// The pod's restart policy, `Always` when unset.
pub(crate) fn restart_policy(pod: &Pod) -> RestartPolicy {
    match spec(pod).and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// The restart policy of a container of `kind`: sidecars always come back, init containers on failure.
pub(crate) fn container_restart_policy(pod: &Pod, kind: Kind) -> RestartPolicy {
    match (kind, restart_policy(pod)) {
        (Kind::Sidecar, _) => RestartPolicy::Always,
        (Kind::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    }
}

/// How long containers may take to stop.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let seconds = spec(pod).and_then(|spec| spec.termination_grace_period_seconds);
    Duration::from_secs(u64::try_from(seconds.unwrap_or(GRACE_SECONDS_DEFAULT)).unwrap_or(0))
}

/// When the pod's deletion was asked to be complete, if it was.
pub(crate) fn deletion(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.deletion_timestamp.as_ref().map(|time| time.0)
}

/// When the pod's deletion was asked for, and how long it may take.
pub(crate) fn deletion_asked(pod: &Pod) -> Option<(Timestamp, Duration)> {
    let grace = Duration::from_secs(u64::try_from(pod.metadata.deletion_grace_period_seconds?).ok()?);
    Some((deletion(pod)?.checked_sub(grace).ok()?, grace))
}

/// Whether the pod has a sidecar of the mesh.
pub(crate) fn in_mesh(pod: &Pod) -> bool {
    annotation(pod, annotations::STATUS).is_some()
}

/// Whether the mesh says that nobody sends the pod new requests any more, since this very deletion.
pub(crate) fn released_by_clients(pod: &Pod) -> bool {
    let told = annotation(pod, annotations::RELEASED).and_then(|text| text.parse::<Timestamp>().ok());
    told.is_some() && told == deletion(pod)
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether the pod uses the node's own network namespace.
pub(crate) fn host_network(pod: &Pod) -> bool {
    spec(pod).and_then(|spec| spec.host_network).unwrap_or(false)
}

/// The terminal phase the API already records, if any: such a pod is never started again.
pub(crate) fn recorded_end(pod: &Pod) -> Option<&str> {
    let phase = pod.status.as_ref()?.phase.as_deref()?;
    matches!(phase, "Succeeded" | "Failed").then_some(phase)
}
