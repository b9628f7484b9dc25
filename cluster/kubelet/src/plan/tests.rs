//! The state machine, driven by hand-made states.

use serde_json::json;

use super::*;
use crate::state::{Exit, ProbeResults, Running};

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec}))
        .unwrap()
}

fn web() -> Pod {
    pod(json!({
        "initContainers": [
            {"name": "proxy", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}},
            {"name": "migrate"},
        ],
        "containers": [{"name": "a"}, {"name": "b"}],
    }))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ready_sandbox() -> PodState {
    PodState {
        epoch: 1,
        sandbox: Sandbox::Ready { ip: "10.0.0.1".parse().unwrap() },
        start_time: Some(at(0)),
        ..PodState::default()
    }
}

fn running(started: bool) -> ContainerState {
    ContainerState {
        life: Life::Running(Running { id: "x".into(), started_at: at(1), hooked: true }),
        epoch: 1,
        probes: ProbeResults { startup: started, readiness: started },
        ..ContainerState::default()
    }
}

fn exited(code: i32, second: i64) -> ContainerState {
    ContainerState {
        life: Life::Exited(Exit {
            id: "x".into(),
            code,
            reason: "Error".into(),
            message: String::new(),
            started_at: at(1),
            finished_at: at(second),
        }),
        epoch: 1,
        ..ContainerState::default()
    }
}

fn starts(plan: &Plan) -> Vec<&str> {
    plan.actions
        .iter()
        .filter_map(|action| match action {
            Action::Start { container } => Some(container.as_str()),
            _ => None,
        })
        .collect()
}

fn stops(plan: &Plan) -> Vec<&str> {
    plan.actions
        .iter()
        .filter_map(|action| match action {
            Action::Stop { container, .. } => Some(container.as_str()),
            _ => None,
        })
        .collect()
}

fn set(state: &mut PodState, name: &str, container: ContainerState) {
    state.containers.insert(name.into(), container);
}

#[test]
fn a_pod_starts_in_order() {
    let pod = web();
    assert_eq!(plan(&pod, &PodState::default(), at(1)).actions, [Action::SetUp]);
    let mut state = ready_sandbox();
    assert_eq!(starts(&plan(&pod, &state, at(1))), ["proxy"]);
    set(&mut state, "proxy", running(false));
    assert_eq!(plan(&pod, &state, at(1)).actions, [], "the startup probe gates the next container");
    set(&mut state, "proxy", running(true));
    assert_eq!(starts(&plan(&pod, &state, at(1))), ["migrate"]);
    set(&mut state, "migrate", running(false));
    assert_eq!(starts(&plan(&pod, &state, at(1))), Vec::<&str>::new());
    set(&mut state, "migrate", exited(0, 2));
    assert_eq!(starts(&plan(&pod, &state, at(2))), ["a", "b"]);
    assert!(initialized(&pod, &state));
}

#[test]
fn a_dead_sidecar_comes_back_without_holding_the_main_containers() {
    let pod = web();
    let mut state = ready_sandbox();
    set(&mut state, "proxy", exited(0, 2));
    set(&mut state, "migrate", exited(0, 2));
    set(&mut state, "a", running(true));
    set(&mut state, "b", exited(1, 3));
    assert_eq!(starts(&plan(&pod, &state, at(3))), ["proxy", "b"]);
    assert!(initialized(&pod, &state), "initialisation is not undone by a sidecar's restart");
}

#[test]
fn a_crashing_container_waits_for_its_back_off() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut state = ready_sandbox();
    let mut crashed = exited(1, 10);
    crashed.backoff = Some(backoff::advance(None, at(9), at(9)));
    set(&mut state, "a", crashed);
    let waiting = plan(&pod, &state, at(11));
    assert_eq!((waiting.actions.len(), waiting.wake_at), (0, Some(at(20))));
    assert_eq!(starts(&plan(&pod, &state, at(20))), ["a"]);
}

#[test]
fn restart_policies_decide_the_outcome() {
    for (policy, code, expected) in [
        ("Always", 0, None),
        ("OnFailure", 0, Some(Outcome::Succeeded)),
        ("OnFailure", 1, None),
        ("Never", 0, Some(Outcome::Succeeded)),
        ("Never", 1, Some(Outcome::Failed)),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let mut state = ready_sandbox();
        set(&mut state, "a", exited(code, 2));
        assert_eq!(outcome(&pod, &state), expected, "{policy} {code}");
    }
}

