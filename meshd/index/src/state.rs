//! The mesh's view of a cluster, fed object by object. Pure: tests and the simulation feed it without any API server.

mod endpoints;
mod mesh_config;
mod object;
mod pod;
mod policy;
mod reporting;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshd_model::{
    Change, ChangeKind, Endpoint, Locality, MeshConfig, Namespace, ObjectKey, Registry, Secret, Service,
    ServiceKey, Snapshot, Workload, Workloads, entry,
};
use policies_api::Kind;

pub use object::{Meta, Object, Source};

use endpoints::Slice;
use policy::PolicyStore;

/// Everything known so far, and what changed since the last publication.
#[derive(Debug, Default)]
pub struct State {
    version: u64,
    mesh: Arc<MeshConfig>,
    namespaces: Arc<BTreeMap<Arc<str>, Namespace>>,
    nodes: BTreeMap<Arc<str>, Locality>,
    workloads: Arc<Workloads>,
    services: BTreeMap<ObjectKey, Arc<Service>>,
    entries: BTreeMap<ObjectKey, Vec<Arc<Service>>>,
    slices: BTreeMap<ObjectKey, Slice>,
    endpoints: Arc<BTreeMap<ServiceKey, Arc<[Endpoint]>>>,
    registry: Arc<Registry>,
    policies: PolicyStore,
    secrets: Arc<BTreeMap<ObjectKey, Arc<Secret>>>,
    /// Objects of the list that is being read, by kind.
    listing: BTreeMap<Source, BTreeSet<ObjectKey>>,
    /// Kinds whose first list is complete.
    listed: BTreeSet<Source>,
    dirty: Dirty,
}

/// What must be computed again before the next publication.
#[derive(Debug, Default)]
struct Dirty {
    change: Change,
    registry: bool,
    /// Services whose endpoints may have changed, by the object that defines them.
    endpoints: BTreeSet<ObjectKey>,
    entries: bool,
}

// === impl State ===

impl State {
    /// A list of a kind begins: what it will not contain is gone at its end.
    pub fn begin(&mut self, source: Source) {
        self.listing.insert(source, BTreeSet::new());
    }

    /// The list is complete.
    pub fn complete(&mut self, source: Source) {
        let Some(seen) = self.listing.remove(&source) else { return };
        self.listed.insert(source);
        for (namespace, name) in self.known(source).into_iter().filter(|key| !seen.contains(key)) {
            self.delete(source, &Meta { namespace, name, ..Meta::default() });
        }
    }

    /// An object as it is now.
    pub fn apply(&mut self, source: Source, object: Object) {
        if let Some(seen) = self.listing.get_mut(&source) {
            seen.insert(object.meta.key());
        }
        match source {
            Source::Namespace => self.apply_namespace(object),
            Source::Node => self.apply_node(&object),
            Source::Pod => self.apply_pod(&object),
            Source::Service => self.apply_service(&object),
            Source::EndpointSlice => self.apply_slice(&object),
            Source::MeshConfig => self.set_mesh(mesh_config::read(&object)),
            Source::Secret => self.apply_secret(&object),
            Source::Policy(kind) => self.apply_policy(kind, &object),
        }
    }

    /// An object that is gone.
    pub fn delete(&mut self, source: Source, meta: &Meta) {
        let key = meta.key();
        match source {
            Source::Namespace => {
                if Arc::make_mut(&mut self.namespaces).remove(&key.1).is_some() {
                    self.dirty.change.add(ChangeKind::Namespace, "", &key.1);
                }
            }
            Source::Node => {
                self.nodes.remove(&key.1);
            }
            Source::Pod => self.remove_pod(&key),
            Source::Service => {
                if let Some(service) = self.services.remove(&key) {
                    self.service_changed(&service, key);
                }
            }
            Source::EndpointSlice => {
                if let Some(slice) = self.slices.remove(&key) {
                    self.dirty.endpoints.insert(slice.service);
                }
            }
            Source::MeshConfig => self.set_mesh(MeshConfig::default()),
            Source::Secret => {
                if Arc::make_mut(&mut self.secrets).remove(&key).is_some() {
                    self.dirty.change.add(ChangeKind::Secret, &key.0, &key.1);
                }
            }
            Source::Policy(kind) => {
                if self.policies.remove(kind, &key) {
                    self.dirty.change.add(ChangeKind::Policy(kind), &key.0, &key.1);
                    self.entry_changed(kind, &key);
                }
            }
        }
    }

    /// The next snapshot and what changed; none when nothing did, or while some kind was never listed.
    pub fn publish(&mut self) -> Option<(Snapshot, Change)> {
        if !Source::all().all(|source| self.listed.contains(&source)) {
            return None;
        }
        self.publish_now()
    }

