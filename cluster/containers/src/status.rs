//! What the runtime reports: sandboxes, container states, events and usage.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::SandboxSpec;

/// Identity of one container: 64 hexadecimal digits, never reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub(crate) String);

/// A sandbox that exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    /// What it was made from.
    pub spec: SandboxSpec,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One container, as of the moment of asking.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// Its identity.
    pub id: ContainerId,
    /// Sandbox it belongs to.
    pub pod_uid: String,
    /// Name within the pod.
    pub name: String,
    /// Counter given at creation.
    pub attempt: u32,
    /// Image name as asked for.
    pub image: String,
    /// Digest of the image's configuration, `sha256:…`.
    pub image_id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Its log file.
    pub log_path: std::path::PathBuf,
    /// As given at creation.
    pub labels: BTreeMap<String, String>,
    /// As given at creation.
    pub annotations: BTreeMap<String, String>,
}

/// Life of a container: created, running, exited.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Prepared, not started.
    Created,
    /// Its first process runs.
    Running {
        /// Process id on the host.
        pid: i32,
        /// When it was started.
        started_at: Timestamp,
    },
    /// It ended, or could not be started.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when killed, 128 when it could not be started.
    pub code: i32,
    /// Signal that killed it.
    pub signal: Option<i32>,
    /// The kernel killed one of its processes for want of memory.
    pub oom_killed: bool,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `ContainerStatusUnknown`.
    pub reason: String,
    /// Cause, for people; often empty.
    pub message: String,
    /// When it was started; absent when it never ran.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// Something happened to a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerEvent {
    /// Which container.
    pub id: ContainerId,
    /// Its sandbox.
    pub pod_uid: String,
    /// What happened.
    pub kind: ContainerEventKind,
}

/// Kind of a [`ContainerEvent`].
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerEventKind {
    /// Its first process runs.
    Started,
    /// It ended; its status is on disk and its log is complete.
    Exited(Exit),
}

/// Usage of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used since the start.
    pub cpu_usage_ns: u64,
    /// Memory charged, page cache included.
    pub memory_usage_bytes: u64,
    /// Memory charged less inactive page cache.
    pub memory_working_set_bytes: u64,
    /// Anonymous memory.
    pub memory_rss_bytes: u64,
    /// Tasks.
    pub pids: u64,
}

// === impl ContainerId ===

impl ContainerId {
    /// Takes an identity this runtime once handed out; anything else than hexadecimal digits is refused.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| Self(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ContainerState ===

impl ContainerState {
    /// The first process runs.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Exited(exit) => Some(exit),
            Self::Created | Self::Running { .. } => None,
        }
    }
}
