//! Containers: started through a helper, watched, taken up again, removed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::process::Child;
use tokio::sync::{broadcast, watch};

use super::sandboxes::helper_died;
use super::{Inner, helper, path_error};
use crate::control::Report;
use crate::error::Error;
use crate::exec::register;
use crate::record::{self, ContainerRecord, StateRecord};
use crate::status::{ContainerEvent, ContainerEventKind, ContainerId, ContainerState, ContainerStatus, Exit};
use crate::sys;

/// How long a killed container may take to be gone before that is an error. Own choice.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// A container in memory: what was asked, and where it is in its life.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    pub(crate) phase: watch::Sender<Phase>,
    /// Start and removal exclude each other.
    gate: tokio::sync::Mutex<()>,
}

/// Life of a container, with what is needed to signal it.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Created,
    Running(StateRecord),
    Exited(Exit),
}

// === impl Container ===

impl Container {
    pub(super) fn new(record: ContainerRecord, phase: Phase) -> Arc<Self> {
        Arc::new(Self { record, phase: watch::channel(phase).0, gate: tokio::sync::Mutex::new(()) })
    }

    pub(super) fn id(&self) -> ContainerId {
        ContainerId(self.record.id.clone())
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let state = match &*self.phase.borrow() {
            Phase::Created => ContainerState::Created,
            Phase::Running(state) => ContainerState::Running { pid: state.pid, started_at: state.started_at },
            Phase::Exited(exit) => ContainerState::Exited(exit.clone()),
        };
        let (record, spec) = (&self.record, &self.record.spec);
        ContainerStatus {
            id: self.id(),
            pod_uid: spec.pod_uid.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.clone(),
            image_id: record.image_id.clone(),
            created_at: record.created_at,
            state,
            log_path: spec.log_path.clone(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
        }
    }

    /// The running container, or an error that says what it is instead.
    pub(super) fn running(&self) -> Result<StateRecord, Error> {
        let state = match &*self.phase.borrow() {
            Phase::Running(state) => return Ok(*state),
            Phase::Created => "created",
            Phase::Exited(_) => "exited",
        };
        Err(Error::WrongState { id: self.record.id.clone(), state, wanted: "running" })
    }

    /// Signals the first process, if it still is the one that was started.
    pub(super) fn signal(&self, signal: i32) -> Result<(), Error> {
        let Ok(state) = self.running() else { return Ok(()) };
        let send = || -> io::Result<()> {
            let pidfd = sys::pidfd_open(state.pid)?;
            if parent_of(state.pid) != Some(state.shim_pid) {
                return Ok(());
            }
            sys::pidfd_send_signal(pidfd.as_fd(), signal)
        };
        match send() {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                Err(Error::io(format!("cannot signal container {}", self.record.id))(error))
            }
            _ => Ok(()),
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> Option<Exit> {
        let mut phases = self.phase.subscribe();
        let phase = phases.wait_for(|phase| matches!(phase, Phase::Exited(_))).await.ok()?;
        match &*phase {
            Phase::Exited(exit) => Some(exit.clone()),
            Phase::Created | Phase::Running(_) => None,
        }
    }

    fn finish(&self, exit: Exit, events: &broadcast::Sender<ContainerEvent>) {
        self.phase.send_replace(Phase::Exited(exit.clone()));
        self.tell(ContainerEventKind::Exited(exit), events);
    }

    fn tell(&self, kind: ContainerEventKind, events: &broadcast::Sender<ContainerEvent>) {
        // Nobody may be listening.
        let _ =
            events.send(ContainerEvent { id: self.id(), pod_uid: self.record.spec.pod_uid.clone(), kind });
    }
}

impl Inner {
    pub(super) async fn start(self: Arc<Self>, container: Arc<Container>) -> Result<(), Error> {
        let _gate = container.gate.lock().await;
        let state = match &*container.phase.borrow() {
            Phase::Created => None,
            Phase::Running(_) => Some("running"),
            Phase::Exited(_) => Some("exited"),
        };
        if let Some(state) = state {
            return Err(Error::WrongState { id: container.record.id.clone(), state, wanted: "created" });
        }
        let dir = self.container_dir(&container.record.id);
        let (mut child, control) = helper::spawn(&self.program, &self.config, "run", &dir)?;
        let report = helper::first_report(&control).await;
        if report.is_err() {
            // It may have ended by now; then there is nothing to kill.
            let _ = child.start_kill();
        }
        match report? {
            Some((Report::Started { .. }, _)) => {
                let state = record::read::<StateRecord>(&dir.join(record::STATE))?
                    .ok_or_else(|| helper_died(&dir))?;
                container.phase.send_replace(Phase::Running(state));
                container.tell(ContainerEventKind::Started, &self.events);
                self.watch(container.clone(), dir, Watched::Child(child));
                Ok(())
            }
            Some((Report::Failed { message }, _)) => {
                reap(child).await;
                // A failure that left no status concerns this attempt only.
                if let Some(exit) = record::read::<Exit>(&dir.join(record::EXIT))? {
                    container.finish(exit, &self.events);
                }
                Err(Error::Start(message))
            }
            _ => {
                reap(child).await;
                let error = helper_died(&dir);
                container.finish(last_words(&dir, None), &self.events);
                Err(error)
            }
        }
    }

    /// Reports the end of a container when its helper ends.
    fn watch(&self, container: Arc<Container>, dir: PathBuf, watched: Watched) {
        let events = self.events.clone();
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            match watched {
                Watched::Child(child) => reap(child).await,
                Watched::Stranger(pidfd) => drop(pidfd.readable().await),
            }
            let started_at = container.running().ok().map(|state| state.started_at);
            container.finish(last_words(&dir, started_at), &events);
        });
    }

