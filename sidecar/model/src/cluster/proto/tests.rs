use super::*;
use crate::cluster::{HashFunction, LbPolicy, ProxyProtocolVersion, Thresholds, UpstreamProtocol};
use crate::fixtures::{ads, bytes, flag, millis, number, socket};
use crate::tls::RootSource;
use policies_xds::cluster::cluster::{
    EdsClusterConfig, LbPolicy as LbPolicyMessage, MaglevLbConfig, RingHashLbConfig, TransportSocketMatch,
};
use policies_xds::core::transport_socket::ConfigType;
use policies_xds::endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use policies_xds::http_protocol_options::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use policies_xds::protobuf::{Any, Struct, UInt64Value, Value, value::Kind};
use policies_xds::tls::common_tls_context::ValidationContextType;
use policies_xds::tls::{CommonTlsContext, SdsSecretConfig, UpstreamTlsContext};
use policies_xds::upstream_proxy_protocol::ProxyProtocolUpstreamTransport;
use policies_xds::{any, http_protocol_options, raw_buffer, type_url};

const NAME: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn eds() -> pb::Cluster {
    pb::Cluster {
        name: NAME.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: NAME.into() }),
        ..Default::default()
    }
}

fn of_type(kind: DiscoveryType) -> pb::Cluster {
    let cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    pb::Cluster { cluster_discovery_type, eds_cluster_config: None, ..eds() }
}

fn socket_of(config: Any) -> core::TransportSocket {
    core::TransportSocket { name: "s".into(), config_type: Some(ConfigType::TypedConfig(config)) }
}

fn mutual() -> core::TransportSocket {
    let secret = |name: &str| SdsSecretConfig { name: name.into(), sds_config: ads() };
    let common = CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![secret("default")],
        validation_context_type: Some(ValidationContextType::ValidationContextSdsSecretConfig(secret(
            "ROOTCA",
        ))),
        alpn_protocols: vec!["istio".into()],
        ..Default::default()
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: "outbound_.9080_._.reviews".into(),
        ..Default::default()
    };
    socket_of(any(&context))
}

fn plain() -> core::TransportSocket {
    socket_of(any(&raw_buffer::RawBuffer {}))
}

fn decoded(message: &pb::Cluster) -> Cluster {
    Cluster::decode(&bytes(message)).unwrap()
}

fn path(message: &pb::Cluster) -> String {
    Cluster::decode(&bytes(message)).unwrap_err().field
}

#[test]
fn envoys_defaults() {
    let cluster = decoded(&eds());
    assert_eq!(cluster.eds_name().map(|name| &**name), Some(NAME));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.lb, LbPolicy::RoundRobin { slow_start: None });
    assert_eq!(cluster.circuit_breakers.default, Thresholds::default());
    assert_eq!(cluster.http.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.http.idle_timeout, Some(Duration::from_secs(3600)));
    assert!(cluster.outlier.is_none() && cluster.tls.is_none());
    assert_eq!(cluster.per_connection_buffer_bytes_max, 1 << 20);
    let unnamed = EdsClusterConfig { eds_config: ads(), service_name: String::new() };
    let cluster = decoded(&pb::Cluster { eds_cluster_config: Some(unnamed), ..eds() });
    assert_eq!(cluster.eds_name().map(|name| &**name), Some(NAME), "its own name");
}

#[test]
fn mutual_tls_by_the_endpoints_metadata() {
    let mode = Value { kind: Some(Kind::StringValue("istio".into())) };
    let labels = Struct { fields: [("tlsMode".to_owned(), mode)].into() };
    let one = |name: &str, labels, socket| TransportSocketMatch {
        name: name.into(),
        r#match: Some(labels),
        transport_socket: Some(socket),
    };
    let cluster = decoded(&pb::Cluster {
        transport_socket_matches: vec![
            one("tlsMode-istio", labels, mutual()),
            one("tlsMode-disabled", Struct::default(), plain()),
        ],
        ..eds()
    });
    let mut metadata = crate::Metadata::default();
    assert!(cluster.tls_for(&metadata).is_none());
    metadata.set("envoy.transport_socket_match", serde_json::json!({"tlsMode": "istio"}));
    let tls = cluster.tls_for(&metadata).expect("mutual TLS");
    assert_eq!(&*tls.sni, "outbound_.9080_._.reviews");
    assert_eq!(tls.common.validation.roots, Some(RootSource::Secret("ROOTCA".into())));
}

