//! Services and their endpoints as nodes and DNS need them, kept current by one pair of watches for all nodes of the process.
//!
//! [`ServiceCatalog`] is what readers share. A change marks the service's name dirty for every [`Subscription`]; whoever holds one
//! takes the names when it comes round, so a slow reader costs one set of names and never a queue.

mod model;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch as signal};

pub(crate) use self::model::{Endpoint, EndpointGroup, Protocol, Service, ServiceKind, ServicePort};

/// Which service: namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A service and the endpoints its slices list.
#[derive(Clone, Debug)]
pub(crate) struct ServiceView {
    pub(crate) service: Arc<Service>,
    pub(crate) groups: Vec<Arc<EndpointGroup>>,
}

/// Every service of the cluster, shared by all readers.
#[derive(Debug)]
pub struct ServiceCatalog {
    state: RwLock<State>,
    subscriptions: Mutex<Vec<Weak<Subscription>>>,
    synced: signal::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    services: HashMap<ServiceKey, Arc<Service>>,
    /// By service, then by the slice's own name.
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointGroup>>>,
    /// Which service a slice belonged to, by the slice's namespace and name.
    slice_owners: HashMap<ServiceKey, ServiceKey>,
    by_cluster_ip: HashMap<Ipv4Addr, ServiceKey>,
    by_endpoint_ip: HashMap<Ipv4Addr, BTreeSet<ServiceKey>>,
    namespaces: HashMap<String, usize>,
}

/// One reader's set of services that have changed since it last looked.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    dirty: Mutex<BTreeSet<ServiceKey>>,
    changed: Notify,
}

// === impl Subscription ===

impl Subscription {
    /// Waits until something has changed, and takes the names.
    pub(crate) async fn changed(&self) -> BTreeSet<ServiceKey> {
        loop {
            let taken = std::mem::take(&mut *self.dirty.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    fn mark(&self, key: &ServiceKey) {
        self.dirty.lock().insert(key.clone());
        self.changed.notify_one();
    }
}

// === impl ServiceCatalog ===

impl ServiceCatalog {
    /// An empty catalog; [`ServiceCatalog::follow`] fills it.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::default(),
            subscriptions: Mutex::default(),
            synced: signal::Sender::new(false),
        })
    }

    /// Watches Services and EndpointSlices until dropped. Answers a lost watch by a new one, with back-off.
    pub async fn follow(self: Arc<Self>, client: kube::Client) {
        watch::follow(self, client).await;
    }

    /// Resolves once both watches have delivered everything there was at their start.
    pub async fn synced(&self) {
        // The sender lives in self, so waiting cannot fail.
        let mut synced = self.synced.subscribe();
        let _sender_lives = synced.wait_for(|synced| *synced).await;
    }

    /// Whether [`ServiceCatalog::synced`] would resolve now.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// The addresses, with the port for the service's port `port`, of the endpoints of a service that take traffic now.
    #[must_use]
    pub fn ready_endpoints(&self, namespace: &str, name: &str, port: u16) -> Vec<std::net::SocketAddrV4> {
        let key = ServiceKey { namespace: namespace.into(), name: name.into() };
        let Some(view) = self.view(&key) else { return Vec::new() };
        let Some(port) = view.service.ports.iter().find(|candidate| candidate.port == port) else {
            return Vec::new();
        };
        view.backends(port)
            .into_iter()
            .map(|(endpoint, port)| std::net::SocketAddrV4::new(endpoint.ip, port))
            .collect()
    }

    pub(crate) fn subscribe(&self) -> Arc<Subscription> {
        let subscription = Arc::new(Subscription::default());
        let mut subscriptions = self.subscriptions.lock();
        subscriptions.retain(|other| other.strong_count() > 0);
        subscriptions.push(Arc::downgrade(&subscription));
        subscription
    }

    pub(crate) fn view(&self, key: &ServiceKey) -> Option<ServiceView> {
        self.state.read().view(key)
    }

