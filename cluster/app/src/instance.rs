//! One process a cluster name: a lock that lives as long as the process, and a note that says who holds it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::cli::Place;
use crate::kubeconfig::write_private;

/// A process that was told to end and answers no longer has only its store and namespaces to close.
pub(crate) const ENDING_TIMEOUT: Duration = Duration::from_secs(5);
const LOCKS: &str = "/run/lock";
/// A file in both directories: only what carries it is ever deleted.
pub(crate) const MARKER: &str = ".mesh-cluster";

/// What the lock file says of its holder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Instance {
    file: Flock<File>,
    path: PathBuf,
}

// === impl Instance ===

impl Instance {
    /// Takes the lock of a cluster's name and notes this process in it. A process that does not answer (any more) is waited for.
    pub(crate) fn acquire(place: &Place, within: Duration) -> Result<Self> {
        let socket = place.run_dir.join(crate::control::SOCKET);
        let deadline = Instant::now() + within;
        loop {
            let holder = match Self::try_acquire(&place.name)? {
                Ok(mut instance) => {
                    let holder = Holder {
                        pid: std::process::id().cast_signed(),
                        data_dir: place.data_dir.clone(),
                        run_dir: place.run_dir.clone(),
                    };
                    instance
                        .note(&holder)
                        .with_context(|| format!("cannot write {}", instance.path.display()))?;
                    return Ok(instance);
                }
                Err(holder) => holder,
            };
            // One that answers is running; one that does not is starting or ending, and soon does or is gone.
            if UnixStream::connect(&socket).is_ok() || Instant::now() >= deadline {
                return Err(taken(&place.name, holder));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The lock, or who holds it.
    pub(crate) fn try_acquire(name: &str) -> Result<Result<Self, Option<Holder>>> {
        let path = Path::new(LOCKS).join(format!("mesh-cluster-{name}.lock"));
        fs::create_dir_all(LOCKS).context("cannot create /run/lock")?;
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.with_context(|| format!("cannot open {}", path.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Whoever ended a cluster may have deleted the file between our two steps: then it locks nobody out.
                Ok(file) if is_same(&file, &path) => return Ok(Ok(Self { file, path })),
                Ok(_deleted) => {}
                Err((mut file, _held)) => {
                    let mut text = String::new();
                    let _unreadable = file.read_to_string(&mut text);
                    return Ok(Err(serde_json::from_str(&text).ok()));
                }
            }
        }
    }

    /// Waits until the holder has gone, and takes the lock; `None` if it does not go in time.
    pub(crate) fn wait(name: &str, within: Duration) -> Result<Option<Self>> {
        let deadline = Instant::now() + within;
        loop {
            if let Ok(instance) = Self::try_acquire(name)? {
                return Ok(Some(instance));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            // The lock tells nobody when it comes free.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Deletes the lock file and gives the lock back.
    pub(crate) fn delete(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn note(&mut self, holder: &Holder) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(serde_json::to_string(holder)?.as_bytes())
    }
}

fn taken(name: &str, holder: Option<Holder>) -> anyhow::Error {
    match holder {
        Some(Holder { pid, data_dir, .. }) => anyhow!(
            "cluster `{name}` is running already (process {pid}, data in {}); use it, or end it with `cluster down --name {name}`",
            data_dir.display()
        ),
        None => anyhow!("cluster `{name}` is starting already"),
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Marks a directory as this cluster's. One that holds other things and no mark is refused, so that `down` can delete what it marked.
pub(crate) fn mark(directory: &Path, name: &str, flag: &str) -> Result<()> {
    let marker = directory.join(MARKER);
    match fs::read_to_string(&marker) {
        Ok(owner) if owner.trim() == name => return Ok(()),
        Ok(owner) => bail!(
            "{} belongs to cluster `{}`; choose another directory with {flag}",
            directory.display(),
            owner.trim()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", marker.display())),
    }
    if let Some(other) = foreign(directory)? {
        bail!(
            "{} is not a cluster's directory: it holds {other}; choose another with {flag}",
            directory.display()
        );
    }
    // Whole or not at all: a process may be killed at any moment.
    write_private(&marker, name.as_bytes()).with_context(|| format!("cannot write {}", marker.display()))
}

/// Something in an unmarked directory that no cluster put there. A log file may have been made on the cluster's behalf before it began.
pub(crate) fn foreign(directory: &Path) -> Result<Option<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.into_iter().find(|name| !name.ends_with(".log") && !name.starts_with(MARKER)))
}

/// Whether `directory` was marked as this cluster's.
pub(crate) fn is_marked(directory: &Path, name: &str) -> bool {
    fs::read_to_string(directory.join(MARKER)).is_ok_and(|owner| owner.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_runs() {
        let place = Place {
            name: format!("unit-{}", std::process::id()),
            data_dir: "/data".into(),
            run_dir: "/run/x".into(),
        };
        let first = Instance::acquire(&place, Duration::ZERO).unwrap();
        let error = Instance::acquire(&place, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()) && error.contains("/data"), "{error}");
        assert!(Instance::wait(&place.name, Duration::ZERO).unwrap().is_none());
        first.delete().unwrap();
        Instance::acquire(&place, Duration::ZERO).unwrap().delete().unwrap();
    }

    #[test]
    fn only_empty_or_own_directories_are_marked() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cluster.log"), "").unwrap();
        mark(directory.path(), "a", "--data-dir").unwrap();
        mark(directory.path(), "a", "--data-dir").unwrap();
        assert!(is_marked(directory.path(), "a") && !is_marked(directory.path(), "b"));
        assert!(mark(directory.path(), "b", "--data-dir").unwrap_err().to_string().contains("`a`"));
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("thesis.tex"), "").unwrap();
        let error = mark(home.path(), "a", "--data-dir").unwrap_err().to_string();
        assert!(error.contains("thesis.tex") && error.contains("--data-dir"), "{error}");
    }
}
