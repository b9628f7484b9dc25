//! A pod's state on disk, so that a new kubelet process takes up where the old one left off.

use std::fs;
use std::io;
use std::path::Path;

use cluster_containers::{
    ContainerState as RuntimeState, ContainerStatus, Exit as RuntimeExit, Sandbox as RuntimeSandbox,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::IpAddr;

use crate::state::{ContainerState, Exit, Life, PodState, Running, Sandbox};

const FILE: &str = "state.json";

/// Reads the state kept in `pod_dir`; a missing or damaged file is an empty state.
pub(crate) fn load(pod_dir: &Path) -> PodState {
    let path = pod_dir.join(FILE);
    let Ok(bytes) = fs::read(&path) else { return PodState::default() };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "Checkpoint unreadable, starting afresh");
        PodState::default()
    })
}

/// Keeps `state` in `pod_dir`; readers see the old or the new one.
pub(crate) fn save(pod_dir: &Path, state: &PodState) -> io::Result<()> {
    fs::create_dir_all(pod_dir)?;
    let next = pod_dir.join(".state.json");
    fs::write(&next, serde_json::to_vec(state)?)?;
    fs::rename(next, pod_dir.join(FILE))
}

/// Takes over what the API remembers of containers that `state` knows nothing of: the checkpoint was lost, say with the power.
pub(crate) fn recall(state: &mut PodState, pod: &Pod, now: Timestamp) {
    let Some(status) = &pod.status else { return };
    let lists = [&status.init_container_statuses, &status.container_statuses];
    for shown in lists.into_iter().flatten().flatten() {
        let id = shown.container_id.as_deref().and_then(|id| id.rsplit('/').next()).unwrap_or_default();
        if id.is_empty() || state.containers.contains_key(&shown.name) {
            continue;
        }
        let now_or = |time: &Option<Time>| time.as_ref().map_or(now, |time| time.0);
        let current = shown.state.clone().unwrap_or_default();
        let before = shown.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let exit = match (current.terminated.as_ref(), current.running) {
            (None, Some(running)) => lost(
                Running { id: id.to_owned(), started_at: now_or(&running.started_at), hooked: true },
                now,
            ),
            (ended, _) => match ended.or(before) {
                Some(ended) => Exit {
                    id: id.to_owned(),
                    code: ended.exit_code,
                    reason: ended.reason.clone().unwrap_or_default(),
                    message: ended.message.clone().unwrap_or_default(),
                    started_at: now_or(&ended.started_at),
                    finished_at: now_or(&ended.finished_at),
                },
                None => continue,
            },
        };
        let seen = state.container_mut(&shown.name);
        seen.attempt = u32::try_from(shown.restart_count).unwrap_or(0);
        seen.image_id.clone_from(&shown.image_id);
        seen.life = Life::Exited(exit);
    }
}

/// Corrects a loaded state by what is really there: the sandbox with its address, and the containers of the pod.
pub(crate) fn reconcile(
    state: &mut PodState,
    sandbox: Option<(&RuntimeSandbox, Option<IpAddr>)>,
    containers: &[ContainerStatus],
    now: Timestamp,
) {
    state.sandbox = match (sandbox, &state.sandbox) {
        (Some((_, Some(ip))), _) => Sandbox::Ready { ip },
        // Without an address it is of no use; setting up again keeps what is there.
        (_, Sandbox::Gone) if sandbox.is_none() => Sandbox::Gone,
        _ => Sandbox::Absent,
    };
    if matches!(state.sandbox, Sandbox::Ready { .. }) && state.epoch == 0 {
        state.epoch = 1;
    }
    let epoch = state.epoch;
    for status in containers {
        let seen = state.container_mut(&status.name);
        let newest =
            containers.iter().filter(|other| other.name == status.name).map(|other| other.attempt).max();
        if newest != Some(status.attempt) || seen.is_past(status) {
            continue;
        }
        adopt(seen, status, epoch, now);
    }
    for (name, seen) in &mut state.containers {
        let known =
            containers.iter().any(|status| seen.id() == Some(status.id.as_str()) && status.name == *name);
        if known {
            continue;
        }
        match std::mem::take(&mut seen.life) {
            Life::Running(running) | Life::Stopping(running) => seen.life = Life::Exited(lost(running, now)),
            Life::Starting => {}
            life => seen.life = life,
        }
    }
}

fn adopt(seen: &mut ContainerState, status: &ContainerStatus, epoch: u32, now: Timestamp) {
    let id = status.id.to_string();
    let same = seen.id() == Some(id.as_str());
    if !same {
        // Started by the old process after its last checkpoint.
        seen.last = seen.exit().cloned();
        seen.attempt = status.attempt;
        seen.epoch = epoch;
        seen.image_id.clone_from(&status.image_id);
        seen.probes = crate::state::ProbeResults::default();
    }
    let hooked = seen.running().is_some_and(|running| running.hooked) && same;
    seen.life = match &status.state {
        RuntimeState::Running { started_at, .. } => {
            seen.trouble = None;
            Life::Running(Running { id, started_at: *started_at, hooked })
        }
        RuntimeState::Exited(exit) => match &seen.life {
            Life::Exited(known) if known.id == id => Life::Exited(known.clone()),
            _ => Life::Exited(exit_of(id, exit)),
        },
        RuntimeState::Created if same => Life::Exited(lost(Running { id, started_at: now, hooked }, now)),
        RuntimeState::Created => Life::Waiting,
    };
}

