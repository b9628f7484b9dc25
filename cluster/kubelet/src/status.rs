//! The pod's status as the API shows it, computed from the object and what is known of its containers. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::{self, Outcome};
use crate::pod::{self, Kind};
use crate::resources::Qos;
use crate::state::{ContainerState, Exit, Life, PodState, Sandbox, TerminationReason};

/// Computes the status of `pod`; transition times carry over from `previous` where nothing changed.
pub(crate) fn compute(
    pod: &Pod,
    state: &PodState,
    previous: &PodStatus,
    host_ip: IpAddr,
    now: Timestamp,
) -> PodStatus {
    let phase = phase(pod, state);
    let ended = matches!(phase, "Succeeded" | "Failed");
    let statuses = |kinds: &[Kind]| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = pod::containers(pod)
            .filter(|(kind, _)| kinds.contains(kind))
            .map(|(kind, container)| container_status(pod, state, kind, container, ended, now))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let (reason, message) = explanation(pod, state);
    let ip = state.ip().map(|ip| ip.to_string()).or_else(|| previous.pod_ip.clone());
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(pod, state, previous, phase, now)),
        host_ip: Some(host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_string() }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: state.start_time.map(Time).or_else(|| previous.start_time.clone()),
        init_container_statuses: statuses(&[Kind::Init, Kind::Sidecar]),
        container_statuses: statuses(&[Kind::App]),
        qos_class: previous.qos_class.clone().or_else(|| Some(Qos::of(pod).as_str().to_owned())),
        observed_generation: pod.metadata.generation,
        reason: reason.or_else(|| previous.reason.clone()),
        message: message.or_else(|| previous.message.clone()),
        nominated_node_name: previous.nominated_node_name.clone(),
        ..PodStatus::default()
    }
}

/// Whether a container counts as ready.
pub(crate) fn is_ready(kind: Kind, seen: &ContainerState) -> bool {
    match kind {
        Kind::Init => matches!(&seen.life, Life::Exited(exit) if exit.code == 0),
        Kind::Sidecar | Kind::App => seen.is_started() && seen.probes.readiness,
    }
}

/// Conditions that this kubelet writes; all others belong to somebody else.
const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Takes conditions of others, as the API has them now, into `status`.
pub(crate) fn adopt_foreign(status: &mut PodStatus, conditions: &[PodCondition]) {
    let own = |condition: &PodCondition| OWN_CONDITIONS.contains(&condition.type_.as_str());
    let list = status.conditions.get_or_insert_default();
    list.retain(own);
    list.extend(conditions.iter().filter(|condition| !own(condition)).cloned());
}

fn phase(pod: &Pod, state: &PodState) -> &'static str {
    match plan::outcome(pod, state) {
        Some(Outcome::Succeeded) => return "Succeeded",
        Some(Outcome::Failed) => return "Failed",
        None => {}
    }
    let apps = || pod::app_containers(pod).map(|container| state.container(&container.name));
    if let Some(termination) = &state.termination
        && !pod::containers(pod).any(|(_, container)| state.container(&container.name).is_alive())
    {
        let clean = termination.reason != TerminationReason::DeadlineExceeded
            && apps().all(|seen| matches!(&seen.life, Life::Exited(exit) if exit.code == 0));
        return if clean { "Succeeded" } else { "Failed" };
    }
    let never_ran =
        |seen: &ContainerState| matches!(seen.life, Life::Waiting | Life::Starting) && seen.last.is_none();
    if !plan::initialized(pod, state) || apps().any(never_ran) { "Pending" } else { "Running" }
}

fn explanation(pod: &Pod, state: &PodState) -> (Option<String>, Option<String>) {
    let overrun = state
        .termination
        .as_ref()
        .is_some_and(|termination| termination.reason == TerminationReason::DeadlineExceeded);
    if !overrun {
        return (None, None);
    }
    let seconds = pod::spec(pod).and_then(|spec| spec.active_deadline_seconds).unwrap_or_default();
    let message = format!("Pod was active on the node longer than the specified deadline ({seconds}s)");
    (Some("DeadlineExceeded".to_owned()), Some(message))
}

fn container_status(
    pod: &Pod,
    state: &PodState,
    kind: Kind,
    container: &Container,
    ended: bool,
    now: Timestamp,
) -> ContainerStatus {
    let seen = state.container(&container.name);
    let waiting = waiting(pod, state, kind, container, ended, now);
    let shown_exit = match &seen.life {
        Life::Exited(exit) if waiting.is_none() => Some(exit),
        _ => None,
    };
    let last = if shown_exit.is_some() { seen.last.as_ref() } else { seen.exit() };
    let current = match (&seen.life, waiting) {
        (_, Some(waiting)) => ApiState { waiting: Some(waiting), ..ApiState::default() },
        (Life::Running(running) | Life::Stopping(running), None) => ApiState {
            running: Some(ContainerStateRunning { started_at: Some(Time(running.started_at)) }),
            ..ApiState::default()
        },
        _ => ApiState { terminated: shown_exit.map(terminated), ..ApiState::default() },
    };
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: seen.image_id.clone(),
        container_id: seen.id().map(container_id),
        ready: is_ready(kind, seen),
        started: Some(kind != Kind::Init && seen.is_started()),
        restart_count: i32::try_from(seen.attempt).unwrap_or(i32::MAX),
        state: Some(current),
        last_state: Some(ApiState { terminated: last.map(terminated), ..ApiState::default() }),
        ..ContainerStatus::default()
    }
}