#[test]
fn proxy_protocol_wraps_for_all_or_none() {
    let wrapped = |inner| {
        socket_of(any(&ProxyProtocolUpstreamTransport {
            config: Some(core::ProxyProtocolConfig { version: 1, ..Default::default() }),
            transport_socket: Some(inner),
            ..Default::default()
        }))
    };
    let cluster = decoded(&pb::Cluster { transport_socket: Some(wrapped(mutual())), ..eds() });
    assert_eq!(cluster.proxy_protocol, Some(ProxyProtocolVersion::V2));
    assert!(cluster.tls.is_some());
    let matches = [wrapped(plain()), plain()].map(|socket| TransportSocketMatch {
        name: "m".into(),
        r#match: None,
        transport_socket: Some(socket),
    });
    let mixed = pb::Cluster { transport_socket_matches: matches.into(), ..eds() };
    assert_eq!(path(&mixed), "transport_socket_matches");
    let unknown = Any { type_url: "type.googleapis.com/other".into(), value: vec![] };
    let unknown = pb::Cluster { transport_socket: Some(socket_of(unknown)), ..eds() };
    assert_eq!(path(&unknown), "transport_socket.typed_config");
}

#[test]
fn balancing() {
    let with =
        |policy: LbPolicyMessage, lb_config| pb::Cluster { lb_policy: policy.into(), lb_config, ..eds() };
    let least = decoded(&with(LbPolicyMessage::LeastRequest, None)).lb;
    assert_eq!(least, LbPolicy::LeastRequest { choices: 2, slow_start: None, active_request_bias: 1.0 });
    let ring = |min, max| {
        let size = |value: Option<u64>| value.map(|value| UInt64Value { value });
        let config = RingHashLbConfig {
            minimum_ring_size: size(min),
            maximum_ring_size: size(max),
            ..Default::default()
        };
        with(LbPolicyMessage::RingHash, Some(LbConfig::RingHashLbConfig(config)))
    };
    let hash = HashFunction::XxHash;
    let expected = LbPolicy::RingHash { ring_size_min: 1024, ring_size_max: 8_388_608, hash };
    assert_eq!(decoded(&ring(None, None)).lb, expected);
    assert_eq!(path(&ring(Some(10), Some(9))), "ring_hash_lb_config.minimum_ring_size");
    assert_eq!(path(&ring(None, Some(u64::MAX))), "ring_hash_lb_config.maximum_ring_size");
    let maglev = |value| {
        let config = MaglevLbConfig { table_size: Some(UInt64Value { value }) };
        with(LbPolicyMessage::Maglev, Some(LbConfig::MaglevLbConfig(config)))
    };
    assert_eq!(decoded(&maglev(65_537)).lb, LbPolicy::Maglev { table_size: 65_537 });
    for bad in [0, 1, 65_536, u64::MAX] {
        assert_eq!(path(&maglev(bad)), "maglev_lb_config.table_size");
    }
    assert_eq!(path(&with(LbPolicyMessage::ClusterProvided, None)), "lb_policy");
    let passthrough = pb::Cluster {
        lb_policy: LbPolicyMessage::ClusterProvided.into(),
        ..of_type(DiscoveryType::OriginalDst)
    };
    assert_eq!(decoded(&passthrough).kind, ClusterKind::OriginalDst { header: None, port_override: None });
}

