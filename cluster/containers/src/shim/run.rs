//! The parent of one container: starts its first process, stays until it ends, leaves its exit status in a file.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setsid};
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use super::fork::{Entrance, Forked, fork};
use super::pump::{Pump, Streams};
use super::{Failure, Result, at, console, program, report_failure, rootfs};
use crate::control::{self, Report};
use crate::record::{self, PidNamespace, ShimConfig, StateRecord};
use crate::status::Exit;
use crate::sys;

/// Ends of the streams that belong to the container; empty with a terminal.
struct Inside {
    stdin: OwnedFd,
    pipes: Option<(OwnedFd, OwnedFd)>,
}

/// Runs the container in `dir` to its end.
pub(super) fn run(dir: &Path, control: OwnedFd) -> Result<()> {
    // A session of its own, so that no terminal's or process group's signals reach it.
    let _ = setsid();
    let lock =
        at(File::options().create(true).append(true).open(dir.join(record::LOCK)), "cannot open the lock")?;
    if lock.try_lock().is_err() {
        report_failure(&control, &Failure("the container has a helper already".into()));
        return Ok(());
    }
    let config: ShimConfig = match at(record::read(&dir.join(record::SHIM)), "cannot read what to run") {
        Ok(Some(config)) => config,
        Ok(None) => return Err(Failure("there is nothing to run".into())),
        Err(failure) => return Err(failure),
    };
    let started_at = Timestamp::now();
    let exit = match start(dir, &config, started_at) {
        Err(failure) => {
            let exit = start_error(failure.0.clone());
            write_exit(dir, &exit)?;
            report_failure(&control, &failure);
            return Ok(());
        }
        Ok((pid, pump)) => {
            // The runtime may be gone; what it needs to know is in the file.
            let _ = control::send(control.as_fd(), &Report::Started { pid: pid.as_raw() }, &[]);
            drop(control);
            if let Ok(map) = fs::read_to_string("/proc/self/maps") {
                sys::forget_code(&map);
            }
            follow(pid, pump, &config, started_at)?
        }
    };
    write_exit(dir, &exit)
}

/// Starts the first process; on success it runs and its record is written.
fn start(dir: &Path, config: &ShimConfig, started_at: Timestamp) -> Result<(Pid, Pump)> {
    let (inside, mut streams) = make_streams(config)?;
    let (ours, theirs) = at(control::pair(), "cannot make a socket pair")?;
    match &config.pid_namespace {
        PidNamespace::Own => at(unshare(CloneFlags::CLONE_NEWPID), "cannot make a pid namespace")?,
        PidNamespace::Shared(path) => join(path, CloneFlags::CLONE_NEWPID)?,
        PidNamespace::Host => {}
    }
    let child = match fork(&config.cgroup)? {
        Forked::Parent(child) => child,
        Forked::Child(entrance) => {
            drop(ours);
            let failure = become_container(dir, config, inside, entrance, &theirs);
            let message = Report::Failed { message: failure.0 };
            let _ = control::send(theirs.as_fd(), &message, &[]);
            std::process::exit(1);
        }
    };
    drop((inside, theirs));
    let pid = Pid::from_raw(child);
    let result = wait_ready(&ours, &mut streams).and_then(|()| {
        let state = StateRecord { pid: child, shim_pid: Pid::this().as_raw(), started_at };
        at(record::write(&dir.join(record::STATE), &state), "cannot write the container's state")?;
        let pidfd = at(sys::pidfd_open(child), "cannot watch the container")?;
        Ok(Pump::new(config, dir, pidfd, streams))
    });
    match result {
        Ok(pump) => Ok((pid, pump)),
        Err(failure) => {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            Err(failure)
        }
    }
}

/// Waits until the program took over, or hears why it could not.
fn wait_ready(socket: &OwnedFd, streams: &mut Streams) -> Result<()> {
    let mut ready = false;
    loop {
        match at(control::receive::<Report>(socket.as_fd()), "cannot hear from the container")? {
            Some((Report::Console, fds)) => streams.console = fds.into_iter().next(),
            Some((Report::Started { .. }, _)) => ready = true,
            Some((Report::Failed { message }, _)) => return Err(Failure(message)),
            Some((Report::Exited { .. }, _)) => {}
            None if ready => return Ok(()),
            None => return Err(Failure("the container's first process died while it was set up".into())),
        }
    }
}

fn make_streams(config: &ShimConfig) -> Result<(Inside, Streams)> {
    let pipe = || at(pipe2(OFlag::O_CLOEXEC), "cannot make a pipe");
    let null =
        || at(open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()), "cannot open /dev/null");
    if config.tty {
        return Ok((Inside { stdin: null()?, pipes: None }, Streams::default()));
    }
    let (stdin, stdin_outside) = if config.stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (null()?, None)
    };
    let ((out, out_inside), (err, err_inside)) = (pipe()?, pipe()?);
    let inside = Inside { stdin, pipes: Some((out_inside, err_inside)) };
    Ok((inside, Streams { console: None, stdin: stdin_outside, stdout: Some(out), stderr: Some(err) }))
}

