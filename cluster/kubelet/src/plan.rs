//! The pod's state machine as one pure function: object × what is known × now → what to do next.
//!
//! Order of a start: sandbox and volumes → init containers one by one (a sidecar counts as done when it has started) →
//! main containers together. Order of an end: main containers beside sidecars' `preStop` hooks, then sidecars in reverse, then the
//! sandbox, then the object. A pod of the mesh that is deleted first waits until its clients have let go of it, then for its sidecars'
//! hooks; both have bounds.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::backoff::{self, after, until};
use crate::pod::{self, Kind, RestartPolicy};
use crate::state::{ContainerState, Life, PodState, PreStop, Sandbox, Termination, TerminationReason};

/// How long a pod of the mesh is left alone until its clients' sidecars have let go of it, and how long its own sidecar's hook may then
/// take to let what is under way end, both since the deletion. Half of the grace period is the application's in any case.
const RELEASE_MAX: Duration = Duration::from_secs(5);
const DEPARTURE_MAX: Duration = Duration::from_secs(11);

/// What a sidecar still gets when the main containers used up the grace period (Kubernetes' minimum).
const GRACE_MIN: Duration = Duration::from_secs(2);

/// One thing for the pod's worker to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make volumes, network and namespaces.
    SetUp,
    /// Start the next instance of a container.
    Start { container: String },
    /// Run a sidecar's `preStop` hook, ahead of its turn to stop.
    PreStop { container: String, grace: Duration },
    /// Stop a container: hook, SIGTERM, and SIGKILL after `grace`.
    Stop { container: String, grace: Duration },
    /// Take down namespaces, network and volumes.
    TearDown,
    /// Remove the object from the API: nothing of the pod is left.
    Finish,
}

/// What to do now, and when to look again at the latest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) wake_at: Option<Timestamp>,
}

/// How a pod whose containers are done has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
}

/// Decides the next steps of a pod.
pub(crate) fn plan(pod: &Pod, state: &PodState, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if let Some(termination) = &state.termination {
        shut_down(pod, state, Some(termination.deadline), now, &mut plan);
        return plan;
    }
    if outcome(pod, state).is_some() {
        shut_down(pod, state, None, now, &mut plan);
        return plan;
    }
    if let Some(deadline) = active_deadline(pod, state) {
        plan.wake_by(deadline);
    }
    match &state.sandbox {
        Sandbox::Absent | Sandbox::Gone => plan.actions.push(Action::SetUp),
        Sandbox::Failed { retry_at, .. } if *retry_at <= now => plan.actions.push(Action::SetUp),
        Sandbox::Failed { retry_at, .. } => plan.wake_by(*retry_at),
        Sandbox::SettingUp | Sandbox::TearingDown => {}
        Sandbox::Ready { .. } => run(pod, state, now, &mut plan),
    }
    plan
}

/// The termination in force, given what the API says: a later request may only shorten the deadline.
pub(crate) fn termination(
    pod: &Pod,
    vanished: bool,
    state: &PodState,
    now: Timestamp,
) -> Option<Termination> {
    let wanted = if vanished {
        Some(Termination { reason: TerminationReason::Vanished, deadline: after(now, GRACE_MIN) })
    } else if let Some(deletion) = pod::deletion(pod) {
        let grace = pod.metadata.deletion_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
        // The API writes whole seconds: what it cut off is not taken from the grace period.
        let latest = after(deletion, Duration::from_secs(1));
        let deadline = after(now, grace.map_or_else(|| pod::grace(pod), Duration::from_secs)).min(latest);
        Some(Termination { reason: TerminationReason::Deleted, deadline })
    } else if active_deadline(pod, state).is_some_and(|deadline| deadline <= now)
        && outcome(pod, state).is_none()
    {
        let deadline = after(now, pod::grace(pod));
        Some(Termination { reason: TerminationReason::DeadlineExceeded, deadline })
    } else {
        None
    };
    match (&state.termination, wanted) {
        (Some(current), Some(wanted)) => Some(Termination {
            // A deadline overrun stays the reason of the pod's end even when it is deleted afterwards.
            reason: if current.reason == TerminationReason::DeadlineExceeded {
                current.reason
            } else {
                wanted.reason
            },
            deadline: current.deadline.min(wanted.deadline),
        }),
        (current, wanted) => wanted.or_else(|| current.clone()),
    }
}