    pub(super) async fn stop(
        &self,
        container: &Container,
        signal: i32,
        grace: Duration,
    ) -> Result<(), Error> {
        if !matches!(&*container.phase.borrow(), Phase::Running(_)) {
            return Ok(());
        }
        if !grace.is_zero() {
            container.signal(signal)?;
            if tokio::time::timeout(grace, container.ended()).await.is_ok() {
                return Ok(());
            }
        }
        container.signal(libc::SIGKILL)?;
        match tokio::time::timeout(KILL_WAIT, container.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Timeout(KILL_WAIT)),
        }
    }

    pub(super) async fn drop_container(&self, container: &Arc<Container>) -> Result<(), Error> {
        let _gate = container.gate.lock().await;
        self.stop(container, libc::SIGKILL, Duration::ZERO).await?;
        self.cgroups.remove(&container.record.cgroup).await?;
        self.remove_files(&container.record.id)?;
        self.containers.lock().remove(&container.record.id);
        Ok(())
    }

    /// Removes writable layers whose container is gone, with the run directory or before.
    pub(super) fn clear_snapshots(&self) -> Result<(), Error> {
        for dir in super::entries(&self.config.data_dir.join("snapshots"))? {
            let Some(id) = dir.file_name().and_then(|name| name.to_str()) else { continue };
            // The record is there before the layer and goes after it, whoever makes the container.
            if !self.container_dir(id).exists() {
                fs::remove_dir_all(&dir).map_err(path_error("remove", &dir))?;
            }
        }
        Ok(())
    }

    /// Takes up the containers on disk.
    pub(super) async fn load_containers(&self) -> Result<(), Error> {
        for dir in super::entries(&self.config.run_dir.join("containers"))? {
            let Some(found) = record::read::<ContainerRecord>(&dir.join(record::RECORD))? else { continue };
            if found.owner == self.config.cgroup_parent {
                self.load_container(found, dir).await?;
            }
        }
        Ok(())
    }

    async fn load_container(&self, found: ContainerRecord, dir: PathBuf) -> Result<(), Error> {
        if !dir.join(record::SHIM).exists() {
            // Creation was interrupted; whoever asked for it will ask again.
            self.cgroups.remove(&found.cgroup).await?;
            return self.remove_files(&found.id);
        }
        wait_started(&dir).await;
        let (id, state) = (found.id.clone(), record::read::<StateRecord>(&dir.join(record::STATE))?);
        let helper = state.and_then(|state| Some((state, sys::pidfd_open(state.shim_pid).ok()?)));
        // Only while the helper holds its lock is the process id surely its own.
        let container = match helper {
            Some((state, pidfd)) if locked(&dir) => {
                let container = Container::new(found, Phase::Running(state));
                let pidfd = register(pidfd).map_err(Error::io("cannot watch a helper"))?;
                self.watch(container.clone(), dir, Watched::Stranger(pidfd));
                container
            }
            _ => {
                let exit = record::read::<Exit>(&dir.join(record::EXIT))?;
                let exit = exit.or_else(|| state.map(|state| last_words(&dir, Some(state.started_at))));
                Container::new(found, exit.map_or(Phase::Created, Phase::Exited))
            }
        };
        self.containers.lock().insert(id, container);
        Ok(())
    }

    pub(super) fn remove_files(&self, id: &str) -> Result<(), Error> {
        // The record goes last, so that an interrupted removal can be repeated.
        let dir = self.container_dir(id);
        for path in [self.snapshot_dir(id), dir.join(record::SHIM), dir] {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(path_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn container_dir(&self, id: &str) -> PathBuf {
        self.config.run_dir.join("containers").join(id)
    }

    pub(super) fn snapshot_dir(&self, id: &str) -> PathBuf {
        self.config.data_dir.join("snapshots").join(id)
    }
}

/// A helper whose end means the container's end.
enum Watched {
    Child(Child),
    Stranger(Arc<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>),
}

async fn reap(mut child: Child) {
    // It can only fail if someone else reaped the helper, and then it is gone as well.
    let _ = child.wait().await;
}

/// What the helper left; if it was killed, nothing is known.
fn last_words(dir: &Path, started_at: Option<Timestamp>) -> Exit {
    if let Ok(Some(exit)) = record::read::<Exit>(&dir.join(record::EXIT)) {
        return exit;
    }
    tracing::warn!(container = %dir.display(), "Helper of a container died without leaving an exit status");
    let exit = Exit {
        code: 137,
        signal: None,
        oom_killed: false,
        reason: "ContainerStatusUnknown".to_owned(),
        message: "the container's helper process died, so its exit status is not known".to_owned(),
        started_at,
        finished_at: Timestamp::now(),
    };
    // Kept, so that every later reader sees the same time.
    let _ = record::write(&dir.join(record::EXIT), &exit);
    exit
}

/// A previous process may have started the container a moment ago; its helper then holds the lock but has not written its state.
async fn wait_started(dir: &Path) {
    const ROUNDS_MAX: usize = 200;
    for _ in 0..ROUNDS_MAX {
        let settled = dir.join(record::STATE).exists() || dir.join(record::EXIT).exists();
        if settled || !locked(dir) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a helper lives.
fn locked(dir: &Path) -> bool {
    File::open(dir.join(record::LOCK)).is_ok_and(|file| file.try_lock_shared().is_err())
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, but not a closing parenthesis after the last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
