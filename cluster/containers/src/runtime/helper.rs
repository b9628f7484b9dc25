//! Starting helper processes and talking to them without blocking a thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::RuntimeConfig;
use crate::control;
use crate::error::Error;
use crate::exec::register;

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
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

/// Starts a helper of the kind `verb` for `dir`. What it has to say besides messages goes to a file there.
pub(super) fn spawn(config: &RuntimeConfig, verb: &str, dir: &Path) -> Result<(Child, Control), Error> {
    let context = || format!("cannot start the helper {}", config.shim.display());
    let run = || -> io::Result<(Child, Control)> {
        let (ours, theirs) = control::pair()?;
        let errors = File::options().create(true).append(true).open(dir.join("shim.log"))?;
        let child = Command::new(&config.shim)
            .args(&config.shim_args)
            .arg(verb)
            .arg(dir)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors))
            .spawn()?;
        Ok((child, Control::new(ours)?))
    };
    run().map_err(Error::io(context()))
}
