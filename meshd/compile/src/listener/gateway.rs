//! Listeners of a gateway: one for each port of the pod that some server opens.

use meshd_model::select::virtual_service;
use policies_api::gateway::ServerTls;
use policies_xds::core::TrafficDirection;
use policies_xds::listener::{FilterChain, FilterChainMatch, Listener};

use super::{ANY_ADDRESS, chain, hcm, tcp};
use crate::filter::access_log::Side;
use crate::filter::rbac;
use crate::proto::{duration, socket_address};
use crate::route::gateway::{Bound, Kind, servers};
use crate::route::matches::Place;
use crate::tls;
use crate::view::View;

/// Time for a client's TLS handshake.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

pub(super) fn listeners(view: &View<'_>) -> Vec<Listener> {
    servers(view).into_iter().filter_map(|(port, servers)| listener(view, port, &servers)).collect()
}

fn listener(view: &View<'_>, port: u16, servers: &[Bound<'_>]) -> Option<Listener> {
    let first = servers.first()?;
    let bind = if first.server.bind.is_empty() { ANY_ADDRESS } else { &first.server.bind };
    let mut chains: Vec<FilterChain> = Vec::new();
    if first.kind() == Kind::Http {
        let filters = vec![hcm::gateway(view, &first.route_name(), port)];
        chains.push(FilterChain { filters, ..Default::default() });
    } else {
        for server in servers {
            chains.extend(server_chains(view, server));
        }
    }
    if chains.is_empty() {
        return None;
    }
    let needs_names = first.kind() != Kind::Http && first.kind() != Kind::Tcp;
    Some(Listener {
        name: format!("{bind}_{port}"),
        address: Some(socket_address(bind, port)),
        filter_chains: chains,
        listener_filters: if needs_names { vec![chain::tls_hello()] } else { Vec::new() },
        listener_filters_timeout: needs_names.then(|| duration(HANDSHAKE_TIMEOUT)),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Default::default()
    })
}

fn server_chains(view: &View<'_>, server: &Bound<'_>) -> Vec<FilterChain> {
    match server.kind() {
        Kind::Http => Vec::new(),
        Kind::Https => {
            terminated(view, server, vec![hcm::gateway(view, &server.route_name(), server.target)], true)
        }
        Kind::Tls => {
            let inner =
                rule_chains(view, server, false).into_iter().next().map(|it| it.filters).unwrap_or_default();
            if inner.is_empty() { Vec::new() } else { terminated(view, server, inner, false) }
        }
        Kind::Passthrough => rule_chains(view, server, true),
        Kind::Tcp => rule_chains(view, server, false),
    }
}

fn terminated(
    view: &View<'_>,
    server: &Bound<'_>,
    filters: Vec<policies_xds::listener::Filter>,
    http: bool,
) -> Vec<FilterChain> {
    let none = ServerTls::default();
    let written = server.server.tls.as_ref().unwrap_or(&none);
    // "*" stands for every name, which Envoy writes as no condition on names.
    let mut names: Vec<String> = server.patterns().map(|(_, host)| host.to_ascii_lowercase()).collect();
    if names.iter().any(|it| it == "*") {
        names.clear();
    }
    let condition =
        (!names.is_empty()).then(|| FilterChainMatch { server_names: names, ..Default::default() });
    vec![FilterChain {
        filter_chain_match: condition,
        filters,
        transport_socket: Some(tls::gateway_downstream(view.mesh, written, http)),
        transport_socket_connect_timeout: Some(duration(HANDSHAKE_TIMEOUT)),
        ..Default::default()
    }]
}

/// Chains of the TCP or TLS rules of the virtual services bound to the server.
fn rule_chains(view: &View<'_>, server: &Bound<'_>, by_name: bool) -> Vec<FilterChain> {
    let own_name = format!("{}/{}", server.gateway.namespace, server.gateway.name);
    let mut chains = Vec::new();
    for rules in virtual_service::for_gateway(
        view.snapshot,
        view.proxy,
        &server.gateway.namespace,
        &server.gateway.name,
    ) {
        if server.hosts_of(&rules.config.namespace, &rules.hosts).is_empty() {
            continue;
        }
        let place = Place {
            proxy: view.proxy,
            port: server.port,
            gateway: &own_name,
            namespace: &rules.config.namespace,
        };
        chains.extend(if by_name {
            tcp::tls_chains(view, &rules, place, Side::Client)
        } else {
            tcp::rule_chains(view, &rules, place, Side::Client)
        });
    }
    for chain in &mut chains {
        chain.filters.splice(0..0, rbac::network_filters(view));
    }
    chains
}