    /// As [`State::publish`], without waiting for lists: for callers that feed objects by hand.
    pub fn publish_now(&mut self) -> Option<(Snapshot, Change)> {
        self.refresh();
        let first = self.version == 0;
        if self.dirty.change.is_empty() && !first {
            return None;
        }
        self.version += 1;
        let mut change = std::mem::take(&mut self.dirty.change);
        if first {
            change = Change::everything();
        }
        let snapshot = Snapshot {
            version: self.version,
            mesh: Arc::clone(&self.mesh),
            namespaces: Arc::clone(&self.namespaces),
            registry: Arc::clone(&self.registry),
            endpoints: Arc::clone(&self.endpoints),
            workloads: Arc::clone(&self.workloads),
            policies: self.policies.current(),
            secrets: Arc::clone(&self.secrets),
        };
        Some((snapshot, change))
    }

    fn known(&self, source: Source) -> Vec<ObjectKey> {
        match source {
            Source::Namespace => self.namespaces.keys().map(|name| ("".into(), Arc::clone(name))).collect(),
            Source::Node => self.nodes.keys().map(|name| ("".into(), Arc::clone(name))).collect(),
            Source::Pod => {
                self.workloads.iter().map(|it| (Arc::clone(&it.namespace), Arc::clone(&it.name))).collect()
            }
            Source::Service => self.services.keys().cloned().collect(),
            Source::EndpointSlice => self.slices.keys().cloned().collect(),
            Source::MeshConfig => {
                vec![(self.mesh.root_namespace.as_str().into(), policies_api::names::MESH_CONFIG_MAP.into())]
            }
            Source::Secret => self.secrets.keys().cloned().collect(),
            Source::Policy(kind) => self.policies.keys(kind),
        }
    }

    fn apply_namespace(&mut self, object: Object) {
        let namespace = Namespace { labels: Arc::new(object.meta.labels) };
        if self.namespaces.get(&object.meta.name) == Some(&namespace) {
            return;
        }
        self.dirty.change.add(ChangeKind::Namespace, "", &object.meta.name);
        Arc::make_mut(&mut self.namespaces).insert(object.meta.name, namespace);
    }

    fn apply_node(&mut self, object: &Object) {
        let locality = pod::locality(&object.meta.labels);
        let name = Arc::clone(&object.meta.name);
        if self.nodes.insert(Arc::clone(&name), locality.clone()).as_ref() == Some(&locality) {
            return;
        }
        let there: Vec<Arc<Workload>> =
            self.workloads.iter().filter(|it| it.node == name && it.locality != locality).cloned().collect();
        for old in there {
            self.put_pod(Workload { locality: locality.clone(), ..(*old).clone() });
        }
    }

    fn apply_pod(&mut self, object: &Object) {
        let mut workload = pod::workload(object);
        if let Some(locality) = self.nodes.get(&workload.node) {
            workload.locality = locality.clone();
        }
        self.put_pod(workload);
    }

    fn put_pod(&mut self, workload: Workload) {
        let key = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        if self.workloads.named(&key.0, &key.1).is_some_and(|old| **old == workload) {
            return;
        }
        Arc::make_mut(&mut self.workloads).insert(Arc::new(workload));
        self.pod_changed(&key);
    }

    fn remove_pod(&mut self, key: &ObjectKey) {
        if Arc::make_mut(&mut self.workloads).remove(&key.0, &key.1).is_some() {
            self.pod_changed(key);
        }
    }

    fn pod_changed(&mut self, key: &ObjectKey) {
        self.dirty.change.add(ChangeKind::Workload, &key.0, &key.1);
        let referring = self
            .slices
            .iter()
            .filter(|((namespace, _), slice)| *namespace == key.0 && slice.refers_to(&key.1));
        self.dirty.endpoints.extend(referring.map(|(_, slice)| slice.service.clone()));
        self.dirty.entries |= self.policies.has_selecting_entries();
    }

    fn apply_service(&mut self, object: &Object) {
        let key = object.meta.key();
        let service = Arc::new(service::read(object, &self.mesh.cluster_domain));
        if self.services.get(&key) == Some(&service) {
            return;
        }
        self.service_changed(&service, key.clone());
        self.services.insert(key, service);
    }

    fn service_changed(&mut self, service: &Service, key: ObjectKey) {
        self.dirty.change.add(ChangeKind::Service, &service.namespace, &service.host);
        self.dirty.registry = true;
        self.dirty.endpoints.insert(key);
    }

