//! What a caller asks for: sandboxes and containers as plain data. All of it is written to disk with the container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pod's shared surroundings: namespaces and one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// The pod's UID; names the sandbox.
    pub uid: String,
    /// The pod's name, for people.
    pub name: String,
    /// The pod's namespace, for people.
    pub namespace: String,
    /// Host name in the pod's uts namespace, at most 64 bytes.
    pub hostname: String,
    /// Bind-mounted network namespace every container joins. Empty: the host's.
    pub net_ns: PathBuf,
    /// Kernel parameters set inside the pod's namespaces, by dotted name (`net.ipv4.ip_unprivileged_port_start`).
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the pod as a whole.
    pub resources: Resources,
    /// One pid namespace for all containers of the pod.
    pub share_pid: bool,
    /// Containers see the node's processes.
    pub host_pid: bool,
    /// Containers use the node's ipc namespace.
    pub host_ipc: bool,
    /// Persisted, not interpreted.
    pub labels: BTreeMap<String, String>,
    /// Persisted, not interpreted.
    pub annotations: BTreeMap<String, String>,
}

/// One container of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Name within the pod.
    pub name: String,
    /// UID of the sandbox it joins; the sandbox must exist.
    pub pod_uid: String,
    /// How many times this container was made before in this pod.
    pub attempt: u32,
    /// Image name as the user wrote it.
    pub image: String,
    /// Replaces the image's entrypoint (and drops its cmd) when not empty: Kubernetes `command`.
    pub command: Vec<String>,
    /// Replaces the image's cmd when not empty: Kubernetes `args`.
    pub args: Vec<String>,
    /// Environment on top of the image's; later entries win.
    pub env: Vec<(String, String)>,
    /// Working directory; the image's when absent. Made if missing.
    pub cwd: Option<String>,
    /// Overrides of the image's user.
    pub user: User,
    /// Mount the root file system read-only.
    pub readonly_rootfs: bool,
    /// All capabilities and devices, no seccomp, no masked paths.
    pub privileged: bool,
    /// Capabilities added to the default set (`NET_ADMIN` or `CAP_NET_ADMIN`; `ALL`).
    pub caps_add: Vec<String>,
    /// Capabilities dropped; applied before `caps_add` as far as `ALL` goes, after it otherwise.
    pub caps_drop: Vec<String>,
    /// Forbid gaining privileges through execve.
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Mounts, made in this order after the standard ones.
    pub mounts: Vec<Mount>,
    /// Device nodes beyond the standard ones.
    pub devices: Vec<Device>,
    /// Limits.
    pub resources: Resources,
    /// File that receives the output in CRI format; its directory is made if missing. Empty: output is discarded.
    pub log_path: PathBuf,
    /// Run on a terminal.
    pub tty: bool,
    /// Keep standard input open for `attach`; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Close standard input when the first attached client leaves.
    pub stdin_once: bool,
    /// Paths hidden from the container; `None` means the usual list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths made read-only; `None` means the usual list.
    pub readonly_paths: Option<Vec<String>>,
    /// Persisted and reported back.
    pub labels: BTreeMap<String, String>,
    /// Persisted and reported back.
    pub annotations: BTreeMap<String, String>,
}

/// Who the container runs as. Absent parts come from the image: its `USER`, `/etc/passwd` and `/etc/group`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// `runAsUser`.
    pub uid: Option<u32>,
    /// `runAsGroup`.
    pub gid: Option<u32>,
    /// `supplementalGroups` and `fsGroup`, added to the image's groups.
    pub supplemental: Vec<u32>,
}

/// System call filter of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The built-in list: what ordinary programs need.
    RuntimeDefault,
    /// No filter: the Kubernetes default when a pod says nothing.
    #[default]
    Unconfined,
}

/// A mount into the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// File or directory on the host; must exist. Unused for tmpfs.
    pub host_path: PathBuf,
    /// Absolute path in the container; made if missing, a file if the source is one.
    pub container_path: PathBuf,
    /// Read-only, with everything mounted below the source.
    pub readonly: bool,
    /// Further options: `nosuid nodev noexec`, `rshared rslave` (bind), `size=… mode=…` (tmpfs).
    pub options: Vec<String>,
}

/// Kind of a [`Mount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// Recursive bind mount of `host_path`.
    Bind,
    /// A fresh tmpfs, private to the container.
    Tmpfs,
}

/// A device node copied from the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Node on the host.
    pub host_path: PathBuf,
    /// Node in the container.
    pub container_path: PathBuf,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// Limits of a container or of a pod; absent means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Weight as cgroup v1 shares (1024 is one CPU); at least 2.
    pub cpu_shares: Option<u64>,
    /// CPU time per period, in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// Period of the quota in microseconds; 100 ms when absent.
    pub cpu_period_us: Option<u64>,
    /// Memory in bytes.
    pub memory_limit: Option<i64>,
    /// Number of tasks.
    pub pids_limit: Option<i64>,
    /// Kernel OOM preference; raised to the own value of this process when lower and not permitted. Containers only.
    pub oom_score_adj: Option<i32>,
}
