//! Control groups of pods and containers, on version 1 (with or without a version 2 mount beside it) and on version 2.
//!
//! A group has one relative path, the same in each hierarchy. In hybrid mode it exists in the version 2 hierarchy as well: no controller is there,
//! but `cgroup.kill` is.

mod layout;
mod values;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::layout::Layout;
pub(crate) use self::values::DeviceRule;
use crate::error::Error;
use crate::record::CgroupDirs;
use crate::spec::Resources;
use crate::status::Stats;

/// How long emptied groups may take to become removable: the kernel lets go of dead processes a little later. Own choice.
const REMOVE_WAIT: Duration = Duration::from_millis(500);

/// The control group hierarchies of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    layout: Layout,
}

// === impl Cgroups ===

impl Cgroups {
    /// Looks at what is mounted. Fails if memory, cpu or pids cannot be limited.
    pub(crate) fn detect() -> Result<Self, Error> {
        let mounts = read("/proc/self/mountinfo".as_ref())?;
        let layout = Layout::parse(&mounts, |v2| {
            fs::read_to_string(v2.join("cgroup.controllers")).unwrap_or_default()
        });
        layout.map(|layout| Self { layout }).map_err(Error::Invalid)
    }

    /// Makes a group with its limits. Existing groups get the limits anew.
    pub(crate) fn create(
        &self,
        path: &str,
        limits: &Resources,
        devices: Option<&[DeviceRule]>,
    ) -> Result<(), Error> {
        match &self.layout {
            Layout::V1 { .. } => {
                for dir in self.dirs(path) {
                    fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
                }
            }
            Layout::V2 { root } => make_v2(root, path)?,
        }
        for (controller, file, value) in values::limits(self.layout.version(), limits) {
            self.set(path, controller, file, &value)?;
        }
        // Version 2 has no device files; there the runtime grants no CAP_MKNOD and mounts without devices.
        if let (Layout::V1 { .. }, Some(rules)) = (&self.layout, devices)
            && self.layout.dir("devices", path).is_some()
        {
            self.set(path, "devices", "devices.deny", "a")?;
            for rule in rules {
                self.set(path, "devices", "devices.allow", &rule.to_string())?;
            }
        }
        Ok(())
    }

    /// Whether device access is limited by [`Cgroups::create`].
    pub(crate) fn limits_devices(&self) -> bool {
        self.layout.dir("devices", "").is_some()
    }

    /// What a process needs to enter a group.
    pub(crate) fn entrance(&self, path: &str) -> CgroupDirs {
        let v2 = self.layout.unified(path);
        CgroupDirs { v1: self.dirs(path).into_iter().filter(|dir| Some(dir) != v2.as_ref()).collect(), v2 }
    }

    /// All directories of a group.
    pub(crate) fn dirs(&self, path: &str) -> Vec<PathBuf> {
        self.layout.dirs(path)
    }

    /// Controller directories to show inside a container, with the name each has below `/sys/fs/cgroup`. One with an empty name is the whole.
    pub(crate) fn views(&self, path: &str) -> Vec<(String, PathBuf)> {
        self.layout.views(path)
    }

    /// File that counts the processes killed for want of memory, in a line `oom_kill N`.
    pub(crate) fn oom_file(&self, path: &str) -> Option<PathBuf> {
        let file = match &self.layout {
            Layout::V1 { .. } => "memory.oom_control",
            Layout::V2 { .. } => "memory.events",
        };
        Some(self.layout.dir("memory", path)?.join(file))
    }

    /// `cgroup.kill` where the kernel has it, else the list of processes to kill one by one.
    pub(crate) fn kill_file(&self, path: &str) -> Option<PathBuf> {
        let unified =
            self.layout.unified(path).map(|dir| dir.join("cgroup.kill")).filter(|file| file.exists());
        unified.or_else(|| Some(self.layout.dir("pids", path)?.join("cgroup.procs")))
    }

    /// Removes a group and those below it. Processes in it must be dead or dying.
    pub(crate) async fn remove(&self, path: &str) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + REMOVE_WAIT;
        loop {
            let mut busy = None;
            for dir in self.dirs(path) {
                if let Err(error) = remove_tree(&dir) {
                    busy = Some((dir, error));
                }
            }
            match busy {
                None => return Ok(()),
                Some((dir, error)) if tokio::time::Instant::now() >= deadline => {
                    return Err(failed("remove", &dir)(error));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Reads usage.
    pub(crate) fn stats(&self, path: &str) -> Result<Stats, Error> {
        let file = |controller: &str, name: &str| match self.layout.dir(controller, path) {
            Some(dir) => read(&dir.join(name)),
            None => Ok(String::new()),
        };
        Ok(match &self.layout {
            Layout::V1 { .. } => values::stats_v1(
                &file("cpuacct", "cpuacct.usage")?,
                &file("memory", "memory.usage_in_bytes")?,
                &file("memory", "memory.stat")?,
                &file("pids", "pids.current")?,
            ),
            Layout::V2 { .. } => values::stats_v2(
                &file("cpu", "cpu.stat")?,
                &file("memory", "memory.current")?,
                &file("memory", "memory.stat")?,
                &file("pids", "pids.current")?,
            ),
        })
    }

    fn set(&self, path: &str, controller: &str, file: &str, value: &str) -> Result<(), Error> {
        let Some(dir) = self.layout.dir(controller, path) else { return Ok(()) };
        let file = dir.join(file);
        fs::write(&file, value).map_err(|source| Error::Io {
            context: format!("cannot set {} to {value}", file.display()),
            source,
        })
    }
}

/// Makes a version 2 group, handing down the controllers level by level.
fn make_v2(root: &Path, path: &str) -> Result<(), Error> {
    let mut dir = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let control = dir.join("cgroup.subtree_control");
        fs::write(&control, "+cpu +memory +pids").map_err(failed("hand down controllers in", &control))?;
        dir.push(part);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make", &dir)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `rmdir` from the leaves up: control groups have files that cannot be deleted.
fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_two_hands_controllers_down_to_the_parent_of_a_group() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = Cgroups { layout: Layout::V2 { root: root.path().to_owned() } };
        let limits =
            Resources { memory_limit: Some(1 << 20), cpu_quota_us: Some(50_000), ..Resources::default() };
        cgroups.create("mesh/node1/pod1", &limits, Some(&[])).unwrap();
        cgroups.create("mesh/node1/pod1", &limits, Some(&[])).unwrap();
        let text = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        for parent in ["", "mesh", "mesh/node1"] {
            assert_eq!(
                text(format!("{parent}/cgroup.subtree_control").trim_start_matches('/')),
                "+cpu +memory +pids"
            );
        }
        assert!(
            !root.path().join("mesh/node1/pod1/cgroup.subtree_control").exists(),
            "a leaf may hold processes"
        );
        assert_eq!(
            (text("mesh/node1/pod1/memory.max"), text("mesh/node1/pod1/cpu.max")),
            ("1048576".into(), "50000 100000".into())
        );
        assert_eq!(cgroups.dirs("a"), [root.path().join("a")]);
        assert!(!cgroups.limits_devices());
    }
}
