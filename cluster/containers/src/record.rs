//! The files that make containers outlive this process. All are small JSON, written beside and renamed, so that a reader sees a whole one or none.
//!
//! `containers/<id>/`: `record.json` (what was asked; written last, so its presence means "created"), `config.json` (OCI), `shim.json` (for the
//! helper), `state.json` (written by the helper once the program runs), `exit.json` (written by the helper at the end), `lock` (held by the helper
//! while it lives). `sandboxes/<uid>/sandbox.json`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::spec::{ContainerSpec, SandboxSpec};

pub(crate) const RECORD: &str = "record.json";
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const SHIM: &str = "shim.json";
pub(crate) const STATE: &str = "state.json";
pub(crate) const EXIT: &str = "exit.json";
pub(crate) const LOCK: &str = "lock";
pub(crate) const SANDBOX: &str = "sandbox.json";
/// The record while the sandbox is being made.
pub(crate) const SANDBOX_WANTED: &str = "wanted.json";
pub(crate) const ATTACH: &str = "attach.sock";

/// A container as it was created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    /// `cgroup_parent` of the runtime it belongs to.
    pub(crate) owner: String,
    pub(crate) spec: ContainerSpec,
    pub(crate) image_id: String,
    /// Layers it needs, so that collecting images spares them.
    pub(crate) layers: Vec<String>,
    pub(crate) created_at: Timestamp,
    /// Its cgroup, relative to each hierarchy's root.
    pub(crate) cgroup: String,
}

/// A sandbox as it was created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) owner: String,
    pub(crate) spec: SandboxSpec,
    pub(crate) created_at: Timestamp,
    pub(crate) cgroup: String,
    /// Cgroup of the process that holds a shared pid namespace.
    pub(crate) pause_cgroup: CgroupDirs,
    /// Process that holds a shared pid namespace, if there is one.
    pub(crate) pause_pid: Option<i32>,
}

/// What the helper of a container needs besides the bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    pub(crate) log_path: PathBuf,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    pub(crate) rootfs: Rootfs,
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) cgroup: CgroupDirs,
    /// Where out-of-memory kills are counted.
    pub(crate) oom_file: Option<PathBuf>,
    /// Other processes may survive the first one: kill what is in this cgroup (a `cgroup.kill` or `cgroup.procs` file).
    pub(crate) kill_file: Option<PathBuf>,
    /// Device nodes work in the container's own files; only where the kernel limits which.
    pub(crate) allow_devices: bool,
}

/// The directories of one cgroup, for a process that enters it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CgroupDirs {
    pub(crate) v1: Vec<PathBuf>,
    pub(crate) v2: Option<PathBuf>,
}

/// Which pid namespace a container uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum PidNamespace {
    /// A new one: it ends with its first process.
    Own,
    /// The node's.
    Host,
    /// The sandbox's, bound to this file.
    Shared(PathBuf),
}

/// An overlay mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rootfs {
    /// Directory the lower names are relative to: keeps the mount options below one page.
    pub(crate) layers_dir: PathBuf,
    /// Uppermost first.
    pub(crate) lower: Vec<String>,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
}

/// A container that was started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) pid: i32,
    pub(crate) shim_pid: i32,
    pub(crate) started_at: Timestamp,
}

/// Writes `value` to `path` by a rename within the directory.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}

/// Reads a record; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { context: format!("cannot read {}", path.display()), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| Error::Record { path: path.display().to_string(), source })
}
