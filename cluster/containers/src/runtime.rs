//! The node's container runtime: one value, cheap to clone, rebuilt from disk when opened.

mod commands;
mod containers;
mod create;
pub(crate) mod helper;
mod sandboxes;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub(crate) use self::containers::Container;
use crate::bundle::HostLimits;
use crate::cgroup::Cgroups;
use crate::error::Error;
use crate::exec::{ExecResult, ExecSession, ExecSpec};
use crate::image::ImageStore;
use crate::record::{self, ContainerRecord, SandboxRecord};
use crate::spec::{ContainerSpec, SandboxSpec};
use crate::status::{ContainerEvent, ContainerId, ContainerStatus, Sandbox, Stats};

/// Events a slow receiver may be behind. Own choice: some for each of 110 pods.
const EVENTS_MAX: usize = 1024;

/// Where a runtime keeps things and whom it asks for help.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Images and writable layers; must be on a real file system (overlayfs upper directories).
    pub data_dir: PathBuf,
    /// `containers/<id>` and `sandboxes/<uid>`; may be lost with a reboot, with the containers.
    pub run_dir: PathBuf,
    /// Parent of all cgroups, relative to the hierarchy's root: `<cluster>/<node>`. Also marks what this runtime owns:
    /// several runtimes with different parents may share both directories.
    pub cgroup_parent: String,
    /// Program whose `main` calls [`crate::shim_main`].
    pub shim: PathBuf,
    /// Arguments before ours, for instance `["shim"]`.
    pub shim_args: Vec<String>,
}

/// The containers of one node.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RuntimeConfig,
    images: ImageStore,
    cgroups: Cgroups,
    limits: HostLimits,
    program: helper::Program,
    events: broadcast::Sender<ContainerEvent>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    sandboxes: Mutex<BTreeMap<String, SandboxRecord>>,
    sandbox_gate: tokio::sync::Mutex<()>,
    /// Watchers of helpers; they end with the runtime, the helpers do not.
    tasks: Mutex<JoinSet<()>>,
}

// === impl Runtime ===

impl Runtime {
    /// Opens the runtime and takes up the containers that are there: the running ones go on, what ended meanwhile is reported as ended.
    pub async fn open(config: RuntimeConfig) -> Result<Self, Error> {
        if config.data_dir.as_os_str().as_encoded_bytes().contains(&b',') {
            let text = format!("the data directory {} must not contain a comma", config.data_dir.display());
            return Err(Error::Invalid(text));
        }
        for dir in [
            config.run_dir.join("containers"),
            config.run_dir.join("sandboxes"),
            config.data_dir.join("snapshots"),
        ] {
            fs::create_dir_all(&dir).map_err(path_error("make", &dir))?;
            // They hold environments and writable layers with whatever modes the containers gave their files.
            set_mode(&dir, 0o700)?;
        }
        let cgroups = Cgroups::detect()?;
        let inner = Arc::new(Inner {
            images: ImageStore::open(&config.data_dir.join("images"))?,
            program: helper::Program::open(&config.shim)?,
            limits: create::host_limits(cgroups.limits_devices())?,
            cgroups,
            config,
            events: broadcast::channel(EVENTS_MAX).0,
            containers: Mutex::default(),
            sandboxes: Mutex::default(),
            sandbox_gate: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        });
        inner.load_sandboxes().await?;
        inner.load_containers().await?;
        inner.clear_snapshots()?;
        Ok(Self { inner })
    }

    /// The images of this node.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Deletes images nobody names and layers no image and no container uses; answers the freed bytes.
    pub async fn collect_images(&self) -> Result<u64, Error> {
        let mut in_use = Vec::new();
        for dir in entries(&self.inner.config.run_dir.join("containers"))? {
            // Of every runtime that shares the directory.
            in_use.extend(
                record::read::<ContainerRecord>(&dir.join(record::RECORD))?
                    .into_iter()
                    .flat_map(|r| r.layers),
            );
        }
        Ok(self.inner.images.collect(&in_use).await?)
    }

