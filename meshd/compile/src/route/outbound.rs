//! Outbound route configurations of a sidecar: one for each HTTP port, one for each service port whose protocol is sniffed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use meshd_model::select::virtual_service::{self, HostRules, MESH_GATEWAY};
use meshd_model::{OutboundPolicy, Service, host};
use policies_xds::route::route_action::ClusterSpecifier;
use policies_xds::route::{Route, RouteAction, RouteConfiguration, VirtualHost, route};

use super::matches::{self, Place};
use super::{action, configuration, domains, rule};
use crate::cluster::PASSTHROUGH;
use crate::proto::duration;
use crate::view::{View, tcp_ports};

/// The port whose configuration also holds hosts of virtual services that no service has.
const HTTP_PORT: u16 = 80;

pub(super) fn configurations(view: &View<'_>) -> Vec<RouteConfiguration> {
    let mut by_port: BTreeMap<u16, Vec<&Arc<Service>>> = BTreeMap::new();
    let mut sniffed = Vec::new();
    for service in &view.services {
        for port in tcp_ports(service) {
            let addressed = !service.addresses.is_empty() || service.is_headless();
            if port.protocol.is_http() || (port.protocol.is_unset() && !addressed) {
                by_port.entry(port.port).or_default().push(service);
            } else if port.protocol.is_unset() {
                sniffed.push((*service, port.port));
            }
        }
    }
    let shared = by_port.into_iter().map(|(port, services)| of_port(view, port, &services));
    let single = sniffed.into_iter().map(|(service, port)| of_sniffed(view, service, port));
    shared.chain(single).collect()
}

/// Name of the configuration of a service port whose protocol is sniffed.
pub(crate) fn sniffed_name(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

fn of_port(view: &View<'_>, port: u16, services: &[&Arc<Service>]) -> RouteConfiguration {
    let mut used = HashSet::new();
    let mut hosts: Vec<VirtualHost> =
        services.iter().filter_map(|it| virtual_host(view, it, port, &mut used)).collect();
    if port == HTTP_PORT {
        hosts.extend(unregistered(view, &mut used));
    }
    hosts.extend(unknown_destination(view, &mut used));
    configuration(port.to_string(), hosts)
}

fn of_sniffed(view: &View<'_>, service: &Service, port: u16) -> RouteConfiguration {
    let mut used = HashSet::new();
    // Only this service's address leads here, so whatever host the client writes is this service.
    let mut host = virtual_host(view, service, port, &mut used);
    if let Some(host) = &mut host {
        host.domains = vec!["*".to_owned()];
    }
    configuration(sniffed_name(&service.host, port), host.into_iter().collect())
}

fn virtual_host(
    view: &View<'_>,
    service: &Service,
    port: u16,
    used: &mut HashSet<String>,
) -> Option<VirtualHost> {
    let domains = domains::of_service(view, service, port, used);
    if domains.is_empty() {
        return None;
    }
    let rules = virtual_service::of_host(&view.virtual_services, &service.host)
        .filter(|it| !it.config.spec.http.is_empty());
    let routes = match rules {
        Some(rules) => rule::routes(view, &rules.config, place(view, rules, port)),
        None => vec![rule::default_route(view, service, port)],
    };
    Some(named(&service.host, port, domains, routes))
}

/// Hosts that only virtual services know: clients may call them by `Host` on port 80.
fn unregistered(view: &View<'_>, used: &mut HashSet<String>) -> Vec<VirtualHost> {
    let mut found = Vec::new();
    for rules in view.virtual_services.iter().filter(|it| !it.config.spec.http.is_empty()) {
        for name in &rules.hosts {
            let is_known = view.services.iter().any(|service| host::covers(name, &service.host));
            if is_known {
                continue;
            }
            let domains = domains::of_host(name, HTTP_PORT, used);
            if !domains.is_empty() {
                let routes = rule::routes(view, &rules.config, place(view, rules, HTTP_PORT));
                found.push(named(name, HTTP_PORT, domains, routes));
            }
        }
    }
    found
}

fn place<'a>(view: &View<'a>, rules: &'a HostRules, port: u16) -> Place<'a> {
    Place { proxy: view.proxy, port, gateway: MESH_GATEWAY, namespace: &rules.config.namespace }
}

fn named(host: &str, port: u16, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: format!("{host}:{port}"),
        domains,
        routes,
        include_request_attempt_count: true,
        ..Default::default()
    }
}

/// What happens to hosts that nobody knows.
fn unknown_destination(view: &View<'_>, used: &mut HashSet<String>) -> Option<VirtualHost> {
    if !used.insert("*".to_owned()) {
        return None;
    }
    let (name, action) = match view.egress.outbound_policy() {
        OutboundPolicy::AllowAny => {
            let passthrough = RouteAction {
                timeout: Some(duration(std::time::Duration::ZERO)),
                cluster_specifier: Some(ClusterSpecifier::Cluster(PASSTHROUGH.to_owned())),
                ..Default::default()
            };
            ("allow_any", route::Action::Route(passthrough))
        }
        OutboundPolicy::RegistryOnly => ("block_all", action::direct_response(502, Vec::new())),
    };
    let everything = Route {
        name: name.to_owned(),
        r#match: Some(matches::prefix("/")),
        action: Some(action),
        ..Default::default()
    };
    Some(VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![everything],
        include_request_attempt_count: true,
        ..Default::default()
    })
}
