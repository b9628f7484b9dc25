//! Resources in Istio's shape, as small as they can be.

use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use policies_xds::core::{
    self, address, config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
};
use policies_xds::discovery::Resource;
use policies_xds::endpoint::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use policies_xds::hcm::http_connection_manager::RouteSpecifier;
use policies_xds::hcm::{HttpConnectionManager, HttpFilter, Rds, http_filter};
use policies_xds::listener::{Filter, FilterChain, Listener, filter};
use policies_xds::protobuf::Any;
use policies_xds::route::route_action::ClusterSpecifier;
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route};
use policies_xds::{any, cluster, router};

pub fn resource(name: &str, version: &str, message: Any) -> Resource {
    Resource { name: name.into(), version: version.into(), resource: Some(message), ..Default::default() }
}

fn ads() -> Option<core::ConfigSource> {
    let specifier = Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {}));
    Some(core::ConfigSource { config_source_specifier: specifier, ..Default::default() })
}

fn address(ip: &str, port: u32) -> Option<core::Address> {
    Some(core::Address {
        address: Some(address::Address::SocketAddress(core::SocketAddress {
            address: ip.into(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..Default::default()
        })),
    })
}

pub fn cluster(name: &str) -> Any {
    any(&cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: name.into() }),
        ..Default::default()
    })
}

/// A cluster that no sidecar can honour.
pub fn bad_cluster(name: &str) -> Any {
    any(&cluster::Cluster { name: name.into(), lb_policy: 99, ..Default::default() })
}

pub fn endpoints(name: &str, ip: &str) -> Any {
    let endpoint = Endpoint { address: address(ip, 9080), ..Default::default() };
    let one = LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    any(&ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![one], ..Default::default() }],
        ..Default::default()
    })
}

pub fn listener(name: &str, routes: &str) -> Any {
    let router = HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&router::Router::default()))),
        ..Default::default()
    };
    let manager = any(&HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: ads(),
            route_config_name: routes.into(),
        })),
        http_filters: vec![router],
        ..Default::default()
    });
    let filter = Filter { name: "hcm".into(), config_type: Some(filter::ConfigType::TypedConfig(manager)) };
    any(&Listener {
        name: name.into(),
        address: address("0.0.0.0", 9080),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    })
}

pub fn routes(name: &str, cluster: &str) -> Any {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..Default::default()
    };
    any(&RouteConfiguration { name: name.into(), virtual_hosts: vec![host], ..Default::default() })
}
