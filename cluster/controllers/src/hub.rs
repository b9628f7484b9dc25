//! The caches of all watched kinds and the queues of all controllers, and which change of what wakes whom.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    account,
    cache::{Cache, Change, Key},
    deployment, endpointslice, eviction,
    node::Leases,
    plan::Kind,
    queue::Queue,
    replicaset,
};

/// All watched objects.
#[derive(Debug, Default)]
pub struct Caches {
    /// All pods.
    pub pods: Cache<Pod>,
    /// All nodes.
    pub nodes: Cache<Node>,
    /// All namespaces.
    pub namespaces: Cache<Namespace>,
    /// All Services.
    pub services: Cache<Service>,
    /// All service accounts.
    pub service_accounts: Cache<ServiceAccount>,
    /// The ConfigMaps with the root certificate, one in each namespace.
    pub root_certificates: Cache<ConfigMap>,
    /// All EndpointSlices.
    pub endpoint_slices: Cache<EndpointSlice>,
    /// All Deployments.
    pub deployments: Cache<Deployment>,
    /// All ReplicaSets.
    pub replica_sets: Cache<ReplicaSet>,
    /// The Leases of nodes.
    pub node_leases: Cache<Lease>,
    /// When each node was last heard of.
    pub leases: Leases,
}

/// A queue for each controller.
#[derive(Debug, Default)]
pub struct Queues {
    /// Deployments.
    pub deployments: Queue<Key>,
    /// ReplicaSets.
    pub replica_sets: Queue<Key>,
    /// Services whose slices to look after.
    pub endpoint_slices: Queue<Key>,
    /// Namespaces that need a service account and the root certificate.
    pub accounts: Queue<Key>,
    /// Namespaces that are being deleted.
    pub namespaces: Queue<Key>,
    /// Nodes whose health to judge.
    pub nodes: Queue<Key>,
    /// Nodes whose pods may have to leave.
    pub evictions: Queue<Key>,
    /// Pods that may be left over.
    pub pods: Queue<Key>,
}

/// Caches and queues together.
#[derive(Debug, Default)]
pub struct Hub {
    /// The caches.
    pub caches: Caches,
    /// The queues.
    pub queues: Queues,
    synced: Notify,
}

/// A kind that is watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
    /// Its cache.
    fn cache(caches: &Caches) -> &Cache<Self>;
    /// Wakes the controllers that a change concerns.
    fn changed(hub: &Hub, change: &Change<Self>);
}

// === impl Hub ===

impl Hub {
    /// Takes in the answer to a write of ours.
    pub fn wrote(&self, kind: Kind, object: Value) {
        match kind {
            Kind::Pod => self.wrote_as::<Pod>(object),
            Kind::Node => self.wrote_as::<Node>(object),
            Kind::ServiceAccount => self.wrote_as::<ServiceAccount>(object),
            Kind::ConfigMap => self.wrote_as::<ConfigMap>(object),
            Kind::Service => self.wrote_as::<Service>(object),
            Kind::EndpointSlice => self.wrote_as::<EndpointSlice>(object),
            Kind::Deployment => self.wrote_as::<Deployment>(object),
            Kind::ReplicaSet => self.wrote_as::<ReplicaSet>(object),
        }
    }

    /// Takes in that a delete of ours removed an object.
    pub fn deleted(&self, kind: Kind, key: &Key, uid: Option<&str>) {
        match kind {
            Kind::Pod => self.deleted_as::<Pod>(key, uid),
            Kind::Node => self.deleted_as::<Node>(key, uid),
            Kind::ServiceAccount => self.deleted_as::<ServiceAccount>(key, uid),
            Kind::ConfigMap => self.deleted_as::<ConfigMap>(key, uid),
            Kind::Service => self.deleted_as::<Service>(key, uid),
            Kind::EndpointSlice => self.deleted_as::<EndpointSlice>(key, uid),
            Kind::Deployment => self.deleted_as::<Deployment>(key, uid),
            Kind::ReplicaSet => self.deleted_as::<ReplicaSet>(key, uid),
        }
    }

