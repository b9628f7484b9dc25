//! Sandboxes: namespaces and a cgroup for each pod.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use nix::unistd::Pid;

use super::{Inner, helper, path_error};
use crate::control::Report;
use crate::error::Error;
use crate::record::{self, CgroupDirs, SandboxRecord};
use crate::spec::{Resources, SandboxSpec};
use crate::status::Sandbox;

/// Files of a sandbox this crate mounts; `net` beside them belongs to the network.
const MOUNTS: [&str; 4] = ["uts", "ipc", "pid", "shm"];
const HOSTNAME_BYTES_MAX: usize = 64;

impl Inner {
    pub(super) async fn make_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, Error> {
        check(&spec)?;
        // One at a time for each pod: a second caller finds what the first made.
        let _gate = self.sandbox_gate.lock().await;
        if let Some(known) = self.sandboxes.lock().get(&spec.uid) {
            return Ok(sandbox(known));
        }
        let dir = self.sandbox_dir(&spec.uid);
        fs::create_dir_all(&dir).map_err(path_error("make", &dir))?;
        unmount(&dir)?;
        let cgroup = format!("{}/pod{}", self.config.cgroup_parent, spec.uid);
        self.cgroups.create(&cgroup, &spec.resources, None)?;
        let mut pause_cgroup = CgroupDirs::default();
        if spec.share_pid {
            // A group of its own: on version 2 only leaves hold processes.
            let group = format!("{cgroup}/pause");
            self.cgroups.create(&group, &Resources::default(), None)?;
            pause_cgroup = self.cgroups.entrance(&group);
        }
        let owner = self.config.cgroup_parent.clone();
        let created_at = Timestamp::now();
        let mut record = SandboxRecord { owner, spec, created_at, cgroup, pause_cgroup, pause_pid: None };
        let made = self.make_namespaces(&dir, &record).await;
        let written = made.and_then(|pid| {
            record.pause_pid = (pid > 0).then_some(pid);
            let path = dir.join(record::SANDBOX);
            record::write(&path, &record).map_err(path_error("write", &path))
        });
        if let Err(error) = written {
            self.clear_sandbox(&dir, &record).await?;
            return Err(error);
        }
        let answer = sandbox(&record);
        self.sandboxes.lock().insert(record.spec.uid.clone(), record);
        Ok(answer)
    }

    async fn make_namespaces(&self, dir: &Path, record: &SandboxRecord) -> Result<i32, Error> {
        let path = dir.join(record::SANDBOX_WANTED);
        record::write(&path, record).map_err(path_error("write", &path))?;
        let (mut child, control) = helper::spawn(&self.program, &self.config, "sandbox", dir)?;
        let report = helper::first_report(&control).await;
        if report.is_err() {
            // It may have ended by now; then there is nothing to kill.
            let _ = child.start_kill();
        }
        let _ = child.wait().await;
        match report? {
            Some((Report::Started { pid }, _)) => Ok(pid),
            Some((Report::Failed { message }, _)) => Err(Error::Invalid(message)),
            _ => Err(helper_died(dir)),
        }
    }

    pub(super) async fn drop_sandbox(&self, uid: &str) -> Result<(), Error> {
        let ids: Vec<_> =
            self.containers.lock().values().filter(|c| c.record.spec.pod_uid == uid).cloned().collect();
        for container in ids {
            self.drop_container(&container).await?;
        }
        let _gate = self.sandbox_gate.lock().await;
        let Some(record) = self.sandboxes.lock().get(uid).cloned() else { return Ok(()) };
        self.clear_sandbox(&self.sandbox_dir(uid), &record).await?;
        self.sandboxes.lock().remove(uid);
        Ok(())
    }

    /// Takes apart what may be there of a sandbox.
    async fn clear_sandbox(&self, dir: &Path, record: &SandboxRecord) -> Result<(), Error> {
        if let Some(pid) = record.pause_pid.filter(|pid| holds(*pid, &dir.join("pid"))) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        unmount(dir)?;
        self.cgroups.remove(&record.cgroup).await?;
        for name in [record::SANDBOX_WANTED, "shim.log", record::SANDBOX] {
            remove_file(&dir.join(name))?;
        }
        // The network's namespace may still be in it; then its owner removes the directory.
        let _ = fs::remove_dir(dir);
        Ok(())
    }

    /// Takes up the sandboxes on disk.
    pub(super) async fn load_sandboxes(&self) -> Result<(), Error> {
        for dir in super::entries(&self.config.run_dir.join("sandboxes"))? {
            let Some(found) = record::read::<SandboxRecord>(&dir.join(record::SANDBOX))? else { continue };
            if found.owner != self.config.cgroup_parent {
                continue;
            }
            if is_namespace(&dir.join("uts")) {
                self.sandboxes.lock().insert(found.spec.uid.clone(), found);
            } else {
                // The machine was restarted since.
                self.clear_sandbox(&dir, &found).await?;
            }
        }
        Ok(())
    }

    pub(super) fn sandbox_dir(&self, uid: &str) -> PathBuf {
        self.config.run_dir.join("sandboxes").join(uid)
    }
}

pub(super) fn sandbox(record: &SandboxRecord) -> Sandbox {
    Sandbox { spec: record.spec.clone(), created_at: record.created_at }
}

/// The UID becomes part of paths, the host name must be one.
fn check(spec: &SandboxSpec) -> Result<(), Error> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if spec.uid.is_empty() || spec.uid.len() > 64 || !plain(&spec.uid) {
        return Err(Error::Invalid(format!("\"{}\" is not a pod UID", spec.uid)));
    }
    if spec.hostname.len() > HOSTNAME_BYTES_MAX {
        return Err(Error::Invalid(format!("host name \"{}\" is longer than 64 bytes", spec.hostname)));
    }
    Ok(())
}

fn is_namespace(file: &Path) -> bool {
    statfs(file).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
}

fn unmount(dir: &Path) -> Result<(), Error> {
    for path in MOUNTS.map(|name| dir.join(name)) {
        // As often as it is mounted: an interrupted creation may have been repeated.
        for _ in 0..16 {
            match umount2(&path, MntFlags::MNT_DETACH) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(error) => return Err(path_error("unmount", &path)(error.into())),
            }
        }
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir(&path).map_err(path_error("remove", &path))?,
            Ok(_) => remove_file(&path)?,
            Err(_) => {}
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(path_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether `pid` is still the process that lives in the bound pid namespace.
fn holds(pid: i32, file: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let own = identity(Path::new(&format!("/proc/{pid}/ns/pid")));
    own.is_some() && own == identity(file)
}

pub(super) fn helper_died(dir: &Path) -> Error {
    let said = fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
    let last = said.lines().last().unwrap_or("it said nothing").to_owned();
    Error::Io { context: "the helper process died".into(), source: io::Error::other(last) }
}
