//! Outbound listeners of a sidecar: 15001 takes every redirected connection and hands it to the listener of its original destination.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meshd_model::select::virtual_service::{self, MESH_GATEWAY};
use meshd_model::{EndpointAddress, OutboundPolicy, Protocol, Service, ServicePort};
use policies_api::names::ports;
use policies_xds::core::TrafficDirection;
use policies_xds::listener::{FilterChain, FilterChainMatch, Listener, ListenerFilter};

use super::{ANY_ADDRESS, chain, hcm, tcp};
use crate::cluster::{BLACK_HOLE, PASSTHROUGH};
use crate::filter::access_log::Side;
use crate::proto::{flag, is_single, number, socket_address};
use crate::route::matches::Place;
use crate::route::outbound::sniffed_name;
use crate::view::{View, outbound_name, tcp_ports};

/// What shares the port of every address.
#[derive(Debug, Default)]
struct Shared {
    http: bool,
    /// Chains by server name.
    tls: Vec<FilterChain>,
    /// Where bytes go that are none of the above.
    bytes: Option<Vec<FilterChain>>,
}

pub(super) fn listeners(view: &View<'_>) -> Vec<Listener> {
    let mut shared: BTreeMap<u16, Shared> = BTreeMap::new();
    let mut own: BTreeMap<(IpAddr, u16), Listener> = BTreeMap::new();
    for service in &view.services {
        for port in tcp_ports(service) {
            if port.protocol.is_http() {
                shared.entry(port.port).or_default().http = true;
            } else {
                of_port(view, service, port, &mut shared, &mut own);
            }
        }
    }
    let mut listeners = vec![catch_all(view)];
    listeners.extend(shared.into_iter().map(|(port, it)| shared_listener(view, port, it)));
    listeners.extend(own.into_values());
    listeners
}

