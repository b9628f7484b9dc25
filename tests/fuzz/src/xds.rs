//! What a control plane sends: each resource type into the sidecar's own terms.

use policies_xds::{cluster, core, endpoint, listener, route, tls};
use prost::Message;
use sidecar_model::{ResourceType, Snapshot, SnapshotBuilder};

use crate::Target;

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "xds_cluster", seeds: clusters, run: |input| upsert(ResourceType::Cluster, input) },
        Target {
            name: "xds_endpoints",
            seeds: endpoints,
            run: |input| upsert(ResourceType::Endpoints, input),
        },
        Target { name: "xds_listener", seeds: listeners, run: |input| upsert(ResourceType::Listener, input) },
        Target { name: "xds_route", seeds: routes, run: |input| upsert(ResourceType::Route, input) },
        Target { name: "xds_secret", seeds: secrets, run: |input| upsert(ResourceType::Secret, input) },
    ]
}

fn upsert(kind: ResourceType, input: &[u8]) {
    let mut builder = SnapshotBuilder::new(&Snapshot::default());
    // Taken or refused: both are answers.
    let _ = builder.upsert(kind, "a", input);
    let snapshot = builder.build();
    let _ = snapshot.missing();
}

fn address() -> Option<core::Address> {
    let socket = core::SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
        ..Default::default()
    };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

fn clusters() -> Vec<Vec<u8>> {
    let cluster = cluster::Cluster {
        name: "a".into(),
        alt_stat_name: "outbound|80||a".into(),
        load_assignment: Some(assignment()),
        ..Default::default()
    };
    vec![cluster.encode_to_vec()]
}

fn assignment() -> endpoint::ClusterLoadAssignment {
    let host = endpoint::Endpoint { address: address(), ..Default::default() };
    let endpoint = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(host)),
        ..Default::default()
    };
    let locality = endpoint::LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    endpoint::ClusterLoadAssignment {
        cluster_name: "a".into(),
        endpoints: vec![locality],
        ..Default::default()
    }
}

fn endpoints() -> Vec<Vec<u8>> {
    vec![assignment().encode_to_vec()]
}

fn listeners() -> Vec<Vec<u8>> {
    let listener = listener::Listener {
        name: "a".into(),
        address: address(),
        filter_chains: vec![listener::FilterChain::default()],
        ..Default::default()
    };
    vec![listener.encode_to_vec()]
}

fn routes() -> Vec<Vec<u8>> {
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster("a".into())),
        ..Default::default()
    };
    let one = route::Route {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: "a".into(),
        domains: vec!["*".into(), "a.b:80".into()],
        routes: vec![one],
        ..Default::default()
    };
    let table =
        route::RouteConfiguration { name: "a".into(), virtual_hosts: vec![host], ..Default::default() };
    vec![table.encode_to_vec()]
}

fn secrets() -> Vec<Vec<u8>> {
    vec![tls::Secret { name: "a".into(), ..Default::default() }.encode_to_vec()]
}