    fn wrote_as<K: Watched>(&self, object: Value) {
        match serde_json::from_value::<K>(object) {
            Ok(object) => {
                if let Some(change) = K::cache(&self.caches).wrote(object) {
                    K::changed(self, &change);
                }
            }
            Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "Cannot read the answer to a write"),
        }
    }

    fn deleted_as<K: Watched>(&self, key: &Key, uid: Option<&str>) {
        if let Some(change) = K::cache(&self.caches).deleted(key, uid) {
            K::changed(self, &change);
        }
    }

    /// Takes in a change that a test made up or a watch told.
    pub fn told<K: Watched>(&self, object: K) {
        if let Some(change) = K::cache(&self.caches).told(object) {
            K::changed(self, &change);
        }
    }

    /// Waits until all caches have been filled once.
    pub async fn wait_until_synced(&self) {
        loop {
            let woken = self.synced.notified();
            if self.caches.synced() {
                return;
            }
            woken.await;
        }
    }

    /// Feeds the cache of a kind for as long as `stop` allows.
    pub async fn feed<K: Watched>(
        self: Arc<Self>,
        api: Api<K>,
        config: watcher::Config,
        stop: CancellationToken,
    ) {
        let events = watcher::watcher(api, config).default_backoff();
        let mut events = std::pin::pin!(events);
        let cache = K::cache(&self.caches);
        while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => self.told(object),
                Ok(Event::Delete(object)) => {
                    let uid = object.meta().uid.clone();
                    if let Some(change) = cache.gone(&Key::of(&object), uid.as_deref()) {
                        K::changed(&self, &change);
                    }
                }
                Ok(Event::Init) => cache.list_begins(),
                Ok(Event::InitDone) => {
                    for change in cache.list_ends() {
                        K::changed(&self, &change);
                    }
                    self.synced.notify_waiters();
                }
                Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "Watch failed; trying again"),
            }
        }
    }

    /// All feeds, to be run together.
    pub fn feeds(
        self: &Arc<Self>,
        client: &Client,
        stop: &CancellationToken,
    ) -> Vec<futures::future::BoxFuture<'static, ()>> {
        fn feed<K: Watched>(
            hub: &Arc<Hub>,
            api: Api<K>,
            config: watcher::Config,
            stop: &CancellationToken,
        ) -> futures::future::BoxFuture<'static, ()> {
            Box::pin(Arc::clone(hub).feed(api, config, stop.clone()))
        }
        let all = watcher::Config::default;
        let roots = all().fields(&format!("metadata.name={}", account::ROOT_CERTIFICATE));
        vec![
            feed::<Pod>(self, Api::all(client.clone()), all(), stop),
            feed::<Node>(self, Api::all(client.clone()), all(), stop),
            feed::<Namespace>(self, Api::all(client.clone()), all(), stop),
            feed::<Service>(self, Api::all(client.clone()), all(), stop),
            feed::<ServiceAccount>(self, Api::all(client.clone()), all(), stop),
            feed::<ConfigMap>(self, Api::all(client.clone()), roots, stop),
            feed::<EndpointSlice>(self, Api::all(client.clone()), all(), stop),
            feed::<Deployment>(self, Api::all(client.clone()), all(), stop),
            feed::<ReplicaSet>(self, Api::all(client.clone()), all(), stop),
            feed::<Lease>(self, Api::namespaced(client.clone(), "kube-node-lease"), all(), stop),
        ]
    }
}

// === impl Caches ===

impl Caches {
    fn synced(&self) -> bool {
        self.pods.synced()
            && self.nodes.synced()
            && self.namespaces.synced()
            && self.services.synced()
            && self.service_accounts.synced()
            && self.root_certificates.synced()
            && self.endpoint_slices.synced()
            && self.deployments.synced()
            && self.replica_sets.synced()
            && self.node_leases.synced()
    }
}

// Who is woken by what.

impl Watched for Pod {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.pods
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        let (caches, queues) = (&hub.caches, &hub.queues);
        replicaset::wake_for_pod(caches, change, &queues.replica_sets);
        deployment::wake_for_pod(caches, change, &queues.deployments);
        endpointslice::wake_for_pod(caches, change, &queues.endpoint_slices);
        eviction::wake_for_pod(caches, change, &queues.evictions);
        if let Some(pod) = &change.new {
            queues.pods.add(Key::of(&**pod));
        } else if let Some(pod) = &change.old {
            let namespace = Key::new("", pod.metadata.namespace.clone().unwrap_or_default());
            if caches
                .namespaces
                .get(&namespace)
                .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
            {
                queues.namespaces.add(namespace);
            }
        }
    }
}

impl Watched for Node {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.nodes
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        let Some(node) = change.current() else { return };
        let key = Key::of(&**node);
        if change.old.is_none() || change.new.is_none() {
            for pod in hub.caches.pods.all() {
                if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&key.name) {
                    hub.queues.pods.add(Key::of(&*pod));
                }
            }
        }
        hub.queues.evictions.add(key.clone());
        hub.queues.nodes.add(key);
    }
}

impl Watched for Namespace {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.namespaces
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        if let Some(namespace) = &change.new {
            let key = Key::of(&**namespace);
            hub.queues.accounts.add(key.clone());
            if namespace.metadata.deletion_timestamp.is_some() {
                hub.queues.namespaces.add(key);
            }
        }
    }
}

impl Watched for Service {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.services
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        if let Some(service) = change.current() {
            hub.queues.endpoint_slices.add(Key::of(&**service));
        }
    }
}

impl Watched for ServiceAccount {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.service_accounts
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        if let (Some(account), None) = (&change.old, &change.new) {
            hub.queues.accounts.add(Key::new("", account.metadata.namespace.clone().unwrap_or_default()));
        }
    }
}

impl Watched for ConfigMap {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.root_certificates
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        if let Some(map) = change.current() {
            hub.queues.accounts.add(Key::new("", map.metadata.namespace.clone().unwrap_or_default()));
        }
    }
}

impl Watched for EndpointSlice {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.endpoint_slices
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        for slice in change.both() {
            if let Some(key) = endpointslice::service_of(slice) {
                hub.queues.endpoint_slices.add(key);
            }
        }
    }
}

impl Watched for Deployment {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.deployments
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        if let Some(deployment) = &change.new {
            hub.queues.deployments.add(Key::of(&**deployment));
        }
    }
}

impl Watched for ReplicaSet {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.replica_sets
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        if let Some(set) = &change.new {
            hub.queues.replica_sets.add(Key::of(&**set));
        }
        deployment::wake_for_replica_set(&hub.caches, change, &hub.queues.deployments);
    }
}

impl Watched for Lease {
    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.node_leases
    }

    fn changed(hub: &Hub, change: &Change<Self>) {
        if let Some(lease) = &change.new {
            let name = lease.metadata.name.clone().unwrap_or_default();
            if hub.caches.leases.heard(&name, std::time::Instant::now()) {
                hub.queues.nodes.add(Key::new("", name));
            }
        }
    }
}