/// Ports that are not declared as HTTP: an address's own listener where there is one, else a part of the shared listener.
fn of_port(
    view: &View<'_>,
    service: &Arc<Service>,
    port: &ServicePort,
    shared: &mut BTreeMap<u16, Shared>,
    own: &mut BTreeMap<(IpAddr, u16), Listener>,
) {
    let mut addresses: Vec<IpAddr> = service.addresses.iter().filter_map(is_single).collect();
    if addresses.is_empty() && service.is_headless() {
        let endpoints = view.snapshot.endpoints_of(service).iter().filter(|it| it.service_port == port.port);
        addresses = endpoints
            .filter_map(|it| match it.address {
                EndpointAddress::Ip(ip) => Some(ip),
                EndpointAddress::Name(_) => None,
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
    }
    if !addresses.is_empty() {
        for address in addresses {
            own.entry((address, port.port)).or_insert_with(|| own_listener(view, service, port, address));
        }
        return;
    }
    let networks: Vec<_> = service.addresses.iter().map(crate::proto::cidr).collect();
    let part = shared.entry(port.port).or_default();
    match port.protocol {
        Protocol::Https | Protocol::Tls => part.tls.extend(named_chains(view, service, port)),
        Protocol::Unset if networks.is_empty() => part.http = true,
        _ if networks.is_empty() => {
            part.bytes.get_or_insert_with(|| bytes_chains(view, service, port));
        }
        _ => {
            let condition = FilterChainMatch { prefix_ranges: networks, ..Default::default() };
            let chains = bytes_chains(view, service, port).into_iter().take(1);
            part.tls
                .extend(chains.map(|it| FilterChain { filter_chain_match: Some(condition.clone()), ..it }));
        }
    }
}

fn own_listener(view: &View<'_>, service: &Service, port: &ServicePort, address: IpAddr) -> Listener {
    let name = format!("{address}_{}", port.port);
    let mut listener = listener(name, &address.to_string(), port.port, Vec::new());
    if port.protocol.is_unset() {
        let http = FilterChain {
            filter_chain_match: Some(chain::transport("raw_buffer", chain::PLAIN_HTTP)),
            filters: vec![hcm::outbound(view, &sniffed_name(&service.host, port.port), port.port)],
            ..Default::default()
        };
        listener.filter_chains.push(http);
        inspect(&mut listener, view, vec![chain::tls_hello(), chain::http_detection()]);
    } else if port.protocol.is_tls() {
        let named = rule_tls_chains(view, service, port);
        if !named.is_empty() {
            inspect(&mut listener, view, vec![chain::tls_hello()]);
        }
        listener.filter_chains.extend(named);
    }
    let mut rest = bytes_chains(view, service, port);
    listener.default_filter_chain =
        rest.iter().position(|it| it.filter_chain_match.is_none()).map(|index| rest.remove(index));
    listener.filter_chains.extend(rest);
    listener
}

fn shared_listener(view: &View<'_>, port: u16, shared: Shared) -> Listener {
    let mut listener = listener(format!("{ANY_ADDRESS}_{port}"), ANY_ADDRESS, port, Vec::new());
    let needs_names = !shared.tls.is_empty();
    listener.filter_chains = shared.tls;
    if shared.http {
        listener.filter_chains.push(FilterChain {
            filter_chain_match: Some(chain::transport("raw_buffer", chain::PLAIN_HTTP)),
            filters: vec![hcm::outbound(view, &port.to_string(), port)],
            ..Default::default()
        });
    }
    let inspectors = match (needs_names, shared.http) {
        (_, true) => vec![chain::tls_hello(), chain::http_detection()],
        (true, false) => vec![chain::tls_hello()],
        (false, false) => Vec::new(),
    };
    inspect(&mut listener, view, inspectors);
    let mut rest = shared.bytes.unwrap_or_default();
    let last = rest.iter().position(|it| it.filter_chain_match.is_none()).map(|index| rest.remove(index));
    listener.filter_chains.extend(rest);
    listener.default_filter_chain = last.or_else(|| Some(unknown_chain(view, "PassthroughFilterChain")));
    listener
}

/// Chains by the server names of a TLS service: those of its rules, else its own host.
fn named_chains(view: &View<'_>, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
    let by_rules = rule_tls_chains(view, service, port);
    if !by_rules.is_empty() {
        return by_rules;
    }
    let cluster = outbound_name(port.port, "", &service.host);
    let condition = FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        server_names: vec![service.host.to_string()],
        ..Default::default()
    };
    let filters =
        vec![tcp::to_cluster(view, &cluster, Side::Client, tcp::Options::new(view, service, port.port))];
    vec![FilterChain { filter_chain_match: Some(condition), filters, ..Default::default() }]
}

fn rule_tls_chains(view: &View<'_>, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
    let Some(rules) = virtual_service::of_host(&view.virtual_services, &service.host) else {
        return Vec::new();
    };
    let place = Place {
        proxy: view.proxy,
        port: port.port,
        gateway: MESH_GATEWAY,
        namespace: &rules.config.namespace,
    };
    tcp::tls_chains(view, rules, place, Side::Client)
}

/// Chains for the bytes of a service: those of its rules, else one to its cluster.
fn bytes_chains(view: &View<'_>, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
    if let Some(rules) = virtual_service::of_host(&view.virtual_services, &service.host) {
        let place = Place {
            proxy: view.proxy,
            port: port.port,
            gateway: MESH_GATEWAY,
            namespace: &rules.config.namespace,
        };
        let chains = tcp::rule_chains(view, rules, place, Side::Client);
        if !chains.is_empty() {
            return chains;
        }
    }
    let cluster = outbound_name(port.port, "", &service.host);
    let filters =
        vec![tcp::to_cluster(view, &cluster, Side::Client, tcp::Options::new(view, service, port.port))];
    vec![FilterChain { filters, ..Default::default() }]
}

fn catch_all(view: &View<'_>) -> Listener {
    let trap = FilterChain {
        name: "virtualOutbound-blackhole".to_owned(),
        // A connection straight to 15001 would go round in circles.
        filter_chain_match: Some(FilterChainMatch {
            destination_port: number(ports::OUTBOUND.into()),
            ..Default::default()
        }),
        filters: vec![tcp::to_cluster(view, BLACK_HOLE, Side::Client, tcp::Options::default())],
        ..Default::default()
    };
    Listener {
        name: "virtualOutbound".to_owned(),
        address: Some(socket_address(ANY_ADDRESS, ports::OUTBOUND)),
        filter_chains: vec![trap, unknown_chain(view, "virtualOutbound-catchall-tcp")],
        use_original_dst: flag(true),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Default::default()
    }
}

fn unknown_chain(view: &View<'_>, name: &str) -> FilterChain {
    let cluster = match view.egress.outbound_policy() {
        OutboundPolicy::AllowAny => PASSTHROUGH,
        OutboundPolicy::RegistryOnly => BLACK_HOLE,
    };
    FilterChain {
        name: name.to_owned(),
        filters: vec![tcp::to_cluster(view, cluster, Side::Client, tcp::Options::default())],
        ..Default::default()
    }
}

fn listener(name: String, address: &str, port: u16, filter_chains: Vec<FilterChain>) -> Listener {
    Listener {
        name,
        address: Some(socket_address(address, port)),
        filter_chains,
        bind_to_port: flag(false),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Default::default()
    }
}

/// Sniffing never fails a connection: what is not recognized in time is bytes.
fn inspect(listener: &mut Listener, view: &View<'_>, filters: Vec<ListenerFilter>) {
    if filters.is_empty() {
        return;
    }
    listener.listener_filters = filters;
    listener.listener_filters_timeout = Some(crate::proto::duration(view.mesh.protocol_detection_timeout));
    listener.continue_on_listener_filters_timeout = true;
}
