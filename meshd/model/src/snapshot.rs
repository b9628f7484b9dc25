//! The snapshot: all the mesh knows at one moment. Cloning it is cheap; a change replaces only the parts it touches.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use policies_api::matching::StringMap;

use crate::mesh::MeshConfig;
use crate::object::Policies;
use crate::service::{Endpoint, Service, ServiceKey, Workload};

/// Namespace and name.
pub type ObjectKey = (Arc<str>, Arc<str>);

/// All the mesh knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Grows with every publication.
    pub version: u64,
    /// Mesh-wide options.
    pub mesh: Arc<MeshConfig>,
    /// Namespaces by name.
    pub namespaces: Arc<BTreeMap<Arc<str>, Namespace>>,
    /// Services.
    pub registry: Arc<Registry>,
    /// Endpoints by service.
    pub endpoints: Arc<BTreeMap<ServiceKey, Arc<[Endpoint]>>>,
    /// Pods.
    pub workloads: Arc<Workloads>,
    /// Policy objects.
    pub policies: Arc<Policies>,
    /// Secrets that gateways serve, by namespace and name.
    pub secrets: Arc<BTreeMap<ObjectKey, Arc<Secret>>>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: Arc<StringMap>,
}

/// Services, sorted by precedence, with an index by host.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    services: Vec<Arc<Service>>,
    by_host: HashMap<Arc<str>, Vec<Arc<Service>>>,
}

/// Pods, with an index by address.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    by_name: BTreeMap<ObjectKey, Arc<Workload>>,
    by_ip: HashMap<IpAddr, Arc<Workload>>,
}

/// Certificate, key and roots of a gateway's server. `Debug` shows no key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// PEM chain.
    pub certificate: Vec<u8>,
    /// PEM key.
    pub private_key: Vec<u8>,
    /// PEM roots for client certificates.
    pub ca_certificate: Vec<u8>,
}

// === impl Registry ===

impl Registry {
    /// Sorts and indexes: Kubernetes services before entries, then oldest first, then by name and namespace.
    #[must_use]
    pub fn new(mut services: Vec<Arc<Service>>) -> Self {
        services.sort_by(|a, b| {
            (a.from_entry, a.created, &a.name, &a.namespace, &a.host).cmp(&(
                b.from_entry,
                b.created,
                &b.name,
                &b.namespace,
                &b.host,
            ))
        });
        let mut by_host: HashMap<Arc<str>, Vec<Arc<Service>>> = HashMap::new();
        for service in &services {
            by_host.entry(Arc::clone(&service.host)).or_default().push(Arc::clone(service));
        }
        Self { services, by_host }
    }

    /// All services by precedence.
    #[must_use]
    pub fn all(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// Services of a host by precedence; several when namespaces define the same host.
    #[must_use]
    pub fn of_host(&self, host: &str) -> &[Arc<Service>] {
        self.by_host.get(host).map_or(&[], Vec::as_slice)
    }
}

// === impl Workloads ===

impl Workloads {
    /// Indexes the pods.
    #[must_use]
    pub fn new(workloads: impl IntoIterator<Item = Arc<Workload>>) -> Self {
        let mut this = Self::default();
        for workload in workloads {
            this.insert(workload);
        }
        this
    }

    /// Adds or replaces a pod.
    pub fn insert(&mut self, workload: Arc<Workload>) {
        self.remove(&workload.namespace, &workload.name);
        for ip in &workload.ips {
            self.by_ip.insert(*ip, Arc::clone(&workload));
        }
        self.by_name.insert((Arc::clone(&workload.namespace), Arc::clone(&workload.name)), workload);
    }

    /// Removes a pod.
    pub fn remove(&mut self, namespace: &Arc<str>, name: &Arc<str>) -> Option<Arc<Workload>> {
        let workload = self.by_name.remove(&(Arc::clone(namespace), Arc::clone(name)))?;
        for ip in &workload.ips {
            if self.by_ip.get(ip).is_some_and(|holder| Arc::ptr_eq(holder, &workload)) {
                self.by_ip.remove(ip);
            }
        }
        Some(workload)
    }

    /// A pod by namespace and name.
    #[must_use]
    pub fn named(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Arc<Workload>> {
        self.by_name.get(&(Arc::clone(namespace), Arc::clone(name)))
    }

    /// The pod that has the address.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.by_ip.get(&ip)
    }

    /// All pods by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_name.values()
    }
}

// === impl Secret ===

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Secret")
            .field("certificate_bytes", &self.certificate.len())
            .finish_non_exhaustive()
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The pod of an address.
    #[must_use]
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.at(ip)
    }

    /// The endpoints of a service.
    #[must_use]
    pub fn endpoints_of(&self, service: &Service) -> &[Endpoint] {
        self.endpoints.get(&service.key()).map_or(&[], |endpoints| endpoints)
    }
}
