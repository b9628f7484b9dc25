use super::*;
use crate::fixtures::{ads, flag, http_filter as filter, manager, millis, number, router, routes};
use crate::http_filter::NativeFilter;
use policies_xds::core::{self, SchemeHeaderTransformation};
use policies_xds::hcm::Rds;
use policies_xds::hcm::http_connection_manager::{SetCurrentClientCertDetails, UpgradeConfig};
use policies_xds::protobuf::Any;
use policies_xds::{any, cors, type_url};

fn path(message: &Message) -> String {
    http_connection_manager(message).unwrap_err().field
}

#[test]
fn envoys_defaults() {
    let converted = http_connection_manager(&manager()).unwrap();
    assert_eq!(converted.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(converted.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!((converted.request_timeout, converted.request_headers_timeout), (None, None));
    assert_eq!((converted.request_headers_bytes_max, converted.headers_count_max), (60 * 1024, 100));
    assert_eq!(&*converted.server_name, "envoy");
    assert!(converted.generate_request_id && !converted.use_remote_address && !converted.normalize_path);
    assert_eq!(converted.forward_client_cert, ForwardClientCert::Sanitize);
    assert_eq!(converted.tracing, None);
}

#[test]
fn what_istio_sends() {
    let native = |name: &str, url: &str| filter(name, Any { type_url: url.into(), value: vec![] });
    let message = Message {
        stream_idle_timeout: millis(0),
        normalize_path: flag(true),
        server_name: "istio-envoy".into(),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        forward_client_cert_details: ForwardClientCertDetails::AppendForward.into(),
        set_current_client_cert_details: Some(SetCurrentClientCertDetails {
            subject: flag(true),
            dns: true,
            uri: true,
            ..Default::default()
        }),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "WebSocket".into(), ..Default::default() }],
        http_filters: vec![
            native("istio.metadata_exchange", type_url::ISTIO_PEER_METADATA),
            native("istio.alpn", type_url::ISTIO_ALPN),
            filter("envoy.filters.http.cors", any(&cors::Cors {})),
            native("istio.stats", type_url::ISTIO_STATS),
            router(),
        ],
        tracing: Some(policies_xds::hcm::http_connection_manager::Tracing {
            random_sampling: Some(policies_xds::types::Percent { value: 1.0 }),
            ..Default::default()
        }),
        ..manager()
    };
    let converted = http_connection_manager(&message).unwrap();
    assert_eq!((converted.stream_idle_timeout, converted.normalize_path), (None, true));
    assert!(converted.allows_upgrade("websocket") && !converted.allows_upgrade("connect"));
    assert!(converted.client_cert_details.uri && !converted.client_cert_details.cert);
    assert_eq!(converted.tracing.unwrap().random_sampling.per_million, 10_000);
    let kinds: Vec<_> = converted.http_filters.iter().map(|filter| &filter.kind).collect();
    assert!(matches!(
        kinds[..],
        [
            HttpFilterKind::Native(NativeFilter::PeerMetadata),
            HttpFilterKind::Native(NativeFilter::Alpn),
            HttpFilterKind::Cors,
            HttpFilterKind::Native(NativeFilter::Stats),
            HttpFilterKind::Router(_)
        ]
    ));
}

#[test]
fn a_chain_ends_in_its_only_router() {
    let with = |http_filters| Message { http_filters, ..manager() };
    assert_eq!(path(&with(vec![])), "http_filters");
    assert_eq!(path(&with(vec![router(), filter("cors", any(&cors::Cors {}))])), "http_filters");
    assert_eq!(path(&with(vec![router(), router()])), "http_filters");
    let twice = filter("cors", any(&cors::Cors {}));
    assert_eq!(path(&with(vec![twice.clone(), twice, router()])), "http_filters");
}

#[test]
fn inline_routes_and_other_sources() {
    let inline = Message { route_specifier: Some(RouteSpecifier::RouteConfig(routes(vec![]))), ..manager() };
    assert!(matches!(http_connection_manager(&inline).unwrap().route, RouteSource::Inline(_)));
    let mut bad = routes(vec![]);
    bad.virtual_hosts[0].domains.clear();
    let bad = Message { route_specifier: Some(RouteSpecifier::RouteConfig(bad)), ..manager() };
    assert_eq!(path(&bad), "route_config.virtual_hosts[0].domains");
    let elsewhere = Rds { config_source: None, route_config_name: "a".into() };
    let elsewhere = Message { route_specifier: Some(RouteSpecifier::Rds(elsewhere)), ..manager() };
    assert_eq!(path(&elsewhere), "rds.config_source");
    let unnamed = Rds { config_source: ads(), route_config_name: String::new() };
    let unnamed = Message { route_specifier: Some(RouteSpecifier::Rds(unnamed)), ..manager() };
    assert_eq!(path(&unnamed), "rds.route_config_name");
}

#[test]
fn bounds() {
    let scheme = SchemeHeaderTransformation {
        transformation: Some(Transformation::SchemeToOverwrite("gopher".into())),
        ..Default::default()
    };
    let common = HttpProtocolOptions { max_headers_count: number(0), ..Default::default() };
    let http2 = core::Http2ProtocolOptions { initial_stream_window_size: number(1), ..Default::default() };
    let cases: [(&str, Message); 6] = [
        ("max_request_headers_kb", Message { max_request_headers_kb: number(8193), ..manager() }),
        (
            "common_http_protocol_options.max_headers_count",
            Message { common_http_protocol_options: Some(common), ..manager() },
        ),
        (
            "http2_protocol_options.initial_stream_window_size",
            Message { http2_protocol_options: Some(http2), ..manager() },
        ),
        ("scheme_header_transformation", Message { scheme_header_transformation: Some(scheme), ..manager() }),
        ("drain_timeout", Message { drain_timeout: millis(-1000), ..manager() }),
        ("server_name", Message { server_name: "a\r\nb".into(), ..manager() }),
    ];
    for (field, message) in cases {
        assert_eq!(path(&message), field);
    }
}
