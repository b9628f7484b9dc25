//! What a container's first process is after an upgrade: it waits for the process that serves, passes signals on to it, and starts the old
//! binary again if that one fails.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::handover;

/// This program.
const PROGRAM: &str = "/proc/self/exe";

/// Becomes a waiter: the memory of the proxy that this process was goes back, its children stay.
pub(crate) fn become_one(directory: &Path) -> anyhow::Error {
    let mut command = Command::new(PROGRAM);
    command.arg("wait").arg("--state-dir").arg(directory).arg("--").args(std::env::args_os().skip(1));
    anyhow::Error::new(command.env_remove(handover::LISTENERS).exec()).context("cannot become a waiter")
}

/// Waits until the process that serves has ended; `arguments` are those to start again with if it failed.
pub(crate) async fn run(directory: &Path, arguments: &[OsString]) -> anyhow::Result<()> {
    // A process that was replaced twice leaves its successor to this one.
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut ended = signal(SignalKind::child())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    let mut asked = false;
    loop {
        if let Some(status) = reap(directory) {
            if asked || matches!(status, WaitStatus::Exited(_, 0)) {
                return Ok(());
            }
            tracing::error!(?status, "The process that served has failed; starting again");
            let error = Command::new(PROGRAM).args(arguments).env_remove(handover::LISTENERS).exec();
            return Err(error).context("cannot start again");
        }
        let pass_on = tokio::select! {
            _ = ended.recv() => continue,
            _ = term.recv() => Signal::SIGTERM,
            _ = interrupt.recv() => Signal::SIGINT,
            _ = upgrade.recv() => Signal::SIGUSR2,
        };
        asked |= pass_on != Signal::SIGUSR2;
        if let Some(serving) = handover::serving(directory).and_then(|pid| i32::try_from(pid).ok()) {
            // It may have just ended: the next round sees it.
            let _ = kill(Pid::from_raw(serving), pass_on);
        }
    }
}

/// Collects children that have ended; what became of the one that serves, if it is among them or no child is left.
fn reap(directory: &Path) -> Option<WaitStatus> {
    let mut last = None;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(status) => {
                let serving = handover::serving(directory).and_then(|pid| i32::try_from(pid).ok());
                if status.pid().map(Pid::as_raw) == serving {
                    return Some(status);
                }
                last = Some(status);
            }
            // No child is left: the one that served must have been the last that was seen.
            Err(_) => return Some(last.unwrap_or(WaitStatus::StillAlive)),
        }
    }
}