#[test]
fn limits_and_outliers() {
    let thresholds = pb::circuit_breakers::Thresholds {
        max_connections: number(7),
        max_requests: number(u32::MAX),
        ..Default::default()
    };
    let breakers = pb::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() };
    let outlier = pb::OutlierDetection {
        consecutive_5xx: number(0),
        enforcing_success_rate: number(0),
        base_ejection_time: millis(400_000),
        always_eject_one_host: flag(true),
        ..Default::default()
    };
    let mut message =
        pb::Cluster { circuit_breakers: Some(breakers), outlier_detection: Some(outlier), ..eds() };
    let cluster = decoded(&message);
    assert_eq!(cluster.circuit_breakers.default.max_connections, 7);
    assert_eq!(cluster.circuit_breakers.default.max_retries, 3);
    let detection = cluster.outlier.unwrap();
    assert_eq!((detection.consecutive_5xx, detection.max_ejection_percent), (0, 10));
    assert_eq!(detection.max_ejection_time, Duration::from_secs(400), "never below the base");
    assert_eq!(detection.enforcing_consecutive_gateway_failure, 0);
    message.outlier_detection.as_mut().unwrap().max_ejection_percent = number(101);
    assert_eq!(path(&message), "outlier_detection.max_ejection_percent");
    message.outlier_detection.as_mut().unwrap().max_ejection_percent = None;
    message.outlier_detection.as_mut().unwrap().interval = millis(0);
    assert_eq!(path(&message), "outlier_detection.interval");
}

#[test]
fn protocols() {
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let options = http_protocol_options::HttpProtocolOptions {
        upstream_protocol_options: Some(explicit(ProtocolConfig::Http2ProtocolOptions(
            core::Http2ProtocolOptions { max_concurrent_streams: number(100), ..Default::default() },
        ))),
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            max_requests_per_connection: number(5),
            idle_timeout: millis(0),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut message = eds();
    message
        .typed_extension_protocol_options
        .insert(type_url::HTTP_PROTOCOL_OPTIONS_KEY.into(), any(&options));
    let http = decoded(&message).http;
    assert_eq!((http.protocol, http.http2.max_concurrent_streams), (UpstreamProtocol::Http2, Some(100)));
    assert_eq!((http.idle_timeout, http.max_requests_per_connection), (None, Some(5)));
    message.typed_extension_protocol_options.insert("other".into(), any(&options));
    assert_eq!(path(&message), "typed_extension_protocol_options[`other`]");
    let older = pb::Cluster { http2_protocol_options: Some(core::Http2ProtocolOptions::default()), ..eds() };
    assert_eq!(decoded(&older).http.protocol, UpstreamProtocol::Http2);
}

#[test]
fn names_to_resolve_stand_in_dns_clusters_only() {
    let assignment = |hosts: &[&str]| ClusterLoadAssignment {
        cluster_name: NAME.into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: hosts
                .iter()
                .map(|host| {
                    let endpoint = Endpoint { address: socket(host, 443), ..Default::default() };
                    let host_identifier = Some(lb_endpoint::HostIdentifier::Endpoint(endpoint));
                    LbEndpoint { host_identifier, ..Default::default() }
                })
                .collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let with = |kind, hosts: &[&str]| pb::Cluster {
        load_assignment: Some(assignment(hosts)),
        dns_refresh_rate: millis(60_000),
        ..of_type(kind)
    };
    let cluster = decoded(&with(DiscoveryType::StrictDns, &["example.org", "example.net"]));
    let ClusterKind::StrictDns(dns) = cluster.kind else { panic!("{:?}", cluster.kind) };
    assert_eq!((dns.refresh, dns.family), (Duration::from_secs(60), DnsFamily::Auto));
    assert_eq!(cluster.load_assignment.unwrap().len(), 2);
    assert_eq!(path(&with(DiscoveryType::LogicalDns, &["a.test", "b.test"])), "load_assignment");
    assert!(path(&with(DiscoveryType::Static, &["a.test"])).starts_with("load_assignment.endpoints[0]"));
    assert_eq!(path(&with(DiscoveryType::Eds, &["10.0.0.1"])), "eds_cluster_config");
}

#[test]
fn istios_upstream_filters_and_bind_address() {
    let filter = |url: &str| pb::Filter {
        name: "istio.metadata_exchange".into(),
        typed_config: Some(Any { type_url: url.into(), value: vec![] }),
        ..Default::default()
    };
    let source = core::SocketAddress { address: "127.0.0.6".into(), ..Default::default() };
    let mut message = pb::Cluster {
        filters: vec![filter(type_url::ISTIO_METADATA_EXCHANGE)],
        upstream_bind_config: Some(core::BindConfig { source_address: Some(source), ..Default::default() }),
        ..eds()
    };
    assert_eq!(decoded(&message).source_address, Some("127.0.0.6".parse().unwrap()));
    message.filters.push(filter("type.googleapis.com/other"));
    assert_eq!(path(&message), "filters[1].typed_config");
    message.filters.clear();
    message.health_checks.push(core::HealthCheck::default());
    assert_eq!(path(&message), "health_checks[0].timeout");
}

#[test]
fn policies_as_extensions() {
    use policies_xds::lb::{least_request, ring_hash};
    use policies_xds::peak_ewma::PeakEwma as Message;
    let with = |configs: Vec<Any>| {
        let policy = |config| pb::load_balancing_policy::Policy {
            typed_extension_config: Some(core::TypedExtensionConfig {
                name: "p".into(),
                typed_config: Some(config),
            }),
        };
        let policies = configs.into_iter().map(policy).collect();
        pb::Cluster { load_balancing_policy: Some(pb::LoadBalancingPolicy { policies }), ..eds() }
    };
    let unknown = Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] };
    let least = any(&least_request::LeastRequest { choice_count: number(3), ..Default::default() });
    let LbPolicy::PeakEwma(rules) = decoded(&with(vec![any(&Message::default()), least.clone()])).lb else {
        panic!("the first that is known counts");
    };
    assert_eq!((rules.decay, rules.default_rtt), (Duration::from_secs(10), Duration::from_millis(10)));
    let LbPolicy::LeastRequest { choices, .. } = decoded(&with(vec![unknown.clone(), least])).lb else {
        panic!("what is not known is passed over");
    };
    assert_eq!(choices, 3);
    assert_eq!(path(&with(vec![unknown])), "load_balancing_policy.policies");
    let ring = ring_hash::RingHash { use_hostname_for_hashing: true, ..Default::default() };
    let field =
        "load_balancing_policy.policies[0].typed_extension_config.typed_config.use_hostname_for_hashing";
    assert_eq!(path(&with(vec![any(&ring)])), field);
}

