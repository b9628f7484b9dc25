use super::*;
use policies_xds::core::grpc_service::EnvoyGrpc;
use policies_xds::core::{GrpcService as GrpcMessage, HeaderValue as HeaderMessage, HttpUri};
use policies_xds::matcher::{StringMatcher, string_matcher::MatchPattern};

fn grpc(cluster: &str) -> Services {
    let target = EnvoyGrpc { cluster_name: cluster.into(), ..Default::default() };
    Services::GrpcService(GrpcMessage {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
        ..Default::default()
    })
}

fn message() -> pb::ExtAuthz {
    pb::ExtAuthz { services: Some(grpc("authz")), ..Default::default() }
}

#[test]
fn what_is_not_said_is_envoys_default_and_closed() {
    let model = ext_authz(&message()).unwrap();
    assert!(!model.failure_mode_allow && model.body.is_none() && model.enabled == Fraction::ALL);
    assert_eq!(model.status_on_error, StatusCode::FORBIDDEN);
    let AuthzService::Grpc(service) = model.service else { panic!("{:?}", model.service) };
    assert_eq!((&*service.cluster, &*service.authority), ("authz", "authz"));
    assert_eq!(service.timeout, Duration::from_millis(200));
}

#[test]
fn an_http_service_needs_a_time_and_matches_names_in_any_case() {
    let uri = HttpUri {
        uri: "http://authz".into(),
        http_upstream_type: Some(HttpUpstreamType::Cluster("authz".into())),
        timeout: Some(policies_xds::protobuf::Duration { seconds: 600, nanos: 0 }),
    };
    let exact =
        StringMatcher { match_pattern: Some(MatchPattern::Exact("X-Check".into())), ..Default::default() };
    let request = pb::AuthorizationRequest {
        allowed_headers: Some(ListStringMatcher { patterns: vec![exact] }),
        headers_to_add: vec![HeaderMessage { key: "x-add".into(), value: "1".into(), ..Default::default() }],
    };
    let service = |uri: HttpUri| {
        let service = pb::HttpService {
            server_uri: Some(uri),
            path_prefix: "/check".into(),
            authorization_request: Some(request.clone()),
            ..Default::default()
        };
        ext_authz(&pb::ExtAuthz { services: Some(Services::HttpService(service)), ..Default::default() })
    };
    let AuthzService::Http(http) = service(uri.clone()).unwrap().service else { panic!("not HTTP") };
    assert!(http.allowed_headers[0].is_match("x-check"));
    assert_eq!((&*http.path_prefix, http.headers_to_add.len()), ("/check", 1));
    assert_eq!(
        service(HttpUri { timeout: None, ..uri }).unwrap_err().field,
        "http_service.server_uri.timeout"
    );
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let body = |max| pb::BufferSettings { max_request_bytes: max, ..Default::default() };
    for (field, message) in [
        ("services", pb::ExtAuthz::default()),
        ("shadow_mode", pb::ExtAuthz { shadow_mode: true, ..message() }),
        ("include_tls_session", pb::ExtAuthz { include_tls_session: true, ..message() }),
        (
            "with_request_body.max_request_bytes",
            pb::ExtAuthz { with_request_body: Some(body(0)), ..message() },
        ),
        (
            "with_request_body.max_request_bytes",
            pb::ExtAuthz { with_request_body: Some(body(1 << 30)), ..message() },
        ),
        ("grpc_service.envoy_grpc.cluster_name", pb::ExtAuthz { services: Some(grpc("")), ..message() }),
    ] {
        assert_eq!(ext_authz(&message).unwrap_err().field, field);
    }
    assert_eq!(per_route(&pb::ExtAuthzPerRoute::default()).unwrap_err().field, "override");
    let off = pb::ExtAuthzPerRoute { r#override: Some(Override::Disabled(true)) };
    assert_eq!(per_route(&off).unwrap(), None);
}
