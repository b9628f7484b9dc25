//! Runs one more program in a running container and stays as its parent until it ends. Goes when the runtime goes, and takes the program along.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use super::fork::{Entrance, Forked, fork};
use super::{Failure, Result, at, console, program, report_failure};
use crate::control::{self, ExecRequest, Report};
use crate::record::{self, ShimConfig};
use crate::sys;

/// Serves one request on `control` for the container in `dir`.
pub(super) fn exec(dir: &Path, control: &OwnedFd) -> Result<()> {
    let _ = setsid();
    let Some((request, streams)) = at(control::receive::<ExecRequest>(control.as_fd()), "bad request")?
    else {
        return Ok(());
    };
    match start(dir, &request, streams, control) {
        Err(failure) => report_failure(control, &failure),
        Ok(pid) => {
            let code = follow(pid, control)?;
            // The runtime may have lost interest.
            let _ = control::send(control.as_fd(), &Report::Exited { code }, &[]);
        }
    }
    Ok(())
}

fn start(dir: &Path, request: &ExecRequest, streams: Vec<OwnedFd>, control: &OwnedFd) -> Result<Pid> {
    let config: ShimConfig = at(record::read(&dir.join(record::SHIM)), "cannot read the container")?
        .ok_or_else(|| Failure("the container is not known".into()))?;
    let spec = at(Spec::load(dir.join(record::CONFIG)), "cannot read the bundle's configuration")?;
    let process = process(&spec, request)?;
    // One descriptor stands for the container in all that follows, so that a reused process id cannot lead elsewhere.
    let container = at(sys::pidfd_open(request.pid), "the container has ended")?;
    let lock = at(File::open(dir.join(record::LOCK)), "cannot open the lock")?;
    if lock.try_lock().is_ok() {
        return Err(Failure("the container has ended".into()));
    }
    at(setns(&container, CloneFlags::CLONE_NEWPID), "cannot join the container's processes")?;
    let (ours, theirs) = at(control::pair(), "cannot make a socket pair")?;
    let child = match fork(&config.cgroup)? {
        Forked::Parent(child) => child,
        Forked::Child(entrance) => {
            drop(ours);
            let command =
                Command { spec: &spec, process: &process, request, container: &container, socket: &theirs };
            let failure = command.become_it(streams, entrance);
            let _ = control::send(theirs.as_fd(), &Report::Failed { message: failure.0 }, &[]);
            std::process::exit(1);
        }
    };
    drop((theirs, streams));
    let pid = Pid::from_raw(child);
    let ready = wait_ready(&ours, control, child);
    if ready.is_err() {
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
    ready.map(|()| pid)
}

/// Passes on the terminal and the outcome of execve.
fn wait_ready(ours: &OwnedFd, control: &OwnedFd, child: i32) -> Result<()> {
    let mut ready = false;
    loop {
        match at(control::receive::<Report>(ours.as_fd()), "cannot hear from the command")? {
            Some((Report::Console, fds)) => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                at(control::send(control.as_fd(), &Report::Console, &fds), "cannot hand over the terminal")?;
            }
            Some((Report::Started { .. }, _)) => ready = true,
            Some((Report::Failed { message }, _)) => return Err(Failure(message)),
            Some((Report::Exited { .. }, _)) => {}
            None if ready => {
                let _ = control::send(control.as_fd(), &Report::Started { pid: child }, &[]);
                return Ok(());
            }
            None => return Err(Failure("the command died while it was set up".into())),
        }
    }
}

/// The container's process settings with another command line.
fn process(spec: &Spec, request: &ExecRequest) -> Result<Process> {
    let mut process = spec.process().clone().ok_or_else(|| Failure("the bundle names no process".into()))?;
    process.set_args(Some(request.argv.clone()));
    process.set_terminal(Some(request.tty));
    Ok(process)
}

/// A command on its way into the container.
struct Command<'a> {
    spec: &'a Spec,
    process: &'a Process,
    request: &'a ExecRequest,
    container: &'a OwnedFd,
    socket: &'a OwnedFd,
}

impl Command<'_> {
    fn become_it(&self, streams: Vec<OwnedFd>, entrance: Entrance<'_>) -> Failure {
        if let Err(failure) = entrance.enter().and_then(|()| self.set_up(&streams)) {
            return failure;
        }
        drop(streams);
        let mut env = self.request.env.clone();
        if self.request.tty && !self.process.env().iter().flatten().any(|entry| entry.starts_with("TERM=")) {
            env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let filter = self.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        program::become_program(self.process, filter, &env, || {
            at(control::send(self.socket.as_fd(), &Report::Started { pid: 0 }, &[]), "cannot report")
        })
    }

    fn set_up(&self, streams: &[OwnedFd]) -> Result<()> {
        at(setsid(), "cannot start a session")?;
        program::prepare(self.process)?;
        at(setns(self.container, namespaces(self.spec)), "cannot join the container's namespaces")?;
        if self.request.tty {
            let console = console::make(self.request.size)?;
            program::give_streams(self.process, &[console.slave.as_fd()])?;
            let master = console.master.as_fd();
            let sent = control::send(self.socket.as_fd(), &Report::Console, &[master]);
            at(sent, "cannot hand over the terminal")?;
            return console::take(&console);
        }
        let [stdin, stdout, stderr] = streams else {
            return Err(Failure("three streams must come with a request".into()));
        };
        program::give_streams(self.process, &[stdout.as_fd(), stderr.as_fd()])?;
        program::set_streams(stdin, stdout, stderr)
    }
}

/// All namespaces of the container but the pid one, which came with the fork.
fn namespaces(spec: &Spec) -> CloneFlags {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    all.iter().fold(CloneFlags::empty(), |flags, namespace| {
        flags
            | match namespace.typ() {
                LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
                LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
                LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
                LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
                LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
                _ => CloneFlags::empty(),
            }
    })
}

/// Waits for the command; kills it if the runtime hangs up.
fn follow(pid: Pid, control: &OwnedFd) -> Result<i32> {
    let pidfd = at(sys::pidfd_open(pid.as_raw()), "cannot watch the command")?;
    loop {
        let mut fds = [
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN | PollFlags::POLLHUP),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => at(result, "cannot wait for the command")?,
        };
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if ready(&fds[1]) && !ready(&fds[0]) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if ready(&fds[0]) || ready(&fds[1]) {
            return Ok(match at(waitpid(pid, None), "cannot reap the command")? {
                WaitStatus::Exited(_, code) => code,
                WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
                _ => 255,
            });
        }
    }
}