    fn apply_slice(&mut self, object: &Object) {
        let Some(slice) = endpoints::read(object) else { return };
        let key = object.meta.key();
        if self.slices.get(&key) == Some(&slice) {
            return;
        }
        self.dirty.endpoints.insert(slice.service.clone());
        if let Some(old) = self.slices.insert(key, slice) {
            self.dirty.endpoints.insert(old.service);
        }
    }

    fn set_mesh(&mut self, mesh: MeshConfig) {
        if *self.mesh != mesh {
            self.mesh = Arc::new(mesh);
            self.dirty.change.add(ChangeKind::MeshConfig, "", "");
        }
    }

    fn apply_secret(&mut self, object: &Object) {
        let key = object.meta.key();
        let Some(secret) = object.certificates() else { return self.delete(Source::Secret, &object.meta) };
        if self.secrets.get(&key).is_some_and(|old| **old == secret) {
            return;
        }
        self.dirty.change.add(ChangeKind::Secret, &key.0, &key.1);
        Arc::make_mut(&mut self.secrets).insert(key, Arc::new(secret));
    }

    fn apply_policy(&mut self, kind: Kind, object: &Object) {
        let key = object.meta.key();
        if self.policies.put(kind, object) {
            self.dirty.change.add(ChangeKind::Policy(kind), &key.0, &key.1);
            self.entry_changed(kind, &key);
        }
    }

    fn entry_changed(&mut self, kind: Kind, key: &ObjectKey) {
        if kind != Kind::ServiceEntry {
            return;
        }
        let services: Vec<Arc<Service>> = self
            .policies
            .entry(key)
            .map(|it| entry::services(&it).into_iter().map(Arc::new).collect())
            .unwrap_or_default();
        for service in services.iter().chain(self.entries.get(key).into_iter().flatten()) {
            self.dirty.change.add(ChangeKind::Service, &service.namespace, &service.host);
        }
        self.dirty.registry = true;
        self.dirty.entries = true;
        if services.is_empty() {
            self.entries.remove(key)
        } else {
            self.entries.insert(key.clone(), services)
        };
    }

    /// Computes again what is dirty.
    fn refresh(&mut self) {
        if std::mem::take(&mut self.dirty.registry) {
            let all = self.services.values().chain(self.entries.values().flatten()).cloned().collect();
            self.registry = Arc::new(Registry::new(all));
        }
        let owners = std::mem::take(&mut self.dirty.endpoints);
        for key in owners {
            let host = service::host(&key, &self.mesh.cluster_domain);
            let service = self.services.get(&key).cloned();
            let found =
                service.as_ref().map(|it| endpoints::of_service(it, &key, &self.slices, &self.workloads));
            self.set_endpoints(
                ServiceKey { host: host.into(), namespace: key.0 },
                service.as_deref(),
                found.unwrap_or_default(),
            );
        }
        if std::mem::take(&mut self.dirty.entries) {
            self.refresh_entries();
        }
    }

    fn refresh_entries(&mut self) {
        let mut wanted: BTreeMap<ServiceKey, (Arc<Service>, Vec<Endpoint>)> = BTreeMap::new();
        for (key, services) in &self.entries {
            let Some(config) = self.policies.entry(key) else { continue };
            for service in services {
                let found = entry::endpoints(&config, service, self.workloads.iter());
                wanted.entry(service.key()).or_insert_with(|| (Arc::clone(service), found));
            }
        }
        let is_own = |key: &ServiceKey| {
            self.services.values().any(|it| it.host == key.host && it.namespace == key.namespace)
        };
        let gone: Vec<ServiceKey> =
            self.endpoints.keys().filter(|key| !wanted.contains_key(*key) && !is_own(key)).cloned().collect();
        gone.into_iter().for_each(|key| self.set_endpoints(key, None, Vec::new()));
        for (key, (service, found)) in wanted {
            self.set_endpoints(key, Some(&service), found);
        }
    }

    fn set_endpoints(&mut self, key: ServiceKey, service: Option<&Service>, found: Vec<Endpoint>) {
        let old: &[Endpoint] = self.endpoints.get(&key).map_or(&[], |it| it);
        if *old == *found {
            return;
        }
        self.dirty.change.add(ChangeKind::Endpoints, &key.namespace, &key.host);
        // Clusters name the accounts of their endpoints, and headless and DNS services have theirs in listeners or clusters.
        let inlined = service.is_some_and(|it| it.resolution != meshd_model::Resolution::Static);
        if inlined || endpoints::accounts(old) != endpoints::accounts(&found) {
            self.dirty.change.add(ChangeKind::Service, &key.namespace, &key.host);
        }
        let endpoints = Arc::make_mut(&mut self.endpoints);
        if found.is_empty() {
            endpoints.remove(&key)
        } else {
            endpoints.insert(key, found.into())
        };
    }
}

#[cfg(test)]
mod tests;
