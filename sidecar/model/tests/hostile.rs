//! Bytes that no honest control plane sends: truncated, changed and random messages must be refused or taken, never panic.

use policies_xds::core::{
    self, address, config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
};
use policies_xds::endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use policies_xds::hcm::http_connection_manager::RouteSpecifier;
use policies_xds::hcm::{HttpConnectionManager, HttpFilter, http_filter};
use policies_xds::listener::{Filter, FilterChain, FilterChainMatch, Listener, filter};
use policies_xds::protobuf::{Any, UInt32Value};
use policies_xds::rbac::{Permission, Policy, Principal, permission, principal};
use policies_xds::route::route_action::ClusterSpecifier;
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route};
use policies_xds::tls::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, secret,
};
use policies_xds::{any, cluster, fault, http_rbac, jwt_authn, matcher, router};
use proptest::prelude::{ProptestConfig, prop, proptest};
use prost::Message;
use sidecar_model::{ResourceType, Snapshot, SnapshotBuilder};
use std::sync::LazyLock;

fn address(ip: &str) -> Option<core::Address> {
    Some(core::Address {
        address: Some(address::Address::SocketAddress(core::SocketAddress {
            address: ip.into(),
            port_specifier: Some(PortSpecifier::PortValue(15006)),
            ..Default::default()
        })),
    })
}

fn ads() -> Option<core::ConfigSource> {
    let specifier = Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {}));
    Some(core::ConfigSource { config_source_specifier: specifier, ..Default::default() })
}

fn routes() -> RouteConfiguration {
    let regex = matcher::RegexMatcher { regex: "/a(b|c)*".into(), ..Default::default() };
    let rewrite =
        matcher::RegexMatchAndSubstitute { pattern: Some(regex.clone()), substitution: r"\1".into() };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster("outbound|80||a".into())),
        regex_rewrite: Some(rewrite),
        ..Default::default()
    };
    let fault = fault::HttpFault { max_active_faults: Some(UInt32Value { value: 3 }), ..Default::default() };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::SafeRegex(regex)),
            ..Default::default()
        }),
        action: Some(route::Action::Route(action)),
        typed_per_filter_config: [("envoy.filters.http.fault".to_owned(), any(&fault))].into(),
        ..Default::default()
    };
    let host = VirtualHost {
        name: "h".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..Default::default()
    };
    RouteConfiguration { name: "80".into(), virtual_hosts: vec![host], ..Default::default() }
}

fn listener() -> Listener {
    let filter = |name: &str, config: Any| HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    };
    let everyone = Policy {
        permissions: vec![Permission { rule: Some(permission::Rule::Any(true)) }],
        principals: vec![Principal { identifier: Some(principal::Identifier::Any(true)) }],
        ..Default::default()
    };
    let rules =
        policies_xds::rbac::Rbac { policies: [("p".to_owned(), everyone)].into(), ..Default::default() };
    let rbac = http_rbac::Rbac { rules: Some(rules), ..Default::default() };
    let manager = any(&HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(routes())),
        http_filters: vec![
            filter("jwt", any(&jwt_authn::JwtAuthentication::default())),
            filter("rbac", any(&rbac)),
            filter("router", any(&router::Router::default())),
        ],
        ..Default::default()
    });
    let certificate = SdsSecretConfig { name: "default".into(), sds_config: ads() };
    let common =
        CommonTlsContext { tls_certificate_sds_secret_configs: vec![certificate], ..Default::default() };
    let tls = any(&DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() });
    let filters =
        vec![Filter { name: "hcm".into(), config_type: Some(filter::ConfigType::TypedConfig(manager)) }];
    let chain = FilterChain {
        filters,
        filter_chain_match: Some(FilterChainMatch { server_names: vec!["a.b".into()], ..Default::default() }),
        transport_socket: Some(core::TransportSocket {
            name: "tls".into(),
            config_type: Some(core::transport_socket::ConfigType::TypedConfig(tls)),
        }),
        ..Default::default()
    };
    Listener {
        name: "l".into(),
        address: address("0.0.0.0"),
        filter_chains: vec![chain],
        ..Default::default()
    }
}

