//! Making processes inside a cgroup without waiting. Moving a process through `cgroup.procs` makes the kernel wait for a grace period, some 15 ms,
//! unless another move just did. A process may be born in a version 2 group, though, and a single thread may move itself in version 1
//! (`tasks`): neither waits.

use std::fs;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{Result, at};
use crate::record::CgroupDirs;
use crate::sys;

/// Where [`fork`] returns.
pub(super) enum Forked<'a> {
    /// In the parent, with the child's process id.
    Parent(i32),
    /// In the child, which has yet to enter its cgroup.
    Child(Entrance<'a>),
}

/// The rest of the way into a cgroup.
pub(super) struct Entrance<'a> {
    cgroup: &'a CgroupDirs,
    born_inside: bool,
}

/// Makes a process that is meant for `cgroup`.
pub(super) fn fork(cgroup: &CgroupDirs) -> Result<Forked<'_>> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = cgroup.v2.as_ref().and_then(|dir| open(dir, flags, Mode::empty()).ok());
    // Old kernels, and filters around this process, refuse it; then the child moves itself.
    let inside = directory.and_then(|dir| sys::fork_into(std::os::fd::AsFd::as_fd(&dir)).ok());
    let born_inside = inside.is_some();
    let pid = match inside {
        Some(pid) => pid,
        None => at(sys::fork(), "cannot fork")?,
    };
    Ok(match pid {
        Some(pid) => Forked::Parent(pid),
        None => Forked::Child(Entrance { cgroup, born_inside }),
    })
}

// === impl Entrance ===

impl Entrance<'_> {
    /// In the child: goes in.
    pub(super) fn enter(self) -> Result<()> {
        let join = |dir: &Path, file: &str| {
            at(fs::write(dir.join(file), "0"), format_args!("cannot join {}", dir.display()))
        };
        for dir in &self.cgroup.v1 {
            join(dir, "tasks")?;
        }
        match &self.cgroup.v2 {
            Some(dir) if !self.born_inside => join(dir, "cgroup.procs"),
            _ => Ok(()),
        }
    }
}
