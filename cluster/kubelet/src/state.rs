//! What the kubelet knows of one pod: its sandbox and each container's life. Plain data, written to the pod's checkpoint.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;

/// Everything known of one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodState {
    /// Counts sandboxes made for this pod; containers of an earlier one belong to the past.
    pub(crate) epoch: u32,
    pub(crate) sandbox: Sandbox,
    pub(crate) containers: BTreeMap<String, ContainerState>,
    pub(crate) termination: Option<Termination>,
    /// When this kubelet first took the pod up.
    pub(crate) start_time: Option<Timestamp>,
}

/// The pod's namespaces, address and volumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum Sandbox {
    #[default]
    Absent,
    SettingUp,
    Ready {
        ip: IpAddr,
    },
    Failed {
        message: String,
        retry_at: Timestamp,
    },
    TearingDown,
    /// Taken down for good.
    Gone,
}

/// Why and by when a pod ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Termination {
    pub(crate) reason: TerminationReason,
    /// SIGKILL follows at this time.
    pub(crate) deadline: Timestamp,
}

/// Why a pod ends before its containers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TerminationReason {
    /// The object has a deletion timestamp.
    Deleted,
    /// The object vanished from the API.
    Vanished,
    /// `activeDeadlineSeconds` passed.
    DeadlineExceeded,
}

/// Everything known of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub(crate) life: Life,
    /// The sandbox the current instance belongs to.
    pub(crate) epoch: u32,
    /// Number of the current instance, from 0; the restart count.
    pub(crate) attempt: u32,
    /// How the instance before the current one ended.
    pub(crate) last: Option<Exit>,
    /// Why the next instance cannot start.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) pull_backoff: Option<Backoff>,
    pub(crate) image_id: String,
    pub(crate) probes: ProbeResults,
    /// Set when a probe demands a restart: how long the container may take to stop.
    pub(crate) unhealthy: Option<Duration>,
    /// How far the `preStop` hook of a sidecar in an ending pod is.
    #[serde(default)]
    pub(crate) pre_stop: PreStop,
}

/// Progress of a hook that runs ahead of its container's turn to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PreStop {
    #[default]
    NotRun,
    Running,
    Done,
}

/// Where one container stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum Life {
    #[default]
    Waiting,
    Starting,
    Running(Running),
    Stopping(Running),
    Exited(Exit),
}

/// A live instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) started_at: Timestamp,
    /// The `postStart` hook has returned, or there is none.
    pub(crate) hooked: bool,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) id: String,
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
}

/// Why a container waits, in the words of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) retry_at: Timestamp,
}

/// Last verdicts of a container's probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProbeResults {
    /// The startup probe has succeeded, or there is none and the container runs.
    pub(crate) startup: bool,
    /// The readiness probe's verdict.
    pub(crate) readiness: bool,
}

// === impl PodState ===

impl PodState {
    /// The container's state; a container never seen is `Waiting`.
    pub(crate) fn container(&self, name: &str) -> &ContainerState {
        static FRESH: ContainerState = ContainerState::fresh();
        self.containers.get(name).unwrap_or(&FRESH)
    }

    /// The container's state, made when absent.
    pub(crate) fn container_mut(&mut self, name: &str) -> &mut ContainerState {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// The pod's address while its sandbox stands.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self.sandbox {
            Sandbox::Ready { ip } => Some(ip),
            _ => None,
        }
    }
}

// === impl ContainerState ===

impl ContainerState {
    const fn fresh() -> Self {
        Self {
            life: Life::Waiting,
            epoch: 0,
            attempt: 0,
            last: None,
            trouble: None,
            backoff: None,
            pull_backoff: None,
            image_id: String::new(),
            probes: ProbeResults { startup: false, readiness: false },
            unhealthy: None,
            pre_stop: PreStop::NotRun,
        }
    }

    /// Whether a process of this container may exist.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.life, Life::Starting | Life::Running(_) | Life::Stopping(_))
    }

    /// The live instance, if there is one.
    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.life {
            Life::Running(running) | Life::Stopping(running) => Some(running),
            _ => None,
        }
    }

    /// How the last finished instance ended, be it the current or the one before.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.life {
            Life::Exited(exit) => Some(exit),
            _ => self.last.as_ref(),
        }
    }

    /// Running, past its hook and its startup probe: what a sidecar must be before the next container starts.
    pub(crate) fn is_started(&self) -> bool {
        matches!(&self.life, Life::Running(running) if running.hooked) && self.probes.startup
    }

    /// The id of the current or last instance.
    pub(crate) fn id(&self) -> Option<&str> {
        match &self.life {
            Life::Running(running) | Life::Stopping(running) => Some(&running.id),
            Life::Exited(exit) => Some(&exit.id),
            Life::Waiting | Life::Starting => self.last.as_ref().map(|exit| exit.id.as_str()),
        }
    }
}
