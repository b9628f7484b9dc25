//! The inventory: the metadata of all objects of all resources the API server has, kept by one watch a resource.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client, Discovery,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    discovery::{Scope, verbs},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::graph::{Graph, Object, Resource};
use crate::{cache::Key, hub::Hub, queue::Queue};

/// Definitions take a moment until they are served: discovery is asked again after this.
const SETTLING: Duration = Duration::from_secs(2);

/// What exists in the cluster.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) graph: Mutex<Graph>,
    /// Objects, by UID, that may be garbage.
    pub(crate) queue: Queue<String>,
    hub: Arc<Hub>,
    watched: Mutex<HashMap<Arc<Resource>, CancellationToken>>,
    /// Watches whose first list is not complete.
    filling: AtomicUsize,
    discovered: std::sync::atomic::AtomicBool,
    filled: Notify,
    definitions_changed: Notify,
}

// === impl Inventory ===

impl Inventory {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self {
            graph: Mutex::default(),
            queue: Queue::default(),
            hub,
            watched: Mutex::default(),
            filling: AtomicUsize::new(0),
            discovered: false.into(),
            filled: Notify::new(),
            definitions_changed: Notify::new(),
        }
    }

    /// The resources that are watched.
    pub(crate) fn resources(&self) -> Vec<Arc<Resource>> {
        self.watched.lock().keys().cloned().collect()
    }

    /// The resource of a kind in a group, in whatever version.
    pub(crate) fn resource_of(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.watched.lock().keys().find(|resource| resource.group == group && resource.kind == kind).cloned()
    }

    /// Waits until every resource known by now has been listed.
    pub(crate) async fn wait_until_filled(&self) {
        loop {
            let woken = self.filled.notified();
            if self.discovered.load(Ordering::Acquire) && self.filling.load(Ordering::Acquire) == 0 {
                return;
            }
            woken.await;
        }
    }

    /// Finds out which resources there are, again whenever definitions change, and watches them.
    pub(crate) async fn run(self: Arc<Self>, client: Client, stop: CancellationToken) {
        let watches = TaskTracker::new();
        let discover = async {
            let mut settling = None;
            loop {
                let wait = match self.discover(&client, &watches, &stop).await {
                    Ok(()) => None,
                    Err(error) => {
                        tracing::debug!(%error, "Cannot discover resources; trying again");
                        Some(SETTLING)
                    }
                };
                // A definition is told before it is served, so discovery is asked once more a little later.
                let changed = self.definitions_changed.notified();
                let again = wait.or(settling.take());
                match again {
                    Some(wait) => {
                        drop(tokio::time::timeout(wait, changed).await.map(|()| settling = Some(SETTLING)))
                    }
                    None => {
                        changed.await;
                        settling = Some(SETTLING);
                    }
                }
            }
        };
        stop.run_until_cancelled(discover).await;
        watches.close();
        watches.wait().await;
    }

    async fn discover(
        self: &Arc<Self>,
        client: &Client,
        watches: &TaskTracker,
        stop: &CancellationToken,
    ) -> kube::Result<()> {
        let discovery = Discovery::new(client.clone());
        let discovery = match discovery.run_aggregated().await {
            Ok(discovery) => discovery,
            Err(_) => Discovery::new(client.clone()).run().await?,
        };
        let mut found = HashMap::new();
        for (api, capabilities) in
            discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources)
        {
            let can = |verb| capabilities.supports_operation(verb);
            // Events own nothing and are owned by nobody.
            if can(verbs::LIST) && can(verbs::WATCH) && can(verbs::DELETE) && api.kind != "Event" {
                let namespaced = capabilities.scope == Scope::Namespaced;
                let resource = Resource {
                    group: api.group.clone(),
                    version: api.version.clone(),
                    kind: api.kind.clone(),
                    plural: api.plural.clone(),
                    namespaced,
                };
                found.insert(Arc::new(resource), api);
            }
        }
        let mut watched = self.watched.lock();
        let gone: Vec<_> =
            watched.keys().filter(|resource| !found.contains_key(*resource)).cloned().collect();
        for resource in gone {
            if let Some(watch) = watched.remove(&resource) {
                watch.cancel();
            }
            let uids = self.graph.lock().of_resource(&resource);
            uids.iter().for_each(|uid| self.gone(uid));
        }
        for (resource, api) in found {
            if !watched.contains_key(&resource) {
                let token = stop.child_token();
                watched.insert(Arc::clone(&resource), token.clone());
                self.filling.fetch_add(1, Ordering::AcqRel);
                watches.spawn(Arc::clone(self).watch(client.clone(), resource, api, token));
            }
        }
        self.discovered.store(true, Ordering::Release);
        self.filled.notify_waiters();
        Ok(())
    }

    async fn watch(
        self: Arc<Self>,
        client: Client,
        resource: Arc<Resource>,
        api: ApiResource,
        stop: CancellationToken,
    ) {
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &api);
        let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed: Option<Vec<String>> = None;
        let mut filled = false;
        while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
            match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => {
                    let object = Object::new(Arc::clone(&resource), object.metadata);
                    if let Some(listed) = &mut listed {
                        listed.push(object.uid.clone());
                    }
                    self.changed(object);
                }
                Ok(Event::Delete(object)) => self.gone(&object.metadata.uid.unwrap_or_default()),
                Ok(Event::Init) => listed = Some(Vec::new()),
                Ok(Event::InitDone) => {
                    let listed: std::collections::HashSet<_> =
                        listed.take().unwrap_or_default().into_iter().collect();
                    let known = self.graph.lock().of_resource(&resource);
                    known.iter().filter(|uid| !listed.contains(*uid)).for_each(|uid| self.gone(uid));
                    if !std::mem::replace(&mut filled, true) {
                        self.one_filled();
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, resource = resource.plural, "Watch failed; trying again")
                }
            }
        }
        if !filled {
            self.one_filled();
        }
    }

    fn one_filled(&self) {
        self.filling.fetch_sub(1, Ordering::AcqRel);
        self.filled.notify_waiters();
    }

    fn changed(&self, object: Object) {
        if object.resource.kind == "CustomResourceDefinition" {
            self.definitions_changed.notify_one();
        }
        let namespace = object.key.namespace.clone();
        let look = self.graph.lock().set(object);
        look.into_iter().for_each(|uid| self.queue.add(uid));
        self.wake_namespace(namespace);
    }

    fn gone(&self, uid: &str) {
        let (look, object) = {
            let mut graph = self.graph.lock();
            let object = graph.get(uid).cloned();
            (graph.remove(uid), object)
        };
        look.into_iter().for_each(|uid| self.queue.add(uid));
        if let Some(object) = object {
            if object.resource.kind == "CustomResourceDefinition" {
                self.definitions_changed.notify_one();
            }
            self.wake_namespace(object.key.namespace);
        }
    }

    fn wake_namespace(&self, namespace: String) {
        let key = Key::new("", namespace);
        let terminating = |namespace: Arc<k8s_openapi::api::core::v1::Namespace>| {
            namespace.metadata.deletion_timestamp.is_some()
        };
        if !key.name.is_empty() && self.hub.caches.namespaces.get(&key).is_some_and(terminating) {
            self.hub.queues.namespaces.add(key);
        }
    }
}
