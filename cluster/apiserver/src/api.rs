//! The running server: its parts, its background tasks, start and stop.

use std::{net::SocketAddr, sync::Arc};

use base_tls::{Client, ClientAuth, Server, ServerCheck};
use cluster_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::webhooks::Webhooks,
    allocator::Allocator,
    authn::tokens::ServiceAccountKeys,
    authz::Rbac,
    bootstrap,
    config::{Config, Dialer, Error},
    crd,
    kinds::KindTable,
    metrics::Metrics,
    server,
};

/// The parts that handlers use.
pub(crate) struct Api {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) kinds: KindTable,
    pub(crate) keys: ServiceAccountKeys,
    pub(crate) rbac: Rbac,
    pub(crate) webhooks: Webhooks,
    pub(crate) allocator: Allocator,
    pub(crate) definitions: crd::Definitions,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) kubelet_client: Client,
    pub(crate) ca_pem: String,
    pub(crate) metrics: Metrics,
    pub(crate) advertise: SocketAddr,
    pub(crate) version: String,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("advertise", &self.advertise).finish_non_exhaustive()
    }
}

/// Serves until `shutdown` is cancelled, then lets requests end for a few seconds.
///
/// # Errors
/// When identities or keys cannot be used, or the store refuses the first objects.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let listeners = config.listeners;
    let tls = Server::new(&config.identity, ClientAuth::Optional, &[b"h2", b"http/1.1"]);
    let api = Arc::new(Api {
        kinds: KindTable::new(),
        keys: ServiceAccountKeys::new(&config.service_account_key, &config.service_account_issuer)?,
        rbac: Rbac::default(),
        webhooks: Webhooks::default(),
        allocator: Allocator::default(),
        definitions: crd::Definitions::default(),
        // Kubelets prove their address.
        kubelet_client: Client::new(&config.kubelet_client_identity, ServerCheck::Name, &[b"http/1.1"]),
        store: config.store,
        dialer: config.dialer,
        ca_pem: config.ca_pem,
        metrics: Metrics::default(),
        advertise: config.advertise,
        version: config.version,
        shutdown: shutdown.clone(),
        tasks: TaskTracker::new(),
    });
    bootstrap::run(&api).await?;
    api.allocator.load(&api)?;
    start_background(&api)?;
    let mut accepting = Vec::new();
    for listener in listeners {
        accepting.push(api.tasks.spawn(server::accept(Arc::clone(&api), listener, tls.clone())));
    }
    shutdown.cancelled().await;
    api.tasks.close();
    if tokio::time::timeout(std::time::Duration::from_secs(5), api.tasks.wait()).await.is_err() {
        tracing::warn!(open = api.tasks.len(), "API server stops with requests still open");
    }
    Ok(())
}

/// Caches that follow the store. Each is filled before this returns.
fn start_background(api: &Arc<Api>) -> Result<(), Error> {
    crate::authz::follow(api)?;
    crate::admission::webhooks::follow(api)?;
    crd::follow(api)?;
    bootstrap::expire_events(api);
    Ok(())
}