/// In the new process: everything up to the program.
fn become_container(
    dir: &Path,
    config: &ShimConfig,
    inside: Inside,
    entrance: Entrance<'_>,
    socket: &OwnedFd,
) -> Failure {
    let spec = match entrance.enter().and_then(|()| set_up(dir, config, &inside, socket)) {
        Ok(spec) => spec,
        Err(failure) => return failure,
    };
    drop(inside);
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    match process_of(&spec) {
        Ok(process) => {
            program::become_program(process, filter, &[], || tell(socket, &Report::Started { pid: 0 }))
        }
        Err(failure) => failure,
    }
}

fn set_up(dir: &Path, config: &ShimConfig, inside: &Inside, socket: &OwnedFd) -> Result<Spec> {
    at(setsid(), "cannot start a session")?;
    umask(Mode::empty());
    let spec = at(Spec::load(dir.join(record::CONFIG)), "cannot read the bundle's configuration")?;
    let process = process_of(&spec)?;
    program::prepare(process)?;
    namespaces(&spec)?;
    if let Some((stdout, stderr)) = &inside.pipes {
        program::give_streams(process, &[stdout.as_fd(), stderr.as_fd()])?;
        if config.stdin {
            program::give_streams(process, &[inside.stdin.as_fd()])?;
        }
    }
    rootfs::enter(config, &spec, dir, config.allow_devices)?;
    match &inside.pipes {
        Some((stdout, stderr)) => program::set_streams(&inside.stdin, stdout, stderr)?,
        None => {
            let console = console::make(None)?;
            program::give_streams(process, &[console.slave.as_fd()])?;
            at(
                control::send(socket.as_fd(), &Report::Console, &[console.master.as_fd()]),
                "cannot hand over the terminal",
            )?;
            console::take(&console)?;
        }
    }
    Ok(spec)
}

fn process_of(spec: &Spec) -> Result<&Process> {
    spec.process().as_ref().ok_or_else(|| Failure("the bundle names no process".into()))
}

fn tell(socket: &OwnedFd, report: &Report) -> Result<()> {
    at(control::send(socket.as_fd(), report, &[]), "cannot report")
}

/// Joins the sandbox's namespaces and makes the container's own, except the pid namespace, which came with the fork.
fn namespaces(spec: &Spec) -> Result<()> {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let mut own = CloneFlags::empty();
    for namespace in all {
        let flag = match namespace.typ() {
            LinuxNamespaceType::Pid => continue,
            LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
            LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
            LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
            LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
            other => return Err(Failure(format!("namespace {other} is not supported"))),
        };
        match namespace.path() {
            Some(path) => join(path, flag)?,
            None => own |= flag,
        }
    }
    at(unshare(own), "cannot make namespaces")
}

fn join(path: &Path, kind: CloneFlags) -> Result<()> {
    let what = || format!("cannot join the namespace {}", path.display());
    let file = at(File::open(path), what())?;
    at(setns(&file, kind), what())
}

/// Serves the container until it has ended and its output is in the log.
fn follow(pid: Pid, mut pump: Pump, config: &ShimConfig, started_at: Timestamp) -> Result<Exit> {
    at(pump.until_exit(), "cannot watch the container")?;
    let status = at(waitpid(pid, None), "cannot reap the container")?;
    let finished_at = Timestamp::now();
    if let Some(file) = &config.kill_file {
        kill_rest(file);
    }
    at(pump.drain(config.kill_file.is_some()), "cannot drain the container's output")?;
    let (code, signal) = match status {
        WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, Some(signal as i32)),
        WaitStatus::Exited(_, code) => (code, None),
        _ => (255, None),
    };
    let oom_killed = code != 0 && oom_kills(config) > 0;
    let reason = match code {
        0 => "Completed",
        _ if oom_killed => "OOMKilled",
        _ => "Error",
    };
    Ok(Exit {
        code,
        signal,
        oom_killed,
        reason: reason.to_owned(),
        message: String::new(),
        started_at: Some(started_at),
        finished_at,
    })
}

/// In a pid namespace that lives on, the container's other processes must be killed one by one, or all at once where the kernel can.
fn kill_rest(file: &Path) {
    const ROUNDS_MAX: usize = 100;
    if file.ends_with("cgroup.kill") {
        let _ = fs::write(file, "1");
        return;
    }
    for _ in 0..ROUNDS_MAX {
        let processes = fs::read_to_string(file).unwrap_or_default();
        let pids: Vec<i32> = processes.lines().filter_map(|line| line.parse().ok()).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn oom_kills(config: &ShimConfig) -> u64 {
    let text = config.oom_file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.unwrap_or(0)
}

fn start_error(message: String) -> Exit {
    Exit {
        code: 128,
        signal: None,
        oom_killed: false,
        reason: "StartError".to_owned(),
        message,
        started_at: None,
        finished_at: Timestamp::now(),
    }
}

fn write_exit(dir: &Path, exit: &Exit) -> Result<()> {
    at(record::write(&dir.join(record::EXIT), exit), "cannot write the exit status")
}
