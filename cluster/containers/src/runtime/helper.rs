//! Starting helper processes and talking to them without blocking a thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::RuntimeConfig;
use crate::control::{self, Report};
use crate::error::Error;
use crate::exec::register;
use crate::sys;

/// How long a helper may take to set something up before it is given up. Own choice: a hung file system should be all that takes this long.
const SETUP_WAIT: Duration = Duration::from_secs(60);

/// Our end of a control socket.
#[derive(Clone, Debug)]
pub(crate) struct Control(Arc<AsyncFd<OwnedFd>>);

// === impl Control ===

impl Control {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(register(socket)?))
    }

    /// Sends a message; messages are small and rare, so the socket always has room.
    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        control::send(self.0.get_ref().as_fd(), message, fds)
    }

    /// Receives a message; `None` once the helper is gone. Cancel-safe.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|fd| control::receive(fd.get_ref().as_fd())) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// The helper's first word about what it was asked to do.
pub(super) async fn first_report(control: &Control) -> Result<Option<(Report, Vec<OwnedFd>)>, Error> {
    match tokio::time::timeout(SETUP_WAIT, control.receive::<Report>()).await {
        Ok(report) => report.map_err(Error::io("cannot hear from a helper")),
        Err(_) => Err(Error::Timeout(SETUP_WAIT)),
    }
}

/// The program that helpers run, seen through a read-only mount that exists only as this descriptor. A process about to enter a container
/// can be reached from inside through `/proc/PID/exe`; nobody can write to the host's file that way (CVE-2019-5736).
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

// === impl Program ===

impl Program {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let tree = sys::open_tree(path).and_then(|tree| {
            sys::mount_setattr(tree.as_fd(), sys::MOUNT_ATTR_RDONLY, 0)?;
            Ok(tree)
        });
        tree.map(Self).map_err(Error::io(format!("cannot use the helper program {}", path.display())))
    }

    fn command(&self, config: &RuntimeConfig) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg0(&config.shim).args(&config.shim_args);
        command
    }
}

/// Starts a helper of the kind `verb` for `dir`. What it has to say besides messages goes to a file there.
pub(super) fn spawn(
    program: &Program,
    config: &RuntimeConfig,
    verb: &str,
    dir: &Path,
) -> Result<(Child, Control), Error> {
    let context = || format!("cannot start the helper {}", config.shim.display());
    let run = || -> io::Result<(Child, Control)> {
        let (ours, theirs) = control::pair()?;
        let errors = File::options().create(true).append(true).open(dir.join("shim.log"))?;
        let child = program
            .command(config)
            .arg(verb)
            .arg(dir)
            // Neither a directory nor a hook: then the standard library uses `posix_spawn`, which does not copy this process.
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors))
            .spawn()?;
        Ok((child, Control::new(ours)?))
    };
    run().map_err(Error::io(context()))
}
