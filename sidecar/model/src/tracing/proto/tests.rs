use policies_xds::any;
use policies_xds::core::grpc_service::EnvoyGrpc;
use policies_xds::core::{HeaderValue, HttpUri};
use policies_xds::trace::tracing::Http;
use policies_xds::types::Percent;

use super::*;

fn with(name: &str, config: Any) -> pb::Tracing {
    pb::Tracing {
        provider: Some(Http { name: name.into(), config_type: Some(ConfigType::TypedConfig(config)) }),
        random_sampling: Some(Percent { value: 12.5 }),
        ..Default::default()
    }
}

fn otlp() -> OpenTelemetryConfig {
    let target = EnvoyGrpc {
        cluster_name: "outbound|4317||otel".into(),
        authority: "otel.obs".into(),
        ..Default::default()
    };
    OpenTelemetryConfig {
        grpc_service: Some(GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
            initial_metadata: vec![HeaderValue {
                key: "X-Key".into(),
                value: "secret".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        service_name: "reviews.default".into(),
        ..Default::default()
    }
}

#[test]
fn opentelemetry_is_understood() {
    let converted = tracing(&with("envoy.tracers.opentelemetry", any(&otlp()))).unwrap();
    assert_eq!((converted.random_sampling.per_million, converted.path_tag_bytes_max), (125_000, 256));
    let provider = converted.provider.unwrap();
    assert_eq!((&*provider.cluster, &*provider.authority), ("outbound|4317||otel", "otel.obs"));
    assert_eq!(provider.headers, [("x-key".into(), "secret".into())]);
    assert_eq!((provider.queue_max, provider.propagation), (1024, Propagation::W3c));

    let service = HttpService {
        http_uri: Some(HttpUri {
            uri: "http://otel.obs:4318/v1/traces".into(),
            http_upstream_type: Some(HttpUpstreamType::Cluster("c".into())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let config = OpenTelemetryConfig { grpc_service: None, http_service: Some(service), ..otlp() };
    let provider = tracing(&with("o", any(&config))).unwrap().provider.unwrap();
    assert_eq!(provider.protocol, SpanProtocol::OtlpHttp("/v1/traces".into()));
    assert_eq!(&*provider.authority, "otel.obs:4318");
}

#[test]
fn zipkin_is_understood() {
    let config = ZipkinConfig {
        collector_cluster: "outbound|9411||zipkin".into(),
        collector_endpoint: "/api/v2/spans".into(),
        collector_endpoint_version: CollectorEndpointVersion::HttpJson.into(),
        trace_id_128bit: true,
        ..Default::default()
    };
    let provider = tracing(&with("envoy.tracers.zipkin", any(&config))).unwrap().provider.unwrap();
    assert_eq!(
        provider.protocol,
        SpanProtocol::Zipkin { path: "/api/v2/spans".into(), wide: true, shared: true }
    );
    assert_eq!((provider.propagation, &*provider.authority), (Propagation::B3, "outbound|9411||zipkin"));
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let refused = |message: &pb::Tracing| tracing(message).unwrap_err().to_string();
    let other = refused(&with("x", any(&policies_xds::router::Router::default())));
    assert!(other.contains("provider.typed_config") && other.contains("`x`"), "{other}");
    let sampler = TypedExtensionConfig { name: "dynatrace".into(), typed_config: None };
    let config = OpenTelemetryConfig { sampler: Some(sampler), ..otlp() };
    assert!(refused(&with("o", any(&config))).contains("sampler"), "sampler");
    let protobuf = ZipkinConfig {
        collector_cluster: "c".into(),
        collector_endpoint: "/".into(),
        collector_endpoint_version: CollectorEndpointVersion::HttpProto.into(),
        ..Default::default()
    };
    assert!(refused(&with("z", any(&protobuf))).contains("collector_endpoint_version"));
    let tag = tracing_tag::CustomTag { tag: "a".into(), r#type: None };
    let tagged = pb::Tracing { custom_tags: vec![tag], ..Default::default() };
    assert!(refused(&tagged).contains("custom_tags"));
}