fn endpoints() -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: address("10.0.0.1"), ..Default::default() };
    let host_identifier = Some(lb_endpoint::HostIdentifier::Endpoint(endpoint));
    ClusterLoadAssignment {
        cluster_name: "a".into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![LbEndpoint { host_identifier, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn seeds() -> Vec<(ResourceType, Vec<u8>)> {
    let cluster = cluster::Cluster {
        name: "a".into(),
        load_assignment: Some(endpoints()),
        outlier_detection: Some(cluster::OutlierDetection::default()),
        circuit_breakers: Some(cluster::CircuitBreakers::default()),
        lb_policy: 1,
        ..Default::default()
    };
    let text = |text: &str| {
        let specifier = Some(core::data_source::Specifier::InlineString(text.into()));
        Some(core::DataSource { specifier, ..Default::default() })
    };
    let pair =
        TlsCertificate { certificate_chain: text("chain"), private_key: text("key"), ..Default::default() };
    let secret = Secret { name: "s".into(), r#type: Some(secret::Type::TlsCertificate(pair)) };
    vec![
        (ResourceType::Cluster, cluster.encode_to_vec()),
        (ResourceType::Endpoints, endpoints().encode_to_vec()),
        (ResourceType::Listener, listener().encode_to_vec()),
        (ResourceType::Route, routes().encode_to_vec()),
        (ResourceType::Secret, secret.encode_to_vec()),
    ]
}

static SEEDS: LazyLock<Vec<(ResourceType, Vec<u8>)>> = LazyLock::new(seeds);

/// Takes a message in and looks at all of the result.
fn swallow(kind: ResourceType, message: &[u8]) -> bool {
    let mut builder = SnapshotBuilder::new(&Snapshot::default());
    let accepted = builder.upsert(kind, "", message).map_err(|error| error.to_string()).is_ok();
    let snapshot = builder.build();
    let json = sidecar_model::dump::to_json(&*snapshot);
    assert!(json.is_object());
    assert_eq!(snapshot.count(kind), usize::from(accepted));
    drop(snapshot.references());
    accepted
}

#[test]
fn the_seeds_are_good() {
    for (kind, message) in SEEDS.iter() {
        assert!(swallow(*kind, message), "{kind}");
    }
}

#[test]
fn every_truncation_is_survived() {
    for (kind, message) in SEEDS.iter() {
        for length in 0..message.len() {
            swallow(*kind, &message[..length]);
        }
    }
}

#[test]
fn every_single_byte_can_be_wrong() {
    for (kind, message) in SEEDS.iter() {
        for index in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[index] ^= 1 << bit;
                swallow(*kind, &changed);
            }
        }
    }
}

/// Permissions inside permissions: the decoder ends this before the stack does.
#[test]
fn deep_nesting_is_refused() {
    let mut inner = Permission { rule: Some(permission::Rule::Any(true)) };
    for _ in 0..200 {
        inner = Permission { rule: Some(permission::Rule::NotRule(Box::new(inner))) };
    }
    let policy = Policy {
        permissions: vec![inner],
        principals: vec![Principal { identifier: Some(principal::Identifier::Any(true)) }],
        ..Default::default()
    };
    let rules =
        policies_xds::rbac::Rbac { policies: [("p".to_owned(), policy)].into(), ..Default::default() };
    let rbac = any(&http_rbac::Rbac { rules: Some(rules), ..Default::default() });
    let mut listener = listener();
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(routes())),
        http_filters: vec![
            HttpFilter {
                name: "rbac".into(),
                config_type: Some(http_filter::ConfigType::TypedConfig(rbac)),
                ..Default::default()
            },
            HttpFilter {
                name: "router".into(),
                config_type: Some(http_filter::ConfigType::TypedConfig(any(&router::Router::default()))),
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    listener.filter_chains[0].filters[0].config_type = Some(filter::ConfigType::TypedConfig(any(&manager)));
    assert!(!swallow(ResourceType::Listener, &listener.encode_to_vec()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_survived(which in 0usize..5, message in prop::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
        swallow(ResourceType::ALL[which], &message);
    }

    #[test]
    fn mutations_are_survived(
        which in 0usize..5,
        edits in prop::collection::vec((proptest::arbitrary::any::<prop::sample::Index>(), proptest::arbitrary::any::<u8>(), 0u8..3), 1..12),
    ) {
        let (kind, message) = &SEEDS[which];
        let mut changed = message.clone();
        for (index, byte, edit) in edits {
            let at = index.index(changed.len() + 1);
            match edit {
                0 => changed.insert(at, byte),
                1 if at < changed.len() => { changed.remove(at); }
                _ if at < changed.len() => changed[at] = byte,
                _ => changed.push(byte),
            }
        }
        swallow(*kind, &changed);
    }
}
