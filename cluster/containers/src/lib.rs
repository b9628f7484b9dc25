//! Containers of one node: images, sandboxes, OCI bundles, the single-threaded helper that parents each container, exec, logs and cgroups.
//!
//! The crate knows nothing of the Kubernetes API: its caller turns a pod into a [`SandboxSpec`] and [`ContainerSpec`]s. It makes no network
//! namespaces either, it only joins the one it is given. Everything it needs to know after a restart is on disk: containers outlive the
//! process that started them, because each has a parent of its own ([`shim_main`]).
//!
//! The bundle format is the OCI runtime specification 1.0, the image formats are the OCI image layout and Docker's `save` archive.

mod bundle;
mod cgroup;
mod control;
mod error;
mod exec;
mod image;
mod record;
mod runtime;
mod seccomp;
mod shim;
mod spec;
mod status;
mod sys;

pub use error::Error;
pub use exec::{EXEC_OUTPUT_BYTES_MAX, ExecResult, ExecSession, ExecSpec, ExitWaiter, Input, Output, Resize};
pub use image::{Image, ImageConfig, ImageError, ImageStore};
pub use runtime::{Runtime, RuntimeConfig};
pub use shim::shim_main;
pub use spec::{ContainerSpec, Device, Mount, MountKind, Resources, SandboxSpec, Seccomp, User};
pub use status::{
    ContainerEvent, ContainerEventKind, ContainerId, ContainerState, ContainerStatus, Exit, Sandbox, Stats,
};