    /// Starts and exits from now on. A receiver that lags must look at [`Runtime::list_containers`] again.
    pub fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }

    /// Makes namespaces and cgroup of a pod. A sandbox of this UID that exists is answered as it is.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, Error> {
        let inner = self.inner.clone();
        finish(async move { inner.make_sandbox(spec).await }).await
    }

    /// Removes a sandbox with all its containers, killing what runs. Succeeds if there is none.
    pub async fn remove_sandbox(&self, uid: &str) -> Result<(), Error> {
        let (inner, uid) = (self.inner.clone(), uid.to_owned());
        finish(async move { inner.drop_sandbox(&uid).await }).await
    }

    /// All sandboxes.
    pub async fn list_sandboxes(&self) -> Result<Vec<Sandbox>, Error> {
        Ok(self.inner.sandboxes.lock().values().map(sandboxes::sandbox).collect())
    }

    /// Prepares a container: writable layer, bundle, record. Asked again for the same pod, name and attempt it answers the same container.
    pub async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error> {
        let inner = self.inner.clone();
        finish(async move { blocking(move || inner.make_container(spec)).await }).await
    }

    /// Starts a created container. When it fails with [`Error::Start`] the container is `Exited` with code 128 and reason `StartError`.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        let (inner, container) = (self.inner.clone(), self.container(id)?);
        finish(inner.start(container)).await
    }

    /// Sends `signal`, waits up to `grace`, kills, and answers once the container has ended. A container that does not run is left alone.
    /// Cancel-safe: a caller that gives up waiting only leaves out the kill.
    pub async fn stop_container(&self, id: &ContainerId, signal: i32, grace: Duration) -> Result<(), Error> {
        self.inner.stop(&*self.container(id)?, signal, grace).await
    }

    /// Sends a signal to the first process of a running container and waits for nothing.
    pub async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        self.container(id)?.signal(signal)
    }

    /// Removes a container and its writable layer, killing it if it runs; its log stays. Succeeds if there is none.
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        let inner = self.inner.clone();
        finish(async move { inner.drop_container(&container).await }).await
    }

    /// All containers, oldest first.
    pub async fn list_containers(&self) -> Vec<ContainerStatus> {
        let mut all: Vec<_> = self.inner.containers.lock().values().map(|c| c.status()).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        all
    }

    /// One container.
    pub async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, Error> {
        Ok(self.container(id)?.status())
    }

    /// Runs a command to its end and collects its output; killed after `timeout`.
    pub async fn exec_sync(
        &self,
        id: &ContainerId,
        argv: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecResult, Error> {
        self.inner.run_exec_sync(&*self.container(id)?, argv, timeout).await
    }

    /// Starts a command in a running container, with the container's user, capabilities, filter and cgroup.
    pub async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecSession, Error> {
        self.inner.run_exec(&*self.container(id)?, spec).await
    }

    /// Joins the streams of a running container; output from now on. The exit code is the container's.
    /// With `stdin_once` the end of this session's input is the end of the container's.
    pub async fn attach(&self, id: &ContainerId) -> Result<ExecSession, Error> {
        let container = self.container(id)?;
        let stdin = container.record.spec.stdin;
        self.inner.run_attach(container, stdin)
    }

    /// Like [`Runtime::attach`], but only watches.
    pub async fn attach_output(&self, id: &ContainerId) -> Result<ExecSession, Error> {
        self.inner.run_attach(self.container(id)?, false)
    }

    /// Usage of a running container.
    pub async fn stats(&self, id: &ContainerId) -> Result<Stats, Error> {
        self.inner.cgroups.stats(&self.container(id)?.record.cgroup)
    }

    /// Usage of a whole sandbox.
    pub async fn sandbox_stats(&self, uid: &str) -> Result<Stats, Error> {
        let cgroup = self.inner.sandboxes.lock().get(uid).map(|record| record.cgroup.clone());
        self.inner.cgroups.stats(&cgroup.ok_or_else(|| Error::NoSandbox(uid.to_owned()))?)
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, Error> {
        let found = self.inner.containers.lock().get(id.as_str()).cloned();
        found.ok_or_else(|| Error::NoContainer(id.to_string()))
    }
}

/// Directories below `dir` that are not being made.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(path_error("read", dir))? {
        let entry = entry.map_err(path_error("read", dir))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Runs work that must not stop half-way when its caller goes away.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(stopped(error)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(stopped(error)))
}

fn stopped(error: tokio::task::JoinError) -> Error {
    Error::Io { context: "the container runtime stopped".into(), source: io::Error::other(error) }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(path_error("set the mode of", path))
}

fn path_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()))
}
