//! Endpoints of EDS clusters, by locality, with the metadata by which clients choose mutual TLS and name the peer.

mod locality;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshd_model::select::security;
use meshd_model::{
    Change, ChangeKind, Endpoint, EndpointAddress, Health, Locality, Resolution, Service, ServicePort,
};
use policies_api::destination_rule::Subset;
use policies_api::matching::selects;
use policies_api::peer_authentication::MtlsMode;
use policies_xds::core::HealthStatus;
use policies_xds::endpoint::{
    self as proto, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};

use crate::cluster::{Discovery, discovery, effective_of};
use crate::proto::{metadata, number, socket_address, structure, text};
use crate::resource::{Resource, ResourceMap};
use crate::view::{View, outbound_name, parts, tcp_ports};

/// The endpoints of every EDS cluster of a proxy.
pub(crate) fn compile(view: &View<'_>) -> ResourceMap {
    let mut resources = ResourceMap::new();
    for service in &view.services {
        of_service(view, service, &mut resources);
    }
    resources
}

/// As [`compile`], but what belongs to hosts that `change` does not name is taken over.
pub(crate) fn recompile(view: &View<'_>, previous: &ResourceMap, change: &Change) -> ResourceMap {
    let named = change.keys.iter().filter(|it| it.kind == ChangeKind::Endpoints);
    let hosts: BTreeSet<&str> = named.map(|it| &*it.name).collect();
    if change.everything {
        return compile(view);
    }
    let mut resources = previous.clone();
    resources.retain(|name, _| !name.rsplit('|').next().is_some_and(|host| hosts.contains(host)));
    for host in hosts {
        if let Some(service) = view.service(host) {
            of_service(view, service, &mut resources);
        }
    }
    resources
}

fn of_service(view: &View<'_>, service: &Service, resources: &mut ResourceMap) {
    let rule = view.rule(service);
    for port in tcp_ports(service) {
        for subset in parts(rule.as_deref()) {
            let effective = effective_of(rule.as_deref(), subset, port.port);
            if discovery(service, &effective) != Discovery::Eds {
                continue;
            }
            let name = outbound_name(port.port, subset.map_or("", |it| &it.name), &service.host);
            let mut message = assignment(view, service, port, subset, &name, false);
            locality::prefer(&mut message, &view.proxy.locality, &effective);
            let resource = Resource::encode(name, &message);
            resources.entry(Arc::clone(&resource.name)).or_insert(resource);
        }
    }
}

/// The endpoints of one part of a service. `single` keeps the first only, as logical DNS asks for.
pub(crate) fn assignment(
    view: &View<'_>,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
    name: &str,
    single: bool,
) -> ClusterLoadAssignment {
    let mut localities: BTreeMap<&Locality, Vec<(&EndpointAddress, u16, LbEndpoint)>> = BTreeMap::new();
    for endpoint in view.snapshot.endpoints_of(service) {
        let chosen = endpoint.service_port == port.port
            && is_sendable(service, &endpoint.address)
            && (endpoint.health != Health::NotReady || service.publish_not_ready)
            && subset.is_none_or(|it| selects(&it.labels, &endpoint.workload.labels));
        if chosen {
            let message = message(view, service, endpoint);
            localities.entry(&endpoint.workload.locality).or_default().push((
                &endpoint.address,
                endpoint.port,
                message,
            ));
        }
    }
    let mut endpoints = Vec::new();
    for (locality, mut found) in localities {
        found.sort_by(|(a, a_port, _), (b, b_port, _)| (a, a_port).cmp(&(b, b_port)));
        let lb_endpoints: Vec<LbEndpoint> = found.into_iter().map(|(_, _, it)| it).collect();
        let weight: u32 =
            lb_endpoints.iter().filter_map(|it| it.load_balancing_weight).map(|it| it.value).sum();
        endpoints.push(LocalityLbEndpoints {
            locality: Some(policies_xds::core::Locality {
                region: locality.region.to_string(),
                zone: locality.zone.to_string(),
                sub_zone: locality.subzone.to_string(),
            }),
            lb_endpoints,
            load_balancing_weight: number(weight.max(1)),
            ..Default::default()
        });
    }
    if single {
        endpoints.truncate(1);
        endpoints.iter_mut().for_each(|it| it.lb_endpoints.truncate(1));
    }
    ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints, ..Default::default() }
}

/// Endpoints that are sent apart must be addresses or sockets: names are resolved only where they stand in the cluster.
fn is_sendable(service: &Service, address: &EndpointAddress) -> bool {
    match address {
        EndpointAddress::Ip(_) => true,
        EndpointAddress::Name(name) => {
            service.resolution != Resolution::Static || name.starts_with("unix://")
        }
    }
}

fn message(view: &View<'_>, service: &Service, endpoint: &Endpoint) -> LbEndpoint {
    let workload = &endpoint.workload;
    let description = format!(
        "{};{};{};{};{}",
        workload.workload_name,
        workload.namespace,
        workload.canonical_name(),
        workload.canonical_revision(),
        view.proxy.cluster_id
    );
    let mut entries = vec![("istio", structure(vec![("workload", text(description))]))];
    if !service.external && workload.mutual_tls && accepts_mutual_tls(view, endpoint) {
        entries.push(("envoy.transport_socket_match", structure(vec![("tlsMode", text("istio"))])));
    }
    let address = match &endpoint.address {
        EndpointAddress::Ip(ip) => socket_address(ip.to_string(), endpoint.port),
        EndpointAddress::Name(name) => match name.strip_prefix("unix://") {
            Some(path) => policies_xds::core::Address {
                address: Some(policies_xds::core::address::Address::Pipe(policies_xds::core::Pipe {
                    path: path.to_owned(),
                    ..Default::default()
                })),
            },
            None => socket_address(&**name, endpoint.port),
        },
    };
    let health = match endpoint.health {
        Health::Draining => HealthStatus::Draining,
        Health::Ready | Health::NotReady => HealthStatus::Unknown,
    };
    LbEndpoint {
        health_status: health.into(),
        metadata: Some(metadata(entries)),
        load_balancing_weight: number(endpoint.weight.max(1)),
        host_identifier: Some(HostIdentifier::Endpoint(proto::Endpoint {
            address: Some(address),
            ..Default::default()
        })),
    }
}

/// Whether a service has endpoints and all of them accept mutual TLS.
pub(crate) fn all_accept_mutual_tls(view: &View<'_>, service: &Service) -> bool {
    let endpoints = view.snapshot.endpoints_of(service);
    !endpoints.is_empty() && endpoints.iter().all(|it| it.workload.mutual_tls && accepts_mutual_tls(view, it))
}

/// A pod whose policy disables mutual TLS on a port is called in plain text.
fn accepts_mutual_tls(view: &View<'_>, endpoint: &Endpoint) -> bool {
    let disables = |it: &policies_api::PeerAuthentication| {
        it.mtls.is_some_and(|it| it.mode == MtlsMode::Disable)
            || it.port_level_mtls.values().any(|it| it.mode == MtlsMode::Disable)
    };
    let nobody = view.mesh.default_mtls != MtlsMode::Disable
        && !view.snapshot.policies.peer_authentications.iter().any(|it| disables(&it.spec));
    nobody || {
        let workload = &endpoint.workload;
        security::peer_modes(view.snapshot, &workload.namespace, &workload.labels).of(endpoint.port)
            != MtlsMode::Disable
    }
}
