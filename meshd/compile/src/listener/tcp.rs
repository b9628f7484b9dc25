//! TCP proxies: to one cluster, or to several by weight; and the TCP and TLS rules of virtual services.

use std::time::Duration;

use meshd_model::Service;
use meshd_model::entry::network as parse_network;
use meshd_model::select::virtual_service::HostRules;
use policies_api::virtual_service::{Destination, RouteDestination};
use policies_xds::listener::{Filter, FilterChain, FilterChainMatch};
use policies_xds::tcp_proxy::TcpProxy;
use policies_xds::tcp_proxy::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use policies_xds::{any, types};

use crate::cluster::effective_of;
use crate::filter::access_log::{self, Side};
use crate::filter::network;
use crate::proto::{cidr, duration};
use crate::route::action::cluster_name;
use crate::route::matches::{Place, is_gateway, source_matches};
use crate::view::View;

const FILTER: &str = "envoy.filters.network.tcp_proxy";

/// A proxy to one cluster.
pub(super) fn to_cluster(view: &View<'_>, cluster: &str, side: Side, options: Options) -> Filter {
    proxy(view, cluster, ClusterSpecifier::Cluster(cluster.to_owned()), side, options)
}

/// A proxy to the destinations of a rule.
pub(super) fn to_destinations(
    view: &View<'_>,
    destinations: &[RouteDestination],
    place: Place<'_>,
    side: Side,
) -> Filter {
    let single = |it: &Destination| cluster_name(view, it, place);
    let weighty: Vec<&RouteDestination> =
        destinations.iter().filter(|it| it.weight > 0 || destinations.len() == 1).collect();
    match weighty.as_slice() {
        [only] => to_cluster(view, &single(&only.destination), side, Options::default()),
        [] => to_cluster(view, crate::cluster::BLACK_HOLE, side, Options::default()),
        several => {
            let clusters = several
                .iter()
                .map(|it| ClusterWeight {
                    name: single(&it.destination),
                    weight: it.weight.unsigned_abs(),
                    ..Default::default()
                })
                .collect();
            let prefix = single(&several[0].destination);
            proxy(
                view,
                &prefix,
                ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }),
                side,
                Options::default(),
            )
        }
    }
}

/// What a destination rule says about the TCP connections of a service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    idle_timeout: Option<Duration>,
    duration_max: Option<Duration>,
    /// The client's address chooses the endpoint.
    sticky: bool,
}

// === impl Options ===

impl Options {
    pub(super) fn new(view: &View<'_>, service: &Service, port: u16) -> Self {
        let rule = view.rule(service);
        let effective = effective_of(rule.as_deref(), None, port);
        let tcp = effective.tcp();
        let hash = effective.load_balancer.and_then(|it| it.consistent_hash.as_ref());
        Self {
            idle_timeout: tcp.and_then(|it| it.idle_timeout).map(|it| it.0),
            duration_max: tcp.and_then(|it| it.max_connection_duration).map(|it| it.0),
            sticky: hash.is_some_and(|it| it.use_source_ip),
        }
    }
}

/// Chains of the TCP rules for a place; the last has no condition unless every rule has one.
pub(super) fn rule_chains(
    view: &View<'_>,
    rules: &HostRules,
    place: Place<'_>,
    side: Side,
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for rule in &rules.config.spec.tcp {
        let filters = vec![to_destinations(view, &rule.route, place, side)];
        if rule.matches.is_empty() {
            chains.push(FilterChain { filters, ..Default::default() });
            return chains;
        }
        for matched in &rule.matches {
            let holds = holds(
                matched.port,
                &matched.gateways,
                &matched.source_labels,
                &matched.source_namespace,
                place,
            );
            if !holds {
                continue;
            }
            let ranges: Vec<_> = matched
                .destination_subnets
                .iter()
                .filter_map(|it| parse_network(it))
                .map(|it| cidr(&it))
                .collect();
            if ranges.is_empty() {
                chains.push(FilterChain { filters, ..Default::default() });
                return chains;
            }
            let condition = FilterChainMatch { prefix_ranges: ranges, ..Default::default() };
            chains.push(FilterChain {
                filter_chain_match: Some(condition),
                filters: filters.clone(),
                ..Default::default()
            });
        }
    }
    chains
}

/// Chains of the TLS rules for a place, by server name.
pub(super) fn tls_chains(
    view: &View<'_>,
    rules: &HostRules,
    place: Place<'_>,
    side: Side,
) -> Vec<FilterChain> {
    let mut chains = Vec::new();
    for rule in &rules.config.spec.tls {
        for matched in &rule.matches {
            if !holds(
                matched.port,
                &matched.gateways,
                &matched.source_labels,
                &matched.source_namespace,
                place,
            ) {
                continue;
            }
            let condition = FilterChainMatch {
                transport_protocol: "tls".to_owned(),
                server_names: matched
                    .sni_hosts
                    .iter()
                    .map(|it| it.to_ascii_lowercase())
                    .filter(|it| it != "*")
                    .collect(),
                prefix_ranges: matched
                    .destination_subnets
                    .iter()
                    .filter_map(|it| parse_network(it))
                    .map(|it| cidr(&it))
                    .collect(),
                ..Default::default()
            };
            let filters = vec![to_destinations(view, &rule.route, place, side)];
            chains.push(FilterChain { filter_chain_match: Some(condition), filters, ..Default::default() });
        }
    }
    chains
}

fn holds(
    port: Option<u32>,
    gateways: &[String],
    labels: &policies_api::matching::StringMap,
    namespace: &str,
    place: Place<'_>,
) -> bool {
    if port.is_some_and(|it| it != u32::from(place.port)) {
        return false;
    }
    if !gateways.is_empty() {
        return gateways.iter().any(|it| is_gateway(it, place));
    }
    source_matches(labels, namespace, place.proxy)
}

fn proxy(view: &View<'_>, prefix: &str, specifier: ClusterSpecifier, side: Side, options: Options) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: prefix.to_owned(),
        access_log: access_log::logs(view, side),
        idle_timeout: options.idle_timeout.map(duration),
        max_downstream_connection_duration: options.duration_max.map(duration),
        hash_policy: if options.sticky { vec![by_source()] } else { Vec::new() },
        cluster_specifier: Some(specifier),
        ..Default::default()
    };
    network(FILTER, any(&proxy))
}

fn by_source() -> types::HashPolicy {
    use types::hash_policy::{PolicySpecifier, SourceIp};
    types::HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) }
}
