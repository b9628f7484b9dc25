//! Terminals of containers: made inside the container's own devpts, the master handed out.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{Result, at};
use crate::sys;

/// A terminal pair.
pub(super) struct Console {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

/// Opens a terminal in the current root file system.
pub(super) fn make(size: Option<(u16, u16)>) -> Result<Console> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = at(open("/dev/pts/ptmx", flags, Mode::empty()), "cannot open /dev/pts/ptmx")?;
    let number = at(sys::unlock_terminal(master.as_fd()), "cannot unlock the terminal")?;
    let path = format!("/dev/pts/{number}");
    let slave = at(open(Path::new(&path), flags, Mode::empty()), format_args!("cannot open {path}"))?;
    if let Some((columns, rows)) = size {
        at(sys::set_window_size(&slave, columns, rows), "cannot size the terminal")?;
    }
    Ok(Console { master, slave })
}

/// Makes the slave the controlling terminal and the standard streams of this process, which must lead a session.
pub(super) fn take(console: &Console) -> Result<()> {
    at(sys::set_controlling_terminal(console.slave.as_fd()), "cannot take the terminal")?;
    for dup in [nix::unistd::dup2_stdin, nix::unistd::dup2_stdout, nix::unistd::dup2_stderr] {
        at(dup(&console.slave), "cannot use the terminal")?;
    }
    Ok(())
}