#[test]
fn a_finished_job_stops_its_sidecar_and_then_its_sandbox() {
    let mut pod = web();
    pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let mut state = ready_sandbox();
    set(&mut state, "proxy", running(true));
    set(&mut state, "migrate", exited(0, 2));
    set(&mut state, "a", exited(0, 3));
    set(&mut state, "b", exited(0, 3));
    assert_eq!(stops(&plan(&pod, &state, at(4))), ["proxy"]);
    set(&mut state, "proxy", exited(143, 5));
    assert_eq!(plan(&pod, &state, at(5)).actions, [Action::TearDown]);
    state.sandbox = Sandbox::Gone;
    assert_eq!(plan(&pod, &state, at(5)).actions, [], "the object stays until somebody deletes it");
}

#[test]
fn deletion_stops_main_containers_first_and_sidecars_in_reverse() {
    let mut pod = pod(json!({
        "initContainers": [
            {"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "a"}, {"name": "b"}],
    }));
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(40)));
    pod.metadata.deletion_grace_period_seconds = Some(30);
    let mut state = ready_sandbox();
    for name in ["s1", "s2", "a", "b"] {
        set(&mut state, name, running(true));
    }
    state.termination = termination(&pod, false, &state, at(10));
    assert_eq!(state.termination.as_ref().unwrap().deadline, at(40));
    let first = plan(&pod, &state, at(12));
    assert_eq!(stops(&first), ["a", "b"]);
    assert!(matches!(first.actions[0], Action::Stop { grace, .. } if grace == Duration::from_secs(28)));
    set(&mut state, "a", exited(0, 13));
    let Life::Running(live) = running(true).life else { unreachable!() };
    state.container_mut("b").life = Life::Stopping(live);
    assert_eq!(plan(&pod, &state, at(13)).actions, [], "sidecars outlive the last main container");
    set(&mut state, "b", exited(137, 40));
    let last = plan(&pod, &state, at(40));
    assert_eq!(stops(&last), ["s2"]);
    assert!(matches!(last.actions[0], Action::Stop { grace, .. } if grace == GRACE_MIN));
    set(&mut state, "s2", exited(0, 41));
    assert_eq!(stops(&plan(&pod, &state, at(41))), ["s1"]);
    set(&mut state, "s1", exited(0, 41));
    assert_eq!(plan(&pod, &state, at(41)).actions, [Action::TearDown]);
    state.sandbox = Sandbox::Gone;
    assert_eq!(plan(&pod, &state, at(41)).actions, [Action::Finish]);
}

#[test]
fn a_sidecars_hook_runs_beside_the_end_of_the_main_containers() {
    let mut pod = pod(json!({
        "initContainers": [{"name": "proxy", "restartPolicy": "Always", "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}],
        "containers": [{"name": "a"}],
    }));
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(40)));
    let mut state = ready_sandbox();
    set(&mut state, "proxy", running(true));
    set(&mut state, "a", running(true));
    state.termination = termination(&pod, false, &state, at(10));
    let first = plan(&pod, &state, at(10));
    assert!(matches!(&first.actions[0], Action::PreStop { container, .. } if container == "proxy"));
    assert_eq!(stops(&first), ["a"]);
    state.container_mut("proxy").pre_stop = PreStop::Running;
    set(&mut state, "a", exited(0, 11));
    let waiting = plan(&pod, &state, at(12));
    assert_eq!((waiting.actions.len(), waiting.wake_at), (0, Some(at(40))));
    assert_eq!(stops(&plan(&pod, &state, at(40))), ["proxy"], "a hook that hangs does not hold up the end");
    state.container_mut("proxy").pre_stop = PreStop::Done;
    assert_eq!(stops(&plan(&pod, &state, at(13))), ["proxy"]);
}

#[test]
fn a_second_deletion_only_shortens_the_deadline() {
    let mut pod = web();
    let mut state = ready_sandbox();
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(20)));
    state.termination = termination(&pod, false, &state, at(10));
    assert_eq!(
        state.termination.as_ref().unwrap().deadline,
        at(21),
        "the API's time, and what it rounded off"
    );
    let vanished = termination(&pod, true, &state, at(12)).unwrap();
    assert_eq!((vanished.deadline, vanished.reason), (at(14), TerminationReason::Vanished));
    state.termination = Some(vanished);
    assert_eq!(termination(&pod, true, &state, at(13)).unwrap().deadline, at(14));
}

#[test]
fn the_active_deadline_ends_a_pod() {
    let pod = pod(json!({"activeDeadlineSeconds": 5, "containers": [{"name": "a"}]}));
    let mut state = ready_sandbox();
    set(&mut state, "a", running(true));
    assert_eq!(plan(&pod, &state, at(1)).wake_at, Some(at(5)));
    assert_eq!(termination(&pod, false, &state, at(4)), None);
    let ended = termination(&pod, false, &state, at(5)).unwrap();
    assert_eq!(ended.reason, TerminationReason::DeadlineExceeded);
}