/// The runtime's report of an end, as the pod's state keeps it.
pub(crate) fn exit_of(id: String, exit: &RuntimeExit) -> Exit {
    Exit {
        id,
        code: exit.code,
        reason: exit.reason.clone(),
        message: exit.message.clone(),
        started_at: exit.started_at.unwrap_or(exit.finished_at),
        finished_at: exit.finished_at,
    }
}

/// The end of an instance that nobody saw end (Kubernetes' words for it).
pub(crate) fn lost(running: Running, now: Timestamp) -> Exit {
    Exit {
        id: running.id,
        code: 137,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "The container could not be located when the pod was restarted".to_owned(),
        started_at: running.started_at,
        finished_at: now,
    }
}

// === impl ContainerState ===

impl ContainerState {
    /// Whether `status` is of an instance before the current one.
    fn is_past(&self, status: &ContainerStatus) -> bool {
        self.id().is_some() && status.attempt < self.attempt
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cluster_containers::{ContainerId, SandboxSpec};

    use super::*;
    use crate::state::ProbeResults;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(name: &str, attempt: u32, id: &str, state: RuntimeState) -> ContainerStatus {
        ContainerStatus {
            id: ContainerId::parse(id).unwrap(),
            pod_uid: "u".into(),
            name: name.into(),
            attempt,
            image: "i".into(),
            image_id: "sha256:1".into(),
            created_at: at(1),
            state,
            log_path: "/l".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn running_state(id: &str) -> PodState {
        let mut state = PodState { epoch: 1, ..PodState::default() };
        *state.container_mut("a") = ContainerState {
            life: Life::Running(Running { id: id.into(), started_at: at(1), hooked: true }),
            epoch: 1,
            probes: ProbeResults { startup: true, readiness: true },
            ..ContainerState::default()
        };
        state
    }

    fn sandbox() -> RuntimeSandbox {
        RuntimeSandbox { spec: SandboxSpec::default(), created_at: at(0) }
    }

    #[test]
    fn a_running_container_keeps_its_readiness() {
        let mut state = running_state("aa");
        let running = status("a", 0, "aa", RuntimeState::Running { pid: 1, started_at: at(1) });
        let before = state.container("a").clone();
        let ip = Some("10.0.0.1".parse().unwrap());
        reconcile(&mut state, Some((&sandbox(), ip)), &[running], at(9));
        assert_eq!(state.container("a"), &before);
        assert_eq!(state.ip(), ip);
    }

    #[test]
    fn a_container_that_ended_meanwhile_has_ended() {
        let mut state = running_state("aa");
        let exit = RuntimeExit {
            code: 3,
            signal: None,
            oom_killed: false,
            reason: "Error".into(),
            message: String::new(),
            started_at: Some(at(1)),
            finished_at: at(5),
        };
        reconcile(
            &mut state,
            Some((&sandbox(), None)),
            &[status("a", 0, "aa", RuntimeState::Exited(exit))],
            at(9),
        );
        assert!(matches!(&state.container("a").life, Life::Exited(exit) if exit.code == 3));
        assert_eq!(state.sandbox, Sandbox::Absent);
    }

    #[test]
    fn after_a_reboot_everything_is_lost_and_said_so() {
        let mut state = running_state("aa");
        reconcile(&mut state, None, &[], at(9));
        assert!(
            matches!(&state.container("a").life, Life::Exited(exit) if exit.reason == "ContainerStatusUnknown")
        );
    }

    #[test]
    fn an_instance_younger_than_the_checkpoint_is_adopted() {
        let mut state = running_state("aa");
        let old = status("a", 0, "aa", RuntimeState::Running { pid: 1, started_at: at(1) });
        let new = status("a", 1, "bb", RuntimeState::Running { pid: 2, started_at: at(7) });
        reconcile(&mut state, Some((&sandbox(), None)), &[old, new], at(9));
        let seen = state.container("a");
        assert_eq!((seen.attempt, seen.id()), (1, Some("bb")));
        assert!(!seen.probes.readiness);
    }

    #[test]
    fn without_a_checkpoint_the_api_remembers() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"containers": []}, "status": {
            "initContainerStatuses": [{"name": "i", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": "mesh://aa", "state": {"terminated": {"exitCode": 0, "finishedAt": "2026-11-21T01:00:00Z"}}}],
            "containerStatuses": [
                {"name": "a", "image": "x", "imageID": "", "ready": true, "restartCount": 4, "containerID": "mesh://bb",
                    "state": {"running": {"startedAt": "2026-11-21T01:00:00Z"}}},
                {"name": "b", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {}}}]}}))
        .unwrap();
        let mut state = PodState::default();
        recall(&mut state, &pod, at(9));
        assert!(
            matches!(&state.container("i").life, Life::Exited(exit) if exit.code == 0 && exit.id == "aa")
        );
        let a = state.container("a");
        assert!(matches!(&a.life, Life::Exited(exit) if exit.reason == "ContainerStatusUnknown"));
        assert_eq!((a.attempt, &state.container("b").life), (4, &Life::Waiting));
    }

    #[test]
    fn checkpoints_survive_a_round_trip() {
        let directory = std::env::temp_dir().join(format!("kubelet-checkpoint-{}", std::process::id()));
        let state = running_state("aa");
        save(&directory, &state).unwrap();
        assert_eq!(load(&directory), state);
        fs::write(directory.join(FILE), "{").unwrap();
        assert_eq!(load(&directory), PodState::default());
        fs::remove_dir_all(directory).unwrap();
    }
}
