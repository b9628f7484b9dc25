//! The node's container runtime: one value, cheap to clone, rebuilt from disk when opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::error::Error;
use crate::exec::{ExecResult, ExecSession, ExecSpec};
use crate::image::ImageStore;
use crate::spec::{ContainerSpec, SandboxSpec};
use crate::status::{ContainerEvent, ContainerId, ContainerStatus, Sandbox, Stats};

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
    images: ImageStore,
    events: broadcast::Sender<ContainerEvent>,
}

// === impl Runtime ===

impl Runtime {
    /// Opens the runtime and takes up the containers that are there: the running ones go on, what ended meanwhile is reported as ended.
    pub async fn open(config: RuntimeConfig) -> Result<Self, Error> {
        let images = ImageStore::open(&config.data_dir.join("images"))?;
        Ok(Self { inner: Arc::new(Inner { images, events: broadcast::channel(1024).0 }) })
    }

    /// The images of this node.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Starts and exits from now on. A receiver that lags must look at [`Runtime::list_containers`] again.
    pub fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }

    /// Makes namespaces and cgroup of a pod. A sandbox of this UID that exists is answered as it is.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, Error> {
        Err(Error::NoSandbox(spec.uid))
    }

    /// Removes a sandbox with all its containers, killing what runs. Succeeds if there is none.
    pub async fn remove_sandbox(&self, _uid: &str) -> Result<(), Error> {
        Ok(())
    }

    /// All sandboxes.
    pub async fn list_sandboxes(&self) -> Result<Vec<Sandbox>, Error> {
        Ok(Vec::new())
    }

    /// Prepares a container: writable layer, bundle, record. Asked again for the same pod, name and attempt it answers the same container.
    pub async fn create_container(&self, spec: ContainerSpec) -> Result<ContainerId, Error> {
        Err(Error::NoSandbox(spec.pod_uid))
    }

    /// Starts a created container. When it fails with [`Error::Start`] the container is `Exited` with code 128 and reason `StartError`.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), Error> {
        Err(Error::NoContainer(id.to_string()))
    }

    /// Sends `signal`, waits up to `grace`, kills, and answers once the container has ended. A container that does not run is left alone.
    pub async fn stop_container(&self, id: &ContainerId, _signal: i32, _grace: Duration) -> Result<(), Error> {
        Err(Error::NoContainer(id.to_string()))
    }

    /// Removes a container and its writable layer, killing it if it runs; its log stays. Succeeds if there is none.
    pub async fn remove_container(&self, _id: &ContainerId) -> Result<(), Error> {
        Ok(())
    }

    /// All containers, oldest first.
    pub async fn list_containers(&self) -> Vec<ContainerStatus> {
        Vec::new()
    }

    /// One container.
    pub async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, Error> {
        Err(Error::NoContainer(id.to_string()))
    }

    /// Runs a command to its end and collects its output; killed after `timeout`.
    pub async fn exec_sync(&self, id: &ContainerId, _argv: Vec<String>, _timeout: Duration) -> Result<ExecResult, Error> {
        Err(Error::NoContainer(id.to_string()))
    }

    /// Starts a command in a running container, with the container's user, capabilities, filter and cgroup.
    pub async fn exec(&self, id: &ContainerId, _spec: ExecSpec) -> Result<ExecSession, Error> {
        Err(Error::NoContainer(id.to_string()))
    }

    /// Joins the streams of a running container; output from now on. The exit code is the container's.
    pub async fn attach(&self, id: &ContainerId) -> Result<ExecSession, Error> {
        Err(Error::NoContainer(id.to_string()))
    }

    /// Usage of a running container.
    pub async fn stats(&self, id: &ContainerId) -> Result<Stats, Error> {
        Err(Error::NoContainer(id.to_string()))
    }

    /// Usage of a whole sandbox.
    pub async fn sandbox_stats(&self, uid: &str) -> Result<Stats, Error> {
        Err(Error::NoSandbox(uid.to_owned()))
    }
}
