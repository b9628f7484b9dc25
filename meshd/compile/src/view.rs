//! What one proxy sees of a snapshot: computed once, used by every compiler.

use std::sync::Arc;

use meshd_model::select::virtual_service::{self, HostRules};
use meshd_model::select::{EgressScope, RuleIndex};
use meshd_model::{Config, MeshConfig, ProxyKey, ProxyKind, Service, ServicePort, Snapshot};
use policies_api::DestinationRule;
use policies_api::destination_rule::Subset;

/// What one proxy sees.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a ProxyKey,
    pub(crate) mesh: &'a MeshConfig,
    pub(crate) egress: EgressScope<'a>,
    /// Services that can be reached, sorted by host.
    pub(crate) services: Vec<&'a Arc<Service>>,
    /// Virtual services for sidecars, by precedence; empty for routers.
    pub(crate) virtual_services: Vec<HostRules>,
    rules: RuleIndex,
}

// === impl View ===

impl<'a> View<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a ProxyKey) -> Self {
        let egress = EgressScope::new(snapshot, proxy);
        let virtual_services = match proxy.kind {
            ProxyKind::Sidecar => virtual_service::for_sidecar(snapshot, proxy, &egress),
            ProxyKind::Router => Vec::new(),
        };
        Self {
            snapshot,
            proxy,
            mesh: &snapshot.mesh,
            services: egress.services(snapshot),
            virtual_services,
            rules: RuleIndex::new(snapshot, proxy),
            egress,
        }
    }

    /// The destination rule of a service.
    pub(crate) fn rule(&self, service: &Service) -> Option<Arc<Config<DestinationRule>>> {
        self.rules.of(&service.host, &service.namespace)
    }

    /// The reachable service of a host that may be written short, as `name.namespace`.
    pub(crate) fn service_named(&self, host: &str) -> Option<&'a Arc<Service>> {
        self.service(host).or_else(|| self.service(&format!("{host}.svc.{}", self.mesh.cluster_domain)))
    }

    /// The reachable service of a host.
    pub(crate) fn service(&self, host: &str) -> Option<&'a Arc<Service>> {
        let index = self.services.binary_search_by(|it| (*it.host).cmp(host)).ok()?;
        self.services.get(index).copied()
    }
}

/// Name of an outbound cluster.
pub(crate) fn outbound_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Ports of a service that carry TCP.
pub(crate) fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.protocol != meshd_model::Protocol::Udp)
}

/// The default part of a service and its subsets.
pub(crate) fn parts(rule: Option<&Config<DestinationRule>>) -> impl Iterator<Item = Option<&Subset>> {
    let subsets = rule.into_iter().flat_map(|it| it.spec.subsets.iter().map(Some));
    std::iter::once(None).chain(subsets)
}
