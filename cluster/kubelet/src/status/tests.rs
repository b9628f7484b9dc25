//! Phases, conditions and container states as people see them.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::backoff::Backoff;
use crate::state::{ProbeResults, Running, Termination, Trouble};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(restart: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "1-2-3"},
        "spec": {
            "restartPolicy": restart,
            "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "migrate"}],
            "containers": [{"name": "a", "image": "img"}],
        },
    }))
    .unwrap()
}

fn exit(code: i32, reason: &str) -> Exit {
    Exit {
        id: "c0".into(),
        code,
        reason: reason.into(),
        message: String::new(),
        started_at: at(1),
        finished_at: at(5),
    }
}

fn container(life: Life) -> ContainerState {
    let probes = ProbeResults { startup: true, readiness: true };
    ContainerState { life, epoch: 1, probes, ..ContainerState::default() }
}

fn running() -> ContainerState {
    container(Life::Running(Running { id: "c1".into(), started_at: at(2), hooked: true }))
}

fn healthy() -> PodState {
    let mut state = PodState {
        epoch: 1,
        sandbox: Sandbox::Ready { ip: "10.244.1.2".parse().unwrap() },
        start_time: Some(at(0)),
        ..PodState::default()
    };
    state.containers.insert("proxy".into(), running());
    state.containers.insert("migrate".into(), container(Life::Exited(exit(0, "Completed"))));
    state.containers.insert("a".into(), running());
    state
}

fn shown(pod: &Pod, state: &PodState, previous: &PodStatus, now: Timestamp) -> PodStatus {
    compute(pod, state, previous, "172.30.0.11".parse().unwrap(), now)
}

fn condition_of<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap()
}

fn waiting_of(status: &PodStatus) -> (String, Option<String>) {
    let state = status.container_statuses.as_ref().unwrap()[0].state.clone().unwrap();
    let waiting = state.waiting.unwrap();
    (waiting.reason.unwrap(), waiting.message)
}

#[test]
fn a_healthy_pod_is_running_and_ready() {
    let status = shown(&pod("Always"), &healthy(), &PodStatus::default(), at(9));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.2"));
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition_of(&status, kind).status, "True", "{kind}");
    }
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let again = shown(&pod("Always"), &healthy(), &status, at(99));
    assert_eq!(again, status, "nothing changed, so no new transition time");
}

#[test]
fn a_new_pod_is_pending_and_says_what_it_waits_for() {
    let mut state = healthy();
    state.containers.clear();
    state.container_mut("proxy").life = Life::Starting;
    let status = shown(&pod("Always"), &state, &PodStatus::default(), at(9));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting_of(&status).0, "PodInitializing");
    let initialized = condition_of(&status, "Initialized");
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [proxy migrate]"));
    assert_eq!(condition_of(&status, "Ready").reason.as_deref(), Some("ContainersNotReady"));
}

#[test]
fn a_crash_loop_has_kubernetes_words() {
    let mut state = healthy();
    let crashed = state.container_mut("a");
    *crashed = container(Life::Exited(exit(1, "Error")));
    crashed.attempt = 3;
    crashed.backoff = Some(Backoff { delay: Duration::from_secs(10), updated: at(1) });
    let status = shown(&pod("Always"), &state, &PodStatus::default(), at(9));
    assert_eq!(
        waiting_of(&status),
        (
            "CrashLoopBackOff".into(),
            Some("back-off 10s restarting failed container=a pod=web_shop(1-2-3)".into())
        )
    );
    let shown_container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(shown_container.restart_count, 3);
    let last = shown_container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition_of(&status, "Ready").status, "False");
}

#[test]
fn trouble_shows_as_waiting() {
    let mut state = healthy();
    *state.container_mut("a") = ContainerState {
        trouble: Some(Trouble { reason: "ImagePullBackOff".into(), message: "m".into(), retry_at: at(99) }),
        ..ContainerState::default()
    };
    let status = shown(&pod("Always"), &state, &PodStatus::default(), at(9));
    assert_eq!(waiting_of(&status), ("ImagePullBackOff".into(), Some("m".into())));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn ends_are_terminal() {
    let mut state = healthy();
    *state.container_mut("a") = container(Life::Exited(exit(0, "Completed")));
    let status = shown(&pod("Never"), &state, &PodStatus::default(), at(9));
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(condition_of(&status, "Ready").reason.as_deref(), Some("PodCompleted"));
    let shown_state = status.container_statuses.as_ref().unwrap()[0].state.clone().unwrap();
    assert_eq!(shown_state.terminated.unwrap().reason.as_deref(), Some("Completed"));

    *state.container_mut("a") = container(Life::Exited(exit(137, "OOMKilled")));
    let status = shown(&pod("Never"), &state, &PodStatus::default(), at(9));
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_deadline_overrun_says_so() {
    let mut pod = pod("Always");
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(3);
    let mut state = healthy();
    state.termination = Some(Termination { reason: TerminationReason::DeadlineExceeded, deadline: at(10) });
    let status = shown(&pod, &state, &PodStatus::default(), at(4));
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    for name in ["proxy", "a"] {
        *state.container_mut(name) = container(Life::Exited(exit(0, "Completed")));
    }
    assert_eq!(shown(&pod, &state, &status, at(9)).phase.as_deref(), Some("Failed"));
}

#[test]
fn readiness_gates_and_foreign_conditions_are_kept() {
    let mut pod = pod("Always");
    pod.spec.as_mut().unwrap().readiness_gates =
        serde_json::from_value(json!([{"conditionType": "example.com/live"}])).unwrap();
    let closed = shown(&pod, &healthy(), &PodStatus::default(), at(9));
    assert_eq!(condition_of(&closed, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
    let open = PodStatus {
        conditions: serde_json::from_value(json!([{"type": "example.com/live", "status": "True"}])).unwrap(),
        ..PodStatus::default()
    };
    let status = shown(&pod, &healthy(), &open, at(9));
    assert_eq!(condition_of(&status, "Ready").status, "True");
    assert_eq!(condition_of(&status, "example.com/live").status, "True");
}
