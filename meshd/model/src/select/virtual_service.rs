//! Virtual services of a proxy, and which of several takes a host.

use std::sync::Arc;

use policies_api::VirtualService;

use super::{EgressScope, delegate, visible};
use crate::host;
use crate::mesh::HostScope;
use crate::object::Config;
use crate::proxy::{ProxyKey, ProxyKind};
use crate::snapshot::Snapshot;

/// The reserved name of the gateway that stands for all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

/// A virtual service as one proxy uses it: hosts completed, delegates filled in.
#[derive(Clone, Debug)]
pub struct HostRules {
    /// The object, its HTTP rules with those of its delegates.
    pub config: Arc<Config<VirtualService>>,
    /// Full host names it takes for this proxy.
    pub hosts: Vec<String>,
}

/// The virtual services that sidecars of the proxy's namespace use, by precedence, each with the hosts it may take.
#[must_use]
pub fn for_sidecar(snapshot: &Snapshot, proxy: &ProxyKey, scope: &EgressScope<'_>) -> Vec<HostRules> {
    let all = snapshot.policies.virtual_services.iter();
    let seen = all.filter(|it| uses_mesh(&it.spec) && sees(snapshot, it, proxy));
    seen.filter_map(|it| {
        let hosts: Vec<String> = full_hosts(snapshot, it)
            .filter(|host| scope.sees_host(&it.namespace, host) && may_take(snapshot, it, host, proxy))
            .collect();
        (!hosts.is_empty()).then(|| HostRules { config: delegate::fill_in(snapshot, it, proxy), hosts })
    })
    .collect()
}

/// The virtual services bound to a gateway, by precedence.
#[must_use]
pub fn for_gateway(
    snapshot: &Snapshot,
    proxy: &ProxyKey,
    gateway_namespace: &str,
    gateway_name: &str,
) -> Vec<HostRules> {
    let all = snapshot.policies.virtual_services.iter();
    all.filter(|it| {
        it.spec
            .gateways
            .iter()
            .any(|name| names_gateway(name, &it.namespace, gateway_namespace, gateway_name))
            && sees(snapshot, it, proxy)
    })
    .map(|it| HostRules {
        config: delegate::fill_in(snapshot, it, proxy),
        hosts: full_hosts(snapshot, it).collect(),
    })
    .collect()
}

/// The rules for a host among candidates by precedence: an exact name before wildcards, the longest wildcard, then the oldest.
#[must_use]
pub fn of_host<'a>(candidates: &'a [HostRules], host: &str) -> Option<&'a HostRules> {
    let mut best: Option<((bool, usize), &HostRules)> = None;
    for rules in candidates {
        for pattern in rules.hosts.iter().filter(|it| host::covers(it, host)) {
            let closeness = host::specificity(pattern);
            if best.is_none_or(|(so_far, _)| closeness > so_far) {
                best = Some((closeness, rules));
            }
        }
    }
    best.map(|(_, rules)| rules)
}

/// Whether a gateway's name, as a virtual service of `namespace` writes it, means this gateway.
#[must_use]
pub fn names_gateway(written: &str, namespace: &str, gateway_namespace: &str, gateway_name: &str) -> bool {
    match written.split_once('/') {
        Some((".", name)) => namespace == gateway_namespace && name == gateway_name,
        Some((of, name)) => of == gateway_namespace && name == gateway_name,
        None => namespace == gateway_namespace && written == gateway_name,
    }
}

/// Whether a part of an object (a match with its own list of gateways) is for sidecars.
#[must_use]
pub fn uses_mesh(spec: &VirtualService) -> bool {
    spec.gateways.is_empty() || spec.gateways.iter().any(|it| it == MESH_GATEWAY)
}

pub(crate) fn is_delegate(it: &Config<VirtualService>) -> bool {
    it.spec.hosts.is_empty()
}

pub(crate) fn concerns(snapshot: &Snapshot, it: &Config<VirtualService>, proxy: &ProxyKey) -> bool {
    if !sees(snapshot, it, proxy) {
        return false;
    }
    match proxy.kind {
        ProxyKind::Sidecar => {
            let scope = EgressScope::new(snapshot, proxy);
            uses_mesh(&it.spec)
                && full_hosts(snapshot, it)
                    .any(|host| scope.sees_host(&it.namespace, &host) && may_take(snapshot, it, &host, proxy))
        }
        ProxyKind::Router => snapshot.policies.gateways.iter().any(|gateway| {
            policies_api::matching::selects(&gateway.spec.selector, &proxy.labels)
                && it
                    .spec
                    .gateways
                    .iter()
                    .any(|name| names_gateway(name, &it.namespace, &gateway.namespace, &gateway.name))
        }),
    }
}

fn sees(snapshot: &Snapshot, it: &Config<VirtualService>, proxy: &ProxyKey) -> bool {
    visible(
        &it.spec.export_to,
        &snapshot.mesh.default_virtual_service_export_to,
        &it.namespace,
        &proxy.namespace,
    )
}

fn full_hosts<'a>(
    snapshot: &'a Snapshot,
    it: &'a Config<VirtualService>,
) -> impl Iterator<Item = String> + 'a {
    it.spec
        .hosts
        .iter()
        .map(|host| host::resolve(host, &it.namespace, &snapshot.mesh.cluster_domain).to_ascii_lowercase())
}

/// Our exception from Istio: a host of another namespace is taken for the object's own namespace only, unless its service grants more.
fn may_take(snapshot: &Snapshot, it: &Config<VirtualService>, host: &str, proxy: &ProxyKey) -> bool {
    if snapshot.mesh.host_scope == HostScope::Anywhere
        || it.namespace == proxy.namespace
        || *it.namespace == *snapshot.mesh.root_namespace
    {
        return true;
    }
    if host::is_wildcard(host) {
        return false;
    }
    let services = snapshot.registry.of_host(host);
    services.is_empty()
        || services.iter().any(|service| {
            service.namespace == it.namespace
                || service.route_grants.iter().any(|grant| grant == "*" || **grant == *it.namespace)
        })
}
