//! What workers read: a snapshot with everything compiled that is worth compiling. Parts that did not change are carried over, so that
//! endpoint states, session caches and compiled formats survive a push.

mod cluster;
mod kept;
mod listener;
mod profile;
mod secrets;

pub use cluster::{ClusterPlan, TlsSlot};
pub use kept::Kept;
pub use listener::{ChainPlan, ChainTls, HcmPlan, ListenerPlan, OpenLimit, TcpPlan};
pub use secrets::SecretStore;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base_tls::Rotating;
use sidecar_model::snapshot::Snapshot;
use sidecar_route::RouteTable;

use crate::dns::{self, Resolved};

/// The configuration that is in force.
#[derive(Debug, Default)]
pub struct Config {
    /// Counts the builds: workers compare it to see a change.
    pub version: u64,
    /// What it was built from.
    pub snapshot: Arc<Snapshot>,
    /// Listeners by name.
    pub listeners: HashMap<Arc<str>, Arc<ListenerPlan>>,
    /// Listeners that receive connections by their original destination.
    by_destination: HashMap<(IpAddr, u16), Arc<ListenerPlan>>,
    /// Those among them for any address.
    by_port: HashMap<u16, Arc<ListenerPlan>>,
    /// Route tables by name.
    pub routes: HashMap<Arc<str>, Arc<RouteTable>>,
    /// Clusters by name.
    pub clusters: HashMap<Arc<str>, Arc<ClusterPlan>>,
}

impl Config {
    /// Compiles a snapshot over what is in force. `identity` is the workload's certificate, `kept` is what outlives it,
    /// `resolved` the addresses behind names; endpoints that were not there before begin at `now_ms`.
    pub(crate) fn build(
        snapshot: Arc<Snapshot>,
        previous: &Self,
        identity: &Rotating,
        kept: &mut Kept,
        resolved: &Resolved,
        now_ms: u64,
    ) -> Self {
        kept.secrets.update(&snapshot);
        let mut config = Self { version: previous.version + 1, ..Self::default() };
        for (name, route) in snapshot.routes.iter() {
            let kept = previous.routes.get(name).filter(|table| Arc::ptr_eq(table.config(), route));
            let table = kept.map_or_else(|| Arc::new(RouteTable::new(Arc::clone(route))), Arc::clone);
            config.routes.insert(Arc::clone(name), table);
        }
        for (name, cluster) in snapshot.clusters.iter() {
            let endpoints = match dns::options(cluster) {
                Some(_) => resolved.get(name),
                None => snapshot.endpoints_of(cluster),
            };
            let previous = previous.clusters.get(name);
            let secrets = &mut kept.secrets;
            let plan = ClusterPlan::carry_over(previous, cluster, endpoints, identity, secrets, now_ms);
            config.clusters.insert(Arc::clone(name), plan);
        }
        for (name, listener) in snapshot.listeners.iter() {
            let same = previous.listeners.get(name).filter(|plan| Arc::ptr_eq(&plan.listener, listener));
            let plan = same.map_or_else(
                || Arc::new(ListenerPlan::new(Arc::clone(listener), identity, kept)),
                Arc::clone,
            );
            config.index(&plan);
            config.listeners.insert(Arc::clone(name), plan);
        }
        config.snapshot = snapshot;
        config
    }

    fn index(&mut self, plan: &Arc<ListenerPlan>) {
        if plan.listener.bind_to_port {
            return;
        }
        let addresses = std::iter::once(&plan.listener.address).chain(&plan.listener.additional_addresses);
        for address in addresses.filter_map(sidecar_model::Address::socket) {
            if address.ip().is_unspecified() {
                self.by_port.insert(address.port(), Arc::clone(plan));
            } else {
                self.by_destination.insert((address.ip(), address.port()), Arc::clone(plan));
            }
        }
    }

    /// The listener that takes connections redirected from `destination`: one for the very address, else one for its port.
    pub fn listener_for(&self, destination: SocketAddr) -> Option<&Arc<ListenerPlan>> {
        let exact = self.by_destination.get(&(destination.ip(), destination.port()));
        exact.or_else(|| self.by_port.get(&destination.port()))
    }
}
