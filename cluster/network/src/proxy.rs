//! kube-proxy of one node: services' addresses are translated to endpoints by nftables maps in the node's namespace.
//!
//! The table's skeleton (chains, empty maps) is fixed. One chain per number of buckets picks a bucket at random and looks the endpoint
//! up in that chain's map; a map of verdicts leads each service to its chain. Everything is loaded once as text, in one transaction;
//! after that each change is one netlink transaction of just the elements that differ from the shadow copy.

mod elements;
mod rules;
mod shadow;
mod skeleton;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::rules::NodeView;
use self::shadow::{Delta, Shadow};
use crate::fabric::{NodeNet, inside};
use crate::netlink::NetlinkSocket;
use crate::netns::NetNs;
use crate::services::{ServiceCatalog, ServiceKey};
use crate::{NetworkError, nft};

/// After a ruleset that nft refused; the next try starts from nothing.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps a node's rules equal to the catalog until dropped; `loaded` is told when they are for the first time. Refusals are logged and
/// answered by loading everything anew.
///
/// # Errors
/// When the node's namespace is gone.
pub async fn run_service_proxy(
    node: NodeNet,
    catalog: Arc<ServiceCatalog>,
    loaded: impl FnOnce() + Send,
) -> Result<(), NetworkError> {
    let namespace =
        NetNs::open(&node.net_ns).map_err(NetworkError::io("cannot open the node's namespace"))?;
    let mut proxy = Proxy { view: NodeView::of(&node), node, namespace, shadow: Shadow::default() };
    // A node without rules must refuse services' addresses at once; one with rules keeps them until better ones are known.
    if let Err(error) = proxy.ensure_skeleton().await {
        tracing::error!(node = proxy.node.name, %error, "Service rules not loaded");
    }
    let changes = catalog.subscribe();
    catalog.synced().await;
    let mut loaded = Some(loaded);
    loop {
        let failed = match proxy.load(&catalog).await {
            Ok(socket) => {
                if let Some(loaded) = loaded.take() {
                    loaded();
                }
                proxy.follow(socket, &catalog, &changes).await
            }
            Err(error) => error,
        };
        tracing::error!(node = proxy.node.name, error = %base_types::ErrorChain(&failed), "Service rules not loaded, trying again");
        tokio::time::sleep(RETRY).await;
    }
}

struct Proxy {
    node: NodeNet,
    view: NodeView,
    namespace: NetNs,
    shadow: Shadow,
}

// === impl Proxy ===

impl Proxy {
    async fn ensure_skeleton(&self) -> Result<(), NetworkError> {
        let node = self.node.clone();
        self.blocking(move || {
            if skeleton::is_loaded()? {
                return Ok(());
            }
            nft::load("the empty service rules", &skeleton::ruleset(&node, &[]))
        })
        .await
    }

    /// Replaces the whole table by what the catalog says, in one transaction.
    async fn load(&mut self, catalog: &ServiceCatalog) -> Result<NetlinkSocket, NetworkError> {
        self.shadow = Shadow::default();
        self.plan(catalog, catalog.keys());
        let elements = self.shadow.elements();
        let node = self.node.clone();
        self.blocking(move || {
            nft::load("the service rules", &skeleton::ruleset(&node, &elements))?;
            NetlinkSocket::netfilter().map_err(NetworkError::io("cannot open a netlink socket"))
        })
        .await
    }

    /// Applies changes until one is refused. A transaction of some elements takes microseconds, so it runs right here.
    async fn follow(
        &mut self,
        mut socket: NetlinkSocket,
        catalog: &ServiceCatalog,
        changes: &crate::services::Subscription,
    ) -> NetworkError {
        loop {
            let keys = changes.changed().await;
            let delta = self.plan(catalog, keys);
            if delta.is_empty() {
                continue;
            }
            tracing::debug!(node = self.node.name, elements = delta.len(), "Service rules changed");
            if let Err(refused) = socket.transaction(elements::messages(&delta)) {
                return NetworkError::io("cannot change the service rules")(refused.source);
            }
        }
    }

    fn plan(&mut self, catalog: &ServiceCatalog, keys: impl IntoIterator<Item = ServiceKey>) -> Delta {
        let wanted = keys
            .into_iter()
            .map(|key| {
                let elements =
                    catalog.view(&key).map(|view| rules::elements(&view, &self.view)).unwrap_or_default();
                (key, elements)
            })
            .collect();
        self.shadow.replace(wanted)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let namespace = self.namespace.clone();
        tokio::task::spawn_blocking(move || inside(&namespace, work)).await.map_err(|error| {
            NetworkError::io("a service rules thread ended early")(io::Error::other(error))
        })?
    }
}
