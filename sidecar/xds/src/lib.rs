//! The sidecar's side of the control plane: what it is told (ADS, by changes or by whole states) and who it is (its certificate).
//!
//! - [`config`]: what the caller has to know to begin;
//! - `state`: subscriptions, versions, acknowledgements of one stream after another, pure;
//! - `whole`: the same for control planes that send whole states, pure;
//! - `warming`: when a change is complete enough to be put into force, pure;
//! - `stream`: the stream itself, with reconnection and back-off;
//! - `saved`: the last good configuration in a file, for a start while the control plane is away;
//! - `files`: certificates and roots that configuration names by path;
//! - `certificate`: the workload's key and certificate, renewed at half of their life;
//! - `transport`: one TLS connection with HTTP/2, made small;
//! - [`status`]: what readiness and `config_dump` show.
//!
//! The crate knows nothing of listeners and requests: it hands out immutable snapshots.

mod certificate;
pub mod config;
mod files;
mod saved;
mod state;
pub mod status;
mod stream;
mod transport;
mod warming;
mod whole;

pub use config::{Config, Locality, Node, Protocol};
pub use status::Status;

use base_runtime::TaskGroup;
use base_tls::Rotating;
use sidecar_model::Snapshot;
use std::sync::Arc;
use tokio::sync::watch;

/// What a started client hands out. Dropping it ends nothing: the tasks end with their group.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The configuration in force, for those who only look at it.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The workload's certificate, empty until the first one was issued.
    pub identity: Rotating,
    /// What readiness and people ask for.
    pub status: Arc<Status>,
}

/// Starts the stream and the certificate's renewal as tasks of `tasks`, on the runtime of the caller.
///
/// `apply` puts a snapshot into force and returns when it is: a change is acknowledged to the control plane only after
/// that. It is called from the stream's task, first with the saved configuration if there is any.
pub fn start(
    config: Config,
    tasks: &TaskGroup,
    apply: impl FnMut(&Arc<Snapshot>) + Send + 'static,
) -> Handle {
    let config = Arc::new(config);
    let identity = Rotating::empty();
    let status = Arc::new(Status::default());
    let (sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    tasks.spawn("certificate", certificate::run(config.clone(), identity.clone(), status.clone()));
    tasks.spawn("discovery", stream::run(config, sender, Box::new(apply), status.clone()));
    Handle { snapshots, identity, status }
}
