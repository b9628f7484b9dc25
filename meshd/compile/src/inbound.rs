//! The ports on which a sidecar's application is called, with protocol, service and mode of mutual TLS.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshd_model::select::{gateway, security};
use meshd_model::{Protocol, ProxyKind, Service, Workload};
use policies_api::peer_authentication::MtlsMode;

use crate::view::{View, tcp_ports};

/// One port of the pod.
#[derive(Clone, Debug)]
pub(crate) struct InboundPort<'a> {
    /// Port of the pod.
    pub(crate) port: u16,
    /// What is spoken there.
    pub(crate) protocol: Protocol,
    /// The first service in front of it.
    pub(crate) service: &'a Arc<Service>,
    /// Port of that service.
    pub(crate) service_port: u16,
    /// Mode of mutual TLS.
    pub(crate) mode: MtlsMode,
}

/// The ports of the proxy's pod by number; when several services share a port, the first by precedence declares its protocol.
pub(crate) fn ports<'a>(view: &View<'a>) -> Vec<InboundPort<'a>> {
    if view.proxy.kind == ProxyKind::Router {
        return Vec::new();
    }
    let unknown = Workload::default();
    let pod =
        view.snapshot.workloads.named(&view.proxy.namespace, &view.proxy.pod).map_or(&unknown, |it| &**it);
    let modes = security::peer_modes(view.snapshot, &view.proxy.namespace, &view.proxy.labels);
    let mut found: BTreeMap<u16, InboundPort<'a>> = BTreeMap::new();
    for service in gateway::services_of_pod(view.snapshot, view.proxy) {
        for port in tcp_ports(service) {
            let Some(target) = port.target_of(pod) else { continue };
            found.entry(target).or_insert_with(|| InboundPort {
                port: target,
                protocol: port.protocol,
                service,
                service_port: port.port,
                mode: modes.of(target),
            });
        }
    }
    found.into_values().collect()
}

/// Name of the cluster and of the route configuration of a port.
pub(crate) fn name(port: u16) -> String {
    format!("inbound|{port}||")
}
