//! `cluster down`: ends a cluster if it runs, and removes whatever is left of it, running or dead, whole or half made.

mod cgroups;
mod mounts;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster_network::Fabric;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::Place;
use crate::control::SOCKET;
use crate::instance::{self, Holder, Instance, MARKER};
use crate::machine;
use crate::run::absolute;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A cluster that was asked: it gives its parts up after ten seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(5);
/// A directory refills while the last container's parent writes its exit status.
const DELETE_TRIES: usize = 50;

/// The cgroup under which all of a cluster's containers are. It begins with a word of ours, so that no name can mean the system's own.
pub(crate) fn cgroup(name: &str) -> String {
    format!("cluster-{name}")
}

/// Removes everything. Called again, it finds nothing and succeeds.
pub(crate) fn down(place: &Place) -> Result<()> {
    machine::require_root()?;
    let place = absolute(place.clone())?;
    let instance = match Instance::try_acquire(&place.name)? {
        Ok(instance) => instance,
        Err(holder) => stop_process(&place, holder)?,
    };
    for (directory, flag) in [(&place.data_dir, "--data-dir"), (&place.run_dir, "--run-dir")] {
        check_ours(directory, &place.name, flag)?;
    }
    cgroups::kill(&cgroup(&place.name))?;
    mounts::detach(&place.run_dir)?;
    mounts::detach(&place.data_dir)?;
    Fabric::remove(&place.name, &place.run_dir)?;
    for directory in [&place.run_dir, &place.data_dir] {
        delete(directory).with_context(|| format!("cannot delete {}", directory.display()))?;
    }
    instance.delete().context("cannot delete the cluster's lock file")
}

/// Asks, then signals, then kills, and waits each time for the lock, which the process holds as long as it lives. Its pods are not asked:
/// nothing that they could still save or hand over will be there a moment later.
fn stop_process(place: &Place, mut holder: Option<Holder>) -> Result<Instance> {
    let deadline = Instant::now() + SIGNAL_TIMEOUT;
    while holder.is_none() && Instant::now() < deadline {
        // It has the lock, and is about to write who it is.
        match Instance::try_acquire(&place.name)? {
            Ok(instance) => return Ok(instance),
            Err(found) => holder = found,
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let holder = holder.as_ref();
    if let Some(Holder { data_dir, run_dir, .. }) = holder
        && (data_dir, run_dir) != (&place.data_dir, &place.run_dir)
    {
        bail!(
            "cluster `{}` runs with --data-dir {} --run-dir {}: give the same to end it",
            place.name,
            data_dir.display(),
            run_dir.display()
        );
    }
    if ask(&place.run_dir).is_ok()
        && let Some(instance) = Instance::wait(&place.name, STOP_TIMEOUT)?
    {
        return Ok(instance);
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // The lock was held when this number was read from it, and is held still: it is the same process.
        if let Some(Holder { pid, .. }) = holder {
            match kill(Pid::from_raw(*pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("cannot signal the cluster's process"),
            }
        }
        if let Some(instance) = Instance::wait(&place.name, SIGNAL_TIMEOUT)? {
            return Ok(instance);
        }
    }
    bail!("the process of cluster `{}` does not end", place.name)
}

fn ask(run_dir: &Path) -> io::Result<()> {
    let mut socket = UnixStream::connect(run_dir.join(SOCKET))?;
    socket.set_read_timeout(Some(ASK_TIMEOUT))?;
    socket.set_write_timeout(Some(ASK_TIMEOUT))?;
    socket.write_all(
        b"POST /shutdown?pods=keep HTTP/1.1\r\nhost: cluster\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    )?;
    let mut head = [0; 12];
    socket.read_exact(&mut head)?;
    if head.ends_with(b"200") { Ok(()) } else { Err(io::Error::other("shutdown refused")) }
}

fn check_ours(directory: &Path, name: &str, flag: &str) -> Result<()> {
    if !instance::is_marked(directory, name)
        && let Some(other) = instance::foreign(directory)?
    {
        bail!(
            "{} is not a directory of cluster `{name}` (it holds {other}): nothing was deleted; check {flag}",
            directory.display()
        );
    }
    Ok(())
}

/// The mark goes last: what is left of an interrupted deletion is still known as ours.
fn delete(directory: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match delete_once(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries < DELETE_TRIES => {
                tries += 1;
                std::thread::park_timeout(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn delete_once(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == MARKER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    match fs::remove_file(directory.join(MARKER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_dir(directory)
}