/// Why a container shows as waiting; `None` when it runs or has ended for good.
fn waiting(
    pod: &Pod,
    state: &PodState,
    kind: Kind,
    container: &Container,
    ended: bool,
    now: Timestamp,
) -> Option<ContainerStateWaiting> {
    let seen = state.container(&container.name);
    if seen.running().is_some() {
        return None;
    }
    let because = |reason: &str, message: Option<String>| {
        Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message })
    };
    let over = ended || state.termination.is_some();
    if let Life::Exited(exit) = &seen.life {
        let again = pod::container_restart_policy(pod, kind).restarts(exit.code) && !over;
        let delay = plan::held_back(seen, now).filter(|_| again).and_then(|(_, delay)| delay);
        if let Some(delay) = delay {
            let text = format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                go_duration(delay),
                container.name,
                pod::name(pod),
                pod::namespace(pod),
                pod::uid(pod)
            );
            return because("CrashLoopBackOff", Some(text));
        }
        if seen.trouble.is_none() || over {
            return None;
        }
    }
    match &seen.trouble {
        Some(trouble) => because(&trouble.reason, Some(trouble.message.clone())),
        None if !plan::initialized(pod, state) && !matches!(seen.life, Life::Starting) => {
            because("PodInitializing", None)
        }
        None => because("ContainerCreating", None),
    }
}

/// A whole number of seconds as Go prints a duration: `10s`, `2m40s`.
fn go_duration(delay: std::time::Duration) -> String {
    let seconds = delay.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// The container id with the runtime's scheme in front.
pub(crate) fn container_id(id: &str) -> String {
    format!("mesh://{id}")
}

fn terminated(exit: &Exit) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(exit.reason.clone()),
        message: (!exit.message.is_empty()).then(|| exit.message.clone()),
        started_at: Some(Time(exit.started_at)),
        finished_at: Some(Time(exit.finished_at)),
        container_id: Some(container_id(&exit.id)),
        signal: None,
    }
}

fn conditions(
    pod: &Pod,
    state: &PodState,
    previous: &PodStatus,
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let unready = unready(pod, state);
    let waiting_inits: Vec<&str> = if plan::initialized(pod, state) {
        Vec::new()
    } else {
        pod::init_containers(pod)
            .filter(|(kind, container)| !init_complete(*kind, state.container(&container.name)))
            .map(|(_, container)| container.name.as_str())
            .collect()
    };
    let containers_ready = verdict(phase, &unready);
    let ready = if containers_ready.0 { gates(pod, previous) } else { containers_ready.clone() };
    let initialized = if waiting_inits.is_empty() {
        (true, if phase == "Succeeded" { "PodCompleted" } else { "" }, String::new())
    } else {
        let message = format!("containers with incomplete status: [{}]", waiting_inits.join(" "));
        (false, "ContainersNotInitialized", message)
    };
    let sandbox = (matches!(state.sandbox, Sandbox::Ready { .. }), "", String::new());
    let ours = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", (true, "", String::new())),
    ];
    let old = previous.conditions.as_deref().unwrap_or_default();
    let mut list: Vec<_> = ours
        .iter()
        .map(|(kind, (status, reason, message))| condition(old, kind, *status, reason, message, pod, now))
        .collect();
    // Conditions of others (readiness gates, disruption) stay as they are.
    list.extend(old.iter().filter(|old| !OWN_CONDITIONS.contains(&old.type_.as_str())).cloned());
    list
}

type Verdict = (bool, &'static str, String);

fn verdict(phase: &str, unready: &[&str]) -> Verdict {
    match phase {
        "Succeeded" => (false, "PodCompleted", String::new()),
        "Failed" => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            (false, "ContainersNotReady", message)
        }
    }
}

fn unready<'a>(pod: &'a Pod, state: &PodState) -> Vec<&'a str> {
    pod::containers(pod)
        .filter(|(kind, container)| *kind != Kind::Init && !is_ready(*kind, state.container(&container.name)))
        .map(|(_, container)| container.name.as_str())
        .collect()
}

fn init_complete(kind: Kind, seen: &ContainerState) -> bool {
    match kind {
        Kind::Init => is_ready(kind, seen),
        _ => seen.is_started(),
    }
}

fn gates(pod: &Pod, previous: &PodStatus) -> Verdict {
    let old = previous.conditions.as_deref().unwrap_or_default();
    let gates = pod::spec(pod).and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let closed: Vec<String> = gates
        .iter()
        .filter(|gate| !old.iter().any(|old| old.type_ == gate.condition_type && old.status == "True"))
        .map(|gate| {
            format!(
                "corresponding condition of pod readiness gate \"{}\" is not \"True\"",
                gate.condition_type
            )
        })
        .collect();
    if closed.is_empty() {
        (true, "", String::new())
    } else {
        (false, "ReadinessGatesNotReady", closed.join("; "))
    }
}

fn condition(
    old: &[PodCondition],
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    pod: &Pod,
    now: Timestamp,
) -> PodCondition {
    let status = if status { "True" } else { "False" };
    let before = old.iter().find(|old| old.type_ == kind);
    let unchanged = before.filter(|before| before.status == status);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
        last_transition_time: unchanged
            .and_then(|before| before.last_transition_time.clone())
            .or(Some(Time(now))),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    }
}

#[cfg(test)]
mod tests;