#[test]
fn after_a_reboot_init_containers_run_again_and_finished_ones_stay_finished() {
    let mut pod = web();
    pod.spec.as_mut().unwrap().restart_policy = Some("OnFailure".into());
    let mut state = ready_sandbox();
    for name in ["proxy", "a"] {
        set(&mut state, name, exited(137, 2));
    }
    set(&mut state, "migrate", exited(0, 2));
    set(&mut state, "b", exited(0, 2));
    state.sandbox = Sandbox::Absent;
    assert_eq!(plan(&pod, &state, at(9)).actions, [Action::SetUp]);
    state.sandbox = Sandbox::Ready { ip: "10.0.0.1".parse().unwrap() };
    state.epoch = 2;
    assert_eq!(starts(&plan(&pod, &state, at(9))), ["proxy"]);
    let mut proxy = running(true);
    proxy.epoch = 2;
    set(&mut state, "proxy", proxy);
    assert_eq!(starts(&plan(&pod, &state, at(9))), ["migrate"]);
    state.container_mut("migrate").epoch = 2;
    assert_eq!(starts(&plan(&pod, &state, at(9))), ["a"], "b had succeeded");
}

#[test]
fn a_failed_liveness_probe_stops_the_container() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut state = ready_sandbox();
    let mut sick = running(true);
    sick.unhealthy = Some(Duration::from_secs(7));
    set(&mut state, "a", sick);
    assert_eq!(
        plan(&pod, &state, at(9)).actions,
        [Action::Stop { container: "a".into(), grace: Duration::from_secs(7) }]
    );
}

/// A pod of the mesh, deleted at second 100 with so much grace.
fn leaving(grace: i64, released: Option<&str>) -> Pod {
    let mut pod = pod(json!({
        "initContainers": [
            {"name": "proxy", "restartPolicy": "Always", "lifecycle": {"preStop": {"exec": {"command": ["drain"]}}}},
        ],
        "containers": [{"name": "a"}],
    }));
    let mut annotations = json!({"sidecar.istio.io/status": "{}"});
    if let Some(time) = released {
        annotations["meshd.dev/released-by-clients"] = json!(time);
    }
    pod.metadata.annotations = serde_json::from_value(annotations).unwrap();
    pod.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100 + grace)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

#[test]
fn a_pod_of_the_mesh_leaves_when_its_clients_have_let_go() {
    let mut state = ready_sandbox();
    set(&mut state, "proxy", running(true));
    set(&mut state, "a", running(true));
    let ask = |pod: &Pod, state: &mut PodState, now: i64| {
        state.termination = termination(pod, false, state, at(now));
        plan(pod, state, at(now))
    };
    let hooks = |plan: &Plan| plan.actions.iter().any(|it| matches!(it, Action::PreStop { .. }));

    let held = ask(&leaving(30, None), &mut state, 101);
    assert_eq!((held.actions.as_slice(), held.wake_at), (&[][..], Some(at(105))));
    let other = ask(&leaving(30, Some("1970-01-01T00:01:00Z")), &mut state, 101);
    assert!(other.actions.is_empty(), "that was another deletion");

    let pod = leaving(30, Some("1970-01-01T00:02:10Z"));
    let drains = ask(&pod, &mut state, 101);
    assert!(hooks(&drains) && stops(&drains).is_empty());
    state.container_mut("proxy").pre_stop = PreStop::Running;
    let waits = ask(&pod, &mut state, 103);
    assert_eq!((waits.actions.as_slice(), waits.wake_at), (&[][..], Some(at(111))));
    state.container_mut("proxy").pre_stop = PreStop::Done;
    assert_eq!(stops(&ask(&pod, &mut state, 103)), ["a"]);

    state.container_mut("proxy").pre_stop = PreStop::NotRun;
    assert!(hooks(&ask(&leaving(30, None), &mut state, 105)), "nobody answers: on after five seconds");
    state.container_mut("proxy").pre_stop = PreStop::Running;
    assert_eq!(stops(&ask(&leaving(30, None), &mut state, 111)), ["a"], "the hook does not return");
    let mut fresh = state.clone();
    fresh.termination = None;
    assert_eq!(
        stops(&ask(&leaving(4, None), &mut fresh, 102)),
        ["a"],
        "half of the grace is the application's"
    );
    let mut plain = leaving(30, None);
    plain.metadata.annotations = None;
    fresh.termination = None;
    assert_eq!(stops(&ask(&plain, &mut fresh, 101)), ["a"], "a pod without the mesh waits for nobody");
}