#[test]
fn subsets_are_read_whole() {
    use crate::cluster::SubsetFallback;
    use pb::cluster::LbSubsetConfig;
    use pb::cluster::lb_subset_config::{LbSubsetSelector, lb_subset_selector};
    let selector = LbSubsetSelector {
        keys: vec!["version".into(), "stage".into()],
        fallback_policy: lb_subset_selector::LbSubsetSelectorFallbackPolicy::KeysSubset.into(),
        fallback_keys_subset: vec!["version".into()],
        ..Default::default()
    };
    let with = |selector: LbSubsetSelector| pb::Cluster {
        lb_subset_config: Some(LbSubsetConfig {
            fallback_policy: 1,
            subset_selectors: vec![selector],
            ..Default::default()
        }),
        ..eds()
    };
    let subsets = decoded(&with(selector.clone())).subsets.unwrap();
    assert_eq!(subsets.fallback, SubsetFallback::AnyEndpoint);
    assert_eq!(subsets.selectors[0].keys, ["stage".into(), "version".into()]);
    assert_eq!(subsets.selectors[0].fallback, Some(SubsetFallback::Keys(vec!["version".into()])));
    let all = LbSubsetSelector { fallback_keys_subset: selector.keys.clone(), ..selector.clone() };
    assert_eq!(path(&with(all)), "lb_subset_config.subset_selectors[0].fallback_keys_subset");
    let single = LbSubsetSelector { single_host_per_subset: true, ..selector };
    assert_eq!(path(&with(single)), "lb_subset_config.subset_selectors[0].single_host_per_subset");
}
