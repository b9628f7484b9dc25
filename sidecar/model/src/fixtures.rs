//! Messages that tests build upon: in Istio's shape, as small as they can be.

use policies_xds::core::{
    self, address, config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
};
use policies_xds::hcm::http_connection_manager::RouteSpecifier;
use policies_xds::hcm::{self, HttpConnectionManager, Rds, http_filter};
use policies_xds::listener::{self, Filter, FilterChain};
use policies_xds::protobuf::{self, Any, BoolValue, UInt32Value};
use policies_xds::route::route_action::ClusterSpecifier;
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route};
use policies_xds::types::FractionalPercent;
use policies_xds::{any, router};
use prost::Message;

pub(crate) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(crate) fn flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(crate) fn millis(millis: i64) -> Option<protobuf::Duration> {
    let nanos = i32::try_from(millis % 1000 * 1_000_000).unwrap();
    Some(protobuf::Duration { seconds: millis / 1000, nanos })
}

pub(crate) fn percent(numerator: u32) -> FractionalPercent {
    FractionalPercent { numerator, denominator: 0 }
}

pub(crate) fn ads() -> Option<core::ConfigSource> {
    let specifier = Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {}));
    Some(core::ConfigSource { config_source_specifier: specifier, ..Default::default() })
}

pub(crate) fn socket(ip: &str, port: u32) -> Option<core::Address> {
    Some(core::Address {
        address: Some(address::Address::SocketAddress(core::SocketAddress {
            address: ip.into(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    })
}

pub(crate) fn http_filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub(crate) fn router() -> hcm::HttpFilter {
    http_filter("envoy.filters.http.router", any(&router::Router::default()))
}

pub(crate) fn manager() -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "outbound_0.0.0.0_9080".into(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: ads(),
            route_config_name: "9080".into(),
        })),
        http_filters: vec![router()],
        ..Default::default()
    }
}

pub(crate) fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.into(), config_type: Some(listener::filter::ConfigType::TypedConfig(config)) }
}

pub(crate) fn listener() -> listener::Listener {
    let filters = vec![network_filter("envoy.filters.network.http_connection_manager", any(&manager()))];
    listener::Listener {
        name: "0.0.0.0_9080".into(),
        address: socket("0.0.0.0", 9080),
        filter_chains: vec![FilterChain { filters, ..Default::default() }],
        ..Default::default()
    }
}

pub(crate) fn action(cluster: &str) -> RouteAction {
    RouteAction { cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())), ..Default::default() }
}

pub(crate) fn prefix(path: &str) -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix(path.into())), ..Default::default() }
}

pub(crate) fn route(action: RouteAction) -> Route {
    Route { r#match: Some(prefix("/")), action: Some(route::Action::Route(action)), ..Default::default() }
}

pub(crate) fn virtual_host(name: &str, domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    let domains = domains.iter().map(ToString::to_string).collect();
    VirtualHost { name: name.into(), domains, routes, ..Default::default() }
}

pub(crate) fn routes(routes: Vec<Route>) -> RouteConfiguration {
    let virtual_hosts = vec![virtual_host("reviews", &["reviews", "reviews:9080"], routes)];
    RouteConfiguration { name: "9080".into(), virtual_hosts, ..Default::default() }
}

pub(crate) fn bytes(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}
