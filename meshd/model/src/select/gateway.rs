//! Gateways of a router, and the pod's port behind each server.

use std::sync::Arc;

use policies_api::Gateway;
use policies_api::matching::selects;

use crate::object::Config;
use crate::proxy::ProxyKey;
use crate::service::{Service, Workload};
use crate::snapshot::Snapshot;

/// The `Gateway` objects whose selector selects the proxy, by precedence. An empty selector selects every router.
#[must_use]
pub fn gateways<'a>(snapshot: &'a Snapshot, proxy: &ProxyKey) -> Vec<&'a Config<Gateway>> {
    snapshot
        .policies
        .gateways
        .iter()
        .map(|it| &**it)
        .filter(|it| selects(&it.spec.selector, &proxy.labels))
        .collect()
}

/// Kubernetes services whose selector selects the pod.
#[must_use]
pub fn services_of_pod<'a>(snapshot: &'a Snapshot, proxy: &ProxyKey) -> Vec<&'a Arc<Service>> {
    let own = snapshot.registry.all().iter().filter(|it| it.namespace == proxy.namespace && !it.from_entry);
    own.filter(|it| !it.selector.is_empty() && selects(&it.selector, &proxy.labels)).collect()
}

/// The pod's port behind a server's port: the target port of the services in front of the pod, else the port itself.
#[must_use]
pub fn target_port(snapshot: &Snapshot, proxy: &ProxyKey, port: u16) -> u16 {
    let unknown = Workload::default();
    let pod = snapshot.workloads.named(&proxy.namespace, &proxy.pod).map_or(&unknown, |it| &**it);
    let services = services_of_pod(snapshot, proxy);
    services.iter().find_map(|service| service.port(port)?.target_of(pod)).unwrap_or(port)
}
