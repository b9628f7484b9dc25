use super::*;
use crate::address::Address;
use crate::fixtures::{bytes, number, percent, socket};
use policies_xds::core;
use policies_xds::protobuf::{Struct, Value, value::Kind};

fn endpoint(ip: &str) -> pb::LbEndpoint {
    let host = pb::Endpoint { address: socket(ip, 9080), ..Default::default() };
    pb::LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(host)), ..Default::default() }
}

fn assignment(lb_endpoints: Vec<pb::LbEndpoint>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: "outbound|9080||reviews.default.svc.cluster.local".into(),
        endpoints: vec![pb::LocalityLbEndpoints { lb_endpoints, ..Default::default() }],
        ..Default::default()
    }
}

#[test]
fn what_istio_sends() {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let fields = |key: &str, value| Struct { fields: [(key.to_owned(), value)].into() };
    let metadata = core::Metadata {
        filter_metadata: [
            ("istio".to_owned(), fields("workload", text("reviews-v1;default;reviews;v1;Kubernetes"))),
            ("envoy.transport_socket_match".to_owned(), fields("tlsMode", text("istio"))),
        ]
        .into(),
        ..Default::default()
    };
    let mut message = assignment(vec![pb::LbEndpoint { metadata: Some(metadata), ..endpoint("10.244.1.5") }]);
    message.endpoints[0].locality =
        Some(core::Locality { region: "r".into(), zone: "z".into(), ..Default::default() });
    message.endpoints[0].load_balancing_weight = number(1);
    message.endpoints[0].lb_endpoints[0].health_status = HealthStatus::Draining.into();
    let converted = Endpoints::decode(&bytes(&message)).unwrap();
    let one = converted.iter().next().unwrap();
    assert_eq!(one.address, Address::Socket("10.244.1.5:9080".parse().unwrap()));
    assert_eq!(one.workload().unwrap()[2], "reviews");
    assert_eq!((one.weight, one.health, one.health.is_available()), (1, Health::Draining, false));
    assert_eq!(&*converted.localities[0].locality.zone, "z");
}

#[test]
fn bounds_and_paths_of_errors() {
    let path = |message: &ClusterLoadAssignment| Endpoints::decode(&bytes(message)).unwrap_err().field;
    let mut named = assignment(vec![endpoint("10.0.0.1"), endpoint("reviews.test")]);
    assert_eq!(path(&named), "endpoints[0].lb_endpoints[1].endpoint.address.socket_address.address");
    assert!(endpoints(&named, Names::Allowed).is_ok());
    named.endpoints[0].lb_endpoints[1] =
        pb::LbEndpoint { load_balancing_weight: number(0), ..endpoint("10.0.0.2") };
    assert_eq!(path(&named), "endpoints[0].lb_endpoints[1].load_balancing_weight");
    named.endpoints[0].lb_endpoints[1].load_balancing_weight = number(u32::MAX);
    assert_eq!(path(&named), "endpoints[0].lb_endpoints");
    named.endpoints[0].lb_endpoints.pop();
    named.endpoints[0].priority = 129;
    assert_eq!(path(&named), "endpoints[0].priority");
    named.endpoints[0].priority = 0;
    named.cluster_name.clear();
    assert_eq!(path(&named), "cluster_name");
}

#[test]
fn endpoints_by_name_and_drops() {
    let mut message = assignment(vec![pb::LbEndpoint {
        host_identifier: Some(HostIdentifier::EndpointName("one".into())),
        ..Default::default()
    }]);
    message.policy = Some(pb::cluster_load_assignment::Policy {
        drop_overloads: vec![pb::cluster_load_assignment::policy::DropOverload {
            category: "throttle".into(),
            drop_percentage: Some(percent(5)),
        }],
        overprovisioning_factor: number(200),
        ..Default::default()
    });
    let error = Endpoints::decode(&bytes(&message)).unwrap_err();
    assert_eq!(error.field, "endpoints[0].lb_endpoints[0].endpoint_name");
    let host = pb::Endpoint { address: socket("10.0.0.1", 1), ..Default::default() };
    message.named_endpoints.insert("one".into(), host);
    let converted = Endpoints::decode(&bytes(&message)).unwrap();
    assert_eq!((converted.len(), converted.overprovisioning_percent), (1, Some(200)));
    assert_eq!(converted.drop_overloads[0].1.per_million, 50_000);
}
