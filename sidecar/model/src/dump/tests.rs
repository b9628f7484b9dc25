use policies_xds::core::TransportSocket;
use policies_xds::{any, cluster, endpoint, tls};

use super::*;
use crate::fixtures::{self, bytes, number, percent};
use crate::{Cluster, Endpoints, Listener, RouteConfig};

#[test]
fn a_listener_is_shown_as_envoy_shows_it() {
    let mut message = fixtures::listener();
    message.bind_to_port = fixtures::flag(false);
    let json = listener(&Listener::decode(&bytes(&message)).unwrap());
    assert_eq!(json["@type"], "type.googleapis.com/envoy.config.listener.v3.Listener");
    assert_eq!(json["address"], json!({"socket_address": {"address": "0.0.0.0", "port_value": 9080}}));
    assert_eq!(json["bind_to_port"], false);
    let filter = &json["filter_chains"][0]["filters"][0];
    assert_eq!(filter["name"], "envoy.filters.network.http_connection_manager");
    let manager = &filter["typed_config"];
    assert_eq!(manager["rds"]["route_config_name"], "9080");
    assert_eq!(
        manager["http_filters"][0]["typed_config"]["@type"],
        "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    );
    assert_eq!(json.pointer("/default_filter_chain"), None, "what is absent is not written");
}

#[test]
fn a_route_is_shown_as_envoy_shows_it() {
    let mut action = fixtures::action("outbound|9080|v1|reviews");
    action.timeout = fixtures::millis(1500);
    let mut route = fixtures::route(action);
    route.r#match.as_mut().unwrap().case_sensitive = fixtures::flag(false);
    let policy = policies_xds::route::route_action::RequestMirrorPolicy {
        cluster: "shadow".into(),
        runtime_fraction: Some(policies_xds::core::RuntimeFractionalPercent {
            default_value: Some(percent(25)),
            ..Default::default()
        }),
        ..Default::default()
    };
    if let Some(policies_xds::route::route::Action::Route(action)) = &mut route.action {
        action.request_mirror_policies.push(policy);
    }
    let config = RouteConfig::decode(&bytes(&fixtures::routes(vec![route]))).unwrap();
    let json = route_config(&config);
    let host = &json["virtual_hosts"][0];
    assert_eq!(host["domains"], json!(["reviews", "reviews:9080"]));
    assert_eq!(host["routes"][0]["match"], json!({"prefix": "/", "case_sensitive": false}));
    let action = &host["routes"][0]["route"];
    assert_eq!(
        (&action["cluster"], &action["timeout"]),
        (&json!("outbound|9080|v1|reviews"), &json!("1.500s"))
    );
    let fraction = &action["request_mirror_policies"][0]["runtime_fraction"]["default_value"];
    assert_eq!(*fraction, json!({"numerator": 250_000, "denominator": "MILLION"}));
}

#[test]
fn a_cluster_and_its_endpoints_are_shown_and_keys_are_not() {
    let context = tls::UpstreamTlsContext { sni: "outbound_.80_._.a".into(), ..Default::default() };
    let message = cluster::Cluster {
        name: "outbound|80||a".into(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::Eds.into(),
        )),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: fixtures::ads(),
            ..Default::default()
        }),
        connect_timeout: fixtures::millis(10_000),
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.tls".into(),
            config_type: Some(policies_xds::core::transport_socket::ConfigType::TypedConfig(any(&context))),
        }),
        ..Default::default()
    };
    let json = cluster(&Cluster::decode(&bytes(&message)).unwrap());
    assert_eq!((&json["type"], &json["connect_timeout"]), (&json!("EDS"), &json!("10s")));
    assert_eq!(json["transport_socket"]["typed_config"]["sni"], "outbound_.80_._.a");
    assert_eq!(json["circuit_breakers"]["thresholds"][1]["priority"], "HIGH");

    let one = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: fixtures::socket("10.0.0.1", 80),
            ..Default::default()
        })),
        load_balancing_weight: number(3),
        ..Default::default()
    };
    let message = endpoint::ClusterLoadAssignment {
        cluster_name: "outbound|80||a".into(),
        endpoints: vec![endpoint::LocalityLbEndpoints { lb_endpoints: vec![one], ..Default::default() }],
        ..Default::default()
    };
    let json = endpoints(&Endpoints::decode(&bytes(&message)).unwrap());
    let shown = &json["endpoints"][0]["lb_endpoints"][0];
    assert_eq!(shown["endpoint"]["address"]["socket_address"]["port_value"], 80);
    assert_eq!(shown["load_balancing_weight"], 3);

    let certificate = crate::secret::TlsCertificate {
        chain_pem: "chain".into(),
        key_pem: "the key".into(),
        ocsp_staple: Box::default(),
    };
    let kind = crate::secret::SecretKind::Certificate(std::sync::Arc::new(certificate));
    let json = secret(&crate::Secret { name: "gateway".into(), kind });
    assert!(!json.to_string().contains("the key"), "{json}");
    assert_eq!(json["tls_certificate"]["private_key"]["inline_bytes"], REDACTED);
}

#[derive(Serialize)]
struct Sample {
    timeout: Duration,
    idle: Option<Duration>,
    none: Option<u32>,
    list: Vec<u32>,
}

#[test]
fn durations_are_readable_and_absent_values_left_out() {
    let sample = Sample {
        timeout: Duration::from_millis(1500),
        idle: Some(Duration::from_secs(3)),
        none: None,
        list: vec![],
    };
    assert_eq!(to_json(&sample), serde_json::json!({"timeout": "1.5s", "idle": "3s"}));
}