/// How the pod ended, when no container of it will run again; `None` while it lives.
pub(crate) fn outcome(pod: &Pod, state: &PodState) -> Option<Outcome> {
    match pod::recorded_end(pod) {
        Some("Succeeded") => return Some(Outcome::Succeeded),
        Some(_) => return Some(Outcome::Failed),
        None => {}
    }
    let policy = pod::restart_policy(pod);
    let init_failed = policy == RestartPolicy::Never
        && pod::init_containers(pod).any(|(kind, container)| {
            kind == Kind::Init
                && matches!(&state.container(&container.name).life, Life::Exited(exit) if exit.code != 0)
        });
    if init_failed {
        return Some(Outcome::Failed);
    }
    let mut all_succeeded = true;
    for container in pod::app_containers(pod) {
        match &state.container(&container.name).life {
            Life::Exited(exit) if !policy.restarts(exit.code) => all_succeeded &= exit.code == 0,
            _ => return None,
        }
    }
    Some(if all_succeeded { Outcome::Succeeded } else { Outcome::Failed })
}

/// Until when a container that wants to start must wait, and the crash back-off that says so.
pub(crate) fn held_back(container: &ContainerState, now: Timestamp) -> Option<(Timestamp, Option<Duration>)> {
    if let Some(trouble) = &container.trouble {
        return (now < trouble.retry_at).then_some((trouble.retry_at, None));
    }
    let Life::Exited(exit) = &container.life else { return None };
    backoff::blocked(container.backoff.as_ref(), exit.finished_at, now)
        .map(|(until, delay)| (until, Some(delay)))
}

/// Whether every init container of the current sandbox is done, so that main containers may run.
pub(crate) fn initialized(pod: &Pod, state: &PodState) -> bool {
    apps_reached(pod, state)
        || pod::init_containers(pod).all(|(kind, container)| init_done(state, kind, container))
}

fn init_done(state: &PodState, kind: Kind, container: &Container) -> bool {
    let seen = state.container(&container.name);
    seen.epoch == state.epoch
        && match kind {
            Kind::Sidecar => seen.is_started(),
            _ => matches!(&seen.life, Life::Exited(exit) if exit.code == 0),
        }
}

/// Whether a main container has been started in the current sandbox.
fn apps_reached(pod: &Pod, state: &PodState) -> bool {
    pod::app_containers(pod).any(|container| ran_here(state, &container.name))
}

fn ran_here(state: &PodState, name: &str) -> bool {
    let seen = state.container(name);
    state.epoch > 0 && seen.epoch == state.epoch && (seen.life != Life::Waiting || seen.last.is_some())
}

fn active_deadline(pod: &Pod, state: &PodState) -> Option<Timestamp> {
    let seconds = u64::try_from(pod::spec(pod)?.active_deadline_seconds?).ok()?;
    Some(after(state.start_time?, Duration::from_secs(seconds)))
}

fn run(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    for (_, container) in pod::containers(pod) {
        let seen = state.container(&container.name);
        if let (Some(grace), Life::Running(_)) = (seen.unhealthy, &seen.life) {
            plan.actions.push(Action::Stop { container: container.name.clone(), grace });
        }
    }
    let inits: Vec<_> = pod::init_containers(pod).collect();
    // Everything before the furthest container that ran is past its gate; sidecars there only need to be kept alive.
    let reached = if apps_reached(pod, state) {
        inits.len()
    } else {
        inits.iter().rposition(|(_, container)| ran_here(state, &container.name)).unwrap_or(0)
    };
    for (index, (kind, container)) in inits.into_iter().enumerate() {
        let passed = index < reached;
        if passed && kind == Kind::Init || init_done(state, kind, container) {
            continue;
        }
        start(state, container, now, plan);
        if !passed {
            return;
        }
    }
    let policy = pod::restart_policy(pod);
    for container in pod::app_containers(pod) {
        match &state.container(&container.name).life {
            Life::Exited(exit) if !policy.restarts(exit.code) => {}
            _ => start(state, container, now, plan),
        }
    }
}

fn start(state: &PodState, container: &Container, now: Timestamp, plan: &mut Plan) {
    let seen = state.container(&container.name);
    if seen.is_alive() {
        return;
    }
    match held_back(seen, now) {
        Some((until, _)) => plan.wake_by(until),
        None => plan.actions.push(Action::Start { container: container.name.clone() }),
    }
}