    pub(crate) fn keys(&self) -> Vec<ServiceKey> {
        self.state.read().services.keys().cloned().collect()
    }

    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        self.state.read().namespaces.contains_key(namespace)
    }

    pub(crate) fn by_cluster_ip(&self, ip: Ipv4Addr) -> Option<ServiceKey> {
        self.state.read().by_cluster_ip.get(&ip).cloned()
    }

    /// The services that list `ip` as an endpoint, with what they know of it.
    pub(crate) fn by_endpoint_ip(&self, ip: Ipv4Addr) -> Vec<(ServiceKey, ServiceView)> {
        let state = self.state.read();
        let keys = state.by_endpoint_ip.get(&ip);
        keys.into_iter().flatten().filter_map(|key| Some((key.clone(), state.view(key)?))).collect()
    }

    pub(crate) fn mark_synced(&self) {
        self.synced.send_replace(true);
    }

    pub(crate) fn put_service(&self, key: &ServiceKey, service: Service) {
        self.state.write().put_service(key, service);
        self.mark(key);
    }

    pub(crate) fn remove_service(&self, key: &ServiceKey) {
        self.state.write().remove_service(key);
        self.mark(key);
    }

    /// `slice` is the slice's own namespace and name, `owner` the service it belongs to.
    pub(crate) fn put_slice(&self, slice: &ServiceKey, owner: &ServiceKey, group: EndpointGroup) {
        let before = self.state.write().put_slice(slice, owner, group);
        if let Some(before) = before.filter(|before| before != owner) {
            self.mark(&before);
        }
        self.mark(owner);
    }

    pub(crate) fn remove_slice(&self, slice: &ServiceKey) {
        let owner = self.state.write().remove_slice(slice);
        if let Some(owner) = owner {
            self.mark(&owner);
        }
    }

    pub(crate) fn slice_keys(&self) -> Vec<ServiceKey> {
        self.state.read().slice_owners.keys().cloned().collect()
    }

    fn mark(&self, key: &ServiceKey) {
        for subscription in self.subscriptions.lock().iter().filter_map(Weak::upgrade) {
            subscription.mark(key);
        }
    }
}

// === impl State ===

impl State {
    fn view(&self, key: &ServiceKey) -> Option<ServiceView> {
        let service = self.services.get(key)?.clone();
        let groups =
            self.slices.get(key).map(|slices| slices.values().cloned().collect()).unwrap_or_default();
        Some(ServiceView { service, groups })
    }

    fn put_service(&mut self, key: &ServiceKey, service: Service) {
        self.remove_service(key);
        if let ServiceKind::ClusterIp(ip) = service.kind {
            self.by_cluster_ip.insert(ip, key.clone());
        }
        *self.namespaces.entry(key.namespace.clone()).or_default() += 1;
        self.services.insert(key.clone(), Arc::new(service));
    }

    fn remove_service(&mut self, key: &ServiceKey) {
        let Some(old) = self.services.remove(key) else { return };
        if let ServiceKind::ClusterIp(ip) = old.kind
            && self.by_cluster_ip.get(&ip) == Some(key)
        {
            self.by_cluster_ip.remove(&ip);
        }
        if let Some(count) = self.namespaces.get_mut(&key.namespace) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(&key.namespace);
            }
        }
    }

    fn put_slice(
        &mut self,
        slice: &ServiceKey,
        owner: &ServiceKey,
        group: EndpointGroup,
    ) -> Option<ServiceKey> {
        let before = self.remove_slice(slice);
        for endpoint in &group.endpoints {
            self.by_endpoint_ip.entry(endpoint.ip).or_default().insert(owner.clone());
        }
        self.slice_owners.insert(slice.clone(), owner.clone());
        self.slices.entry(owner.clone()).or_default().insert(slice.name.clone(), Arc::new(group));
        before
    }

    fn remove_slice(&mut self, slice: &ServiceKey) -> Option<ServiceKey> {
        let owner = self.slice_owners.remove(slice)?;
        let slices = self.slices.get_mut(&owner)?;
        let removed = slices.remove(&slice.name);
        let still: BTreeSet<Ipv4Addr> =
            slices.values().flat_map(|group| group.endpoints.iter().map(|endpoint| endpoint.ip)).collect();
        if slices.is_empty() {
            self.slices.remove(&owner);
        }
        for endpoint in removed.iter().flat_map(|group| &group.endpoints) {
            if still.contains(&endpoint.ip) {
                continue;
            }
            if let Some(owners) = self.by_endpoint_ip.get_mut(&endpoint.ip) {
                owners.remove(&owner);
                if owners.is_empty() {
                    self.by_endpoint_ip.remove(&endpoint.ip);
                }
            }
        }
        Some(owner)
    }
}

#[cfg(test)]
pub(crate) mod tests;
