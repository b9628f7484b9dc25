//! Routes of a gateway: one configuration for each plain port, one for each server that terminates TLS.

use std::collections::{BTreeMap, HashSet};

use meshd_model::select::{gateway, virtual_service};
use meshd_model::{Config, Protocol, host};
use policies_api::Gateway;
use policies_api::gateway::Server;
use policies_xds::route::virtual_host::TlsRequirementType;
use policies_xds::route::{Route, RouteConfiguration, VirtualHost};

use super::matches::Place;
use super::{configuration, domains, rule};
use crate::view::View;

/// A server of a gateway object, and the pod's port it is reached on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) gateway: &'a Config<Gateway>,
    pub(crate) server: &'a Server,
    /// Port clients use.
    pub(crate) port: u16,
    /// Port of the pod.
    pub(crate) target: u16,
}

/// What a server does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Plain HTTP.
    Http,
    /// TLS that ends here, HTTP inside.
    Https,
    /// TLS that ends here, any bytes inside.
    Tls,
    /// TLS that is routed by SNI and passed on.
    Passthrough,
    /// Any bytes.
    Tcp,
}

// === impl Bound ===

impl Bound<'_> {
    pub(crate) fn kind(&self) -> Kind {
        let protocol = Protocol::parse(&self.server.port.protocol).unwrap_or(Protocol::Tcp);
        let mode = self.server.tls.as_ref().map_or("", |it| &it.mode);
        match protocol {
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => Kind::Http,
            Protocol::Https | Protocol::Tls if matches!(mode, "" | "PASSTHROUGH" | "AUTO_PASSTHROUGH") => {
                Kind::Passthrough
            }
            Protocol::Https => Kind::Https,
            Protocol::Tls => Kind::Tls,
            _ => Kind::Tcp,
        }
    }

    /// Name of the route configuration.
    pub(crate) fn route_name(&self) -> String {
        match self.kind() {
            Kind::Https => format!(
                "https.{}.{}.{}.{}",
                self.target, self.server.port.name, self.gateway.name, self.gateway.namespace
            ),
            _ => format!("http.{}", self.target),
        }
    }

    /// The hosts of a virtual service that the server serves: the narrower of each overlapping pair.
    pub(crate) fn hosts_of(&self, namespace: &str, hosts: &[String]) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for host in hosts {
            for (of, pattern) in self.patterns() {
                let allowed = match of {
                    "*" => true,
                    "." => *namespace == *self.gateway.namespace,
                    name => name == namespace,
                };
                if allowed && host::overlap(pattern, host) {
                    let narrower = host::narrower(pattern, host).to_ascii_lowercase();
                    if !found.contains(&narrower) {
                        found.push(narrower);
                    }
                }
            }
        }
        found
    }

    /// Namespace and name of each host of the server.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.server.hosts.iter().map(|it| it.split_once('/').unwrap_or(("*", it)))
    }
}

/// The servers of a router by the pod's port. The first server of a port decides its protocol; others that differ are left out.
pub(crate) fn servers<'a>(view: &View<'a>) -> BTreeMap<u16, Vec<Bound<'a>>> {
    let mut by_port: BTreeMap<u16, Vec<Bound<'a>>> = BTreeMap::new();
    for gateway in gateway::gateways(view.snapshot, view.proxy) {
        for server in &gateway.spec.servers {
            let Some(port) = u16::try_from(server.port.number).ok().filter(|it| *it > 0) else { continue };
            let target = gateway::target_port(view.snapshot, view.proxy, port);
            let bound = Bound { gateway, server, port, target };
            let others = by_port.entry(target).or_default();
            let is_tls = |it: &Bound<'_>| !matches!(it.kind(), Kind::Http | Kind::Tcp);
            let fits = others
                .first()
                .is_none_or(|first| first.kind() == bound.kind() || (is_tls(first) && is_tls(&bound)));
            if fits {
                others.push(bound);
            }
        }
    }
    by_port
}

pub(super) fn configurations(view: &View<'_>) -> Vec<RouteConfiguration> {
    let mut found = Vec::new();
    for servers in servers(view).values() {
        let plain: Vec<&Bound<'_>> = servers.iter().filter(|it| it.kind() == Kind::Http).collect();
        if let Some(first) = plain.first() {
            found.push(of_servers(view, first.route_name(), &plain));
        }
        for server in servers.iter().filter(|it| it.kind() == Kind::Https) {
            found.push(of_servers(view, server.route_name(), &[server]));
        }
    }
    found
}

fn of_servers(view: &View<'_>, name: String, servers: &[&Bound<'_>]) -> RouteConfiguration {
    // Routes by host, hosts in the order of first use; rules of several objects for one host are joined, those that take all go last.
    let mut order: Vec<String> = Vec::new();
    let mut by_host: BTreeMap<String, Vec<Route>> = BTreeMap::new();
    let mut redirected: Vec<String> = Vec::new();
    let port = servers.first().map_or(0, |it| it.port);
    for bound in servers {
        let own_name = format!("{}/{}", bound.gateway.namespace, bound.gateway.name);
        if bound.server.tls.as_ref().is_some_and(|it| it.https_redirect) {
            redirected.extend(bound.patterns().map(|(_, pattern)| pattern.to_ascii_lowercase()));
        }
        for rules in virtual_service::for_gateway(
            view.snapshot,
            view.proxy,
            &bound.gateway.namespace,
            &bound.gateway.name,
        ) {
            let place = Place {
                proxy: view.proxy,
                port: bound.port,
                gateway: &own_name,
                namespace: &rules.config.namespace,
            };
            let hosts = bound.hosts_of(&rules.config.namespace, &rules.hosts);
            let routes = if hosts.is_empty() { Vec::new() } else { rule::routes(view, &rules.config, place) };
            for host in hosts {
                if !by_host.contains_key(&host) {
                    order.push(host.clone());
                }
                by_host.entry(host).or_default().extend(routes.iter().cloned());
            }
        }
    }
    for host in &redirected {
        if !by_host.contains_key(host) {
            order.push(host.clone());
            by_host.insert(host.clone(), Vec::new());
        }
    }
    let mut used = HashSet::new();
    let mut hosts = Vec::new();
    for host in order {
        let routes = by_host.remove(&host).unwrap_or_default();
        let redirects = redirected.iter().any(|it| host::covers(it, &host));
        hosts.push(virtual_host(&host, port, routes, redirects, &mut used));
    }
    hosts.retain(|it| !it.domains.is_empty());
    if hosts.is_empty() {
        hosts.push(VirtualHost {
            name: format!("blackhole:{port}"),
            domains: vec!["*".to_owned()],
            ..Default::default()
        });
    }
    configuration(name, hosts)
}

fn virtual_host(
    host: &str,
    port: u16,
    routes: Vec<Route>,
    redirects: bool,
    used: &mut HashSet<String>,
) -> VirtualHost {
    let (general, special): (Vec<Route>, Vec<Route>) = routes.into_iter().partition(rule::takes_all);
    let requirement = if redirects { TlsRequirementType::All } else { TlsRequirementType::None };
    VirtualHost {
        name: format!("{host}:{port}"),
        domains: domains::of_host(host, port, used),
        routes: special.into_iter().chain(general.into_iter().take(1)).collect(),
        require_tls: requirement.into(),
        include_request_attempt_count: true,
        ..Default::default()
    }
}