fn shut_down(pod: &Pod, state: &PodState, deadline: Option<Timestamp>, now: Timestamp, plan: &mut Plan) {
    let grace = deadline.map_or_else(|| pod::grace(pod), |deadline| until(deadline, now));
    match departure(pod, state, now) {
        Departure::Held { until } => return plan.wake_by(until),
        Departure::Draining { until } => {
            for (_, container) in pod::init_containers(pod).filter(|(kind, _)| *kind == Kind::Sidecar) {
                pre_stop(state, container, grace, plan);
            }
            return plan.wake_by(until);
        }
        Departure::Free => {}
    }
    let mut alive = false;
    for (kind, container) in pod::containers(pod) {
        if kind == Kind::Sidecar {
            pre_stop(state, container, grace, plan);
        } else {
            alive |= stop(state, &container.name, grace, plan);
        }
    }
    if alive {
        return;
    }
    for (kind, container) in pod::init_containers(pod).rev() {
        if kind != Kind::Sidecar {
            continue;
        }
        if state.container(&container.name).pre_stop == PreStop::Running && !grace.is_zero() {
            // Its turn comes when its hook returns, or when time is up.
            deadline.into_iter().for_each(|deadline| plan.wake_by(deadline));
            return;
        }
        if stop(state, &container.name, grace.max(GRACE_MIN), plan) {
            return;
        }
    }
    match state.sandbox {
        Sandbox::SettingUp | Sandbox::TearingDown => {}
        Sandbox::Gone if pod::deletion(pod).is_some() => plan.actions.push(Action::Finish),
        Sandbox::Gone => {}
        Sandbox::Failed { retry_at, .. } if now < retry_at => plan.wake_by(retry_at),
        _ => plan.actions.push(Action::TearDown),
    }
}

/// What a pod that is deleted waits for before its main containers are stopped.
#[derive(Debug, PartialEq, Eq)]
enum Departure {
    /// Its clients may still send requests.
    Held { until: Timestamp },
    /// Its sidecars let end what is under way.
    Draining { until: Timestamp },
    /// Nothing.
    Free,
}

fn departure(pod: &Pod, state: &PodState, now: Timestamp) -> Departure {
    let deleted = matches!(&state.termination, Some(it) if it.reason == TerminationReason::Deleted);
    let runs = |container: &Container| matches!(state.container(&container.name).life, Life::Running(_));
    if !deleted || !pod::in_mesh(pod) || !pod::app_containers(pod).any(runs) {
        return Departure::Free;
    }
    let Some((asked, grace)) = pod::deletion_asked(pod) else { return Departure::Free };
    let held = after(asked, RELEASE_MAX.min(grace / 4));
    if !pod::released_by_clients(pod) && now < held {
        return Departure::Held { until: held };
    }
    let drained = after(asked, DEPARTURE_MAX.min(grace / 2));
    let hook_is_due = |container: &Container| {
        let hooked = container.lifecycle.as_ref().is_some_and(|it| it.pre_stop.is_some());
        hooked && runs(container) && state.container(&container.name).pre_stop != PreStop::Done
    };
    let due = pod::init_containers(pod).any(|(kind, it)| kind == Kind::Sidecar && hook_is_due(it));
    if due && now < drained { Departure::Draining { until: drained } } else { Departure::Free }
}

/// Plans the hook of a sidecar at the beginning of its pod's end, as Kubernetes does: draining takes place while the main containers stop.
fn pre_stop(state: &PodState, container: &Container, grace: Duration, plan: &mut Plan) {
    let seen = state.container(&container.name);
    let hooks = container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
    if hooks && seen.pre_stop == PreStop::NotRun && matches!(seen.life, Life::Running(_)) && !grace.is_zero()
    {
        plan.actions.push(Action::PreStop { container: container.name.clone(), grace });
    }
}

/// Plans to stop a live container; true while it lives.
fn stop(state: &PodState, name: &str, grace: Duration, plan: &mut Plan) -> bool {
    let seen = state.container(name);
    if matches!(seen.life, Life::Running(_)) {
        plan.actions.push(Action::Stop { container: name.to_owned(), grace });
    }
    seen.is_alive()
}

// === impl Plan ===

impl Plan {
    fn wake_by(&mut self, time: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(time, |earlier| earlier.min(time)));
    }
}

#[cfg(test)]
mod tests;
