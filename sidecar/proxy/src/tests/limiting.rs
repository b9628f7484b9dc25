//! Limits of request rates: by buckets here, and by a service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, StatusCode};
use policies_xds::core::HeaderValue;
use policies_xds::protobuf::Duration as ProtoDuration;
use policies_xds::ratelimit_service::rate_limit_response::{Code, DescriptorStatus, RateLimit as Limit};
use policies_xds::ratelimit_service::{RateLimitRequest, RateLimitResponse};
use sidecar_external::grpc;
use sidecar_model::http_filter::RouteLimits;
use sidecar_model::listener::Direction;
use sidecar_model::rate_limit::{
    DescriptorEntry, GlobalRateLimit, HostLimits, Level, LimitAction, LocalDescriptor, LocalRateLimit,
    RateLimit, RequestOrigin, TokenBucket,
};
use sidecar_model::{Fraction, HeaderAdd, HeaderAppend, HttpFilterKind, RouteFilter, RouteFilterConfig};

use super::app::App;
use super::build::{cluster, http_listener, manager, route, routes, snapshot};
use super::external::{Say, Service, grpc_service};
use super::rig::{Client, address, counted, get, plain, with};
use crate::Proxy;

const NEVER: Fraction = Fraction { per_million: 0 };

fn bucket(max_tokens: u32, interval: Duration) -> TokenBucket {
    TokenBucket { max_tokens, tokens_per_fill: max_tokens, fill_interval: interval, level: Level::default() }
}

fn header(name: &'static str, value: &str) -> HeaderAdd {
    HeaderAdd {
        name: HeaderName::from_static(name),
        value: value.into(),
        append: HeaderAppend::OverwriteOrAdd,
        keep_empty: false,
    }
}

fn local(max_tokens: u32) -> LocalRateLimit {
    LocalRateLimit {
        stat_prefix: "limit".into(),
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: Some(bucket(max_tokens, Duration::from_secs(3600))),
        enabled: Fraction::ALL,
        enforced: Fraction::ALL,
        request_headers_when_not_enforced: vec![header("x-over", "true")],
        response_headers: vec![header("x-local-rate-limit", "true")],
        descriptors: Vec::new(),
        stage: 0,
        quota_headers: true,
        host_limits: HostLimits::Override,
        always_default: true,
        resource_exhausted: true,
        limits: Vec::new(),
    }
}

fn of_user() -> RateLimit {
    let name = HeaderName::from_static("x-user");
    RateLimit {
        stage: 0,
        actions: vec![LimitAction::Header { name, key: "user".into(), skip_if_absent: false }],
    }
}

fn limited(app: &App, filter: HttpFilterKind, limits: Vec<RateLimit>, service: Option<&Service>) -> Proxy {
    let mut local = route("local");
    let config = Some(RouteFilterConfig::Limits(Arc::new(RouteLimits { limits, include_host: false })));
    local.filters.entries = vec![RouteFilter { name: "".into(), disabled: false, config }];
    let listener = http_listener("in", Direction::Inbound, manager(routes(vec![local]), vec![filter]), None);
    let mut clusters = vec![cluster("local", &[app.address])];
    clusters.extend(service.map(|service| cluster("limits", &[service.address])));
    plain(snapshot(vec![listener], clusters))
}

#[tokio::test]
async fn a_bucket_lets_so_many_through_and_says_how_many_are_left() {
    let app = App::start("a").await;
    let proxy = limited(&app, HttpFilterKind::LocalRateLimit(Arc::new(local(3))), vec![], None);
    let to = address(&proxy, "in").await;
    let mut client = Client::connect(to).await;
    for left in [2, 1, 0] {
        let (status, _, headers) = client.text(get("/x")).await;
        assert_eq!((status, &headers["x-ratelimit-remaining"]), (200, &http::HeaderValue::from(left)));
        assert_eq!(headers["x-ratelimit-limit"], "3");
    }
    let (status, text, headers) = Client::connect(to).await.text(get("/x")).await;
    assert_eq!((status, &*text), (429, "local_rate_limited"), "connections share the bucket");
    assert_eq!(
        (&headers["x-local-rate-limit"], &headers["x-envoy-ratelimited"]),
        (&"true".parse().unwrap(), &"true".parse().unwrap())
    );
    let reset: u64 = headers["x-ratelimit-reset"].to_str().unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&reset), "a third of an hour: {reset}");
    let grpc = with(get("/x"), "content-type", "application/grpc");
    let (status, _, headers) = client.text(grpc).await;
    assert_eq!((status, &headers["grpc-status"]), (200, &"8".parse().unwrap()));
    assert_eq!(app.requests().len(), 3);
    counted(&proxy, &["response_flags=\"RL\"", "response_code=\"429\""], 1).await;
    // A push that changes something else fills no bucket.
    let same = proxy.shared().config.load().snapshot.clone();
    proxy.apply(same);
    assert_eq!(client.text(get("/x")).await.0, 429);
}

#[tokio::test]
async fn descriptors_have_buckets_of_their_own() {
    let app = App::start("a").await;
    let entry = DescriptorEntry { key: "user".into(), value: "greedy".into() };
    let own = LocalDescriptor { entries: vec![entry], bucket: bucket(1, Duration::from_secs(3600)) };
    let limit = LocalRateLimit { descriptors: vec![own], always_default: false, ..local(2) };
    let proxy = limited(&app, HttpFilterKind::LocalRateLimit(Arc::new(limit)), vec![of_user()], None);
    let mut client = Client::connect(address(&proxy, "in").await).await;
    let mut ask = async |user: &str| client.text(with(get("/x"), "x-user", user)).await.0;
    assert_eq!((ask("greedy").await, ask("greedy").await), (200, 429));
    assert_eq!((ask("modest").await, ask("other").await, ask("third").await), (200, 200, 429));
}

#[tokio::test]
async fn what_is_not_enforced_is_only_marked() {
    let app = App::start("a").await;
    let limit = LocalRateLimit { enforced: NEVER, ..local(1) };
    let proxy = limited(&app, HttpFilterKind::LocalRateLimit(Arc::new(limit)), vec![], None);
    let mut client = Client::connect(address(&proxy, "in").await).await;
    assert_eq!((client.text(get("/x")).await.0, client.text(get("/x")).await.0), (200, 200));
    let marked: Vec<bool> =
        app.requests().iter().map(|(_, headers, _)| headers.contains_key("x-over")).collect();
    assert_eq!(marked, [false, true]);
}

fn global(failure_mode_deny: bool) -> HttpFilterKind {
    HttpFilterKind::RateLimit(Arc::new(GlobalRateLimit {
        domain: "shop".into(),
        stage: 0,
        requests: RequestOrigin::Both,
        service: grpc_service("limits", Duration::from_millis(200)),
        failure_mode_deny,
        status_on_error: StatusCode::INTERNAL_SERVER_ERROR,
        limited_status: StatusCode::TOO_MANY_REQUESTS,
        resource_exhausted: false,
        quota_headers: true,
        without_limited_header: false,
        response_headers: Vec::new(),
        enabled: Fraction::ALL,
        enforced: Fraction::ALL,
        limits: Vec::new(),
    }))
}

fn said(code: Code) -> Say {
    let status = DescriptorStatus {
        code: code.into(),
        current_limit: Some(Limit { requests_per_unit: 10, unit: 2, name: String::new() }),
        limit_remaining: 4,
        duration_until_reset: Some(ProtoDuration { seconds: 30, nanos: 0 }),
        ..Default::default()
    };
    let header = |key: &str| HeaderValue { key: key.into(), value: "1".into(), ..Default::default() };
    Say::Grpc(grpc::frame(&RateLimitResponse {
        overall_code: code.into(),
        statuses: vec![status],
        response_headers_to_add: vec![header("x-told")],
        request_headers_to_add: vec![header("x-counted")],
        raw_body: b"slow down".to_vec(),
        ..Default::default()
    }))
}

#[tokio::test]
async fn a_service_counts_by_descriptors_and_its_no_is_heeded() {
    let app = App::start("a").await;
    let service = Service::start(said(Code::Ok)).await;
    let fixed = DescriptorEntry { key: "generic_key".into(), value: "checkout".into() };
    let limits = vec![
        of_user(),
        RateLimit {
            stage: 0,
            actions: vec![
                LimitAction::Fixed(fixed),
                LimitAction::RemoteAddress,
                LimitAction::DestinationCluster,
                LimitAction::SourceCluster,
                LimitAction::Query { name: "page".into(), key: "page".into(), skip_if_absent: true },
                LimitAction::MaskedRemoteAddress { v4_bits: 16, v6_bits: 64 },
            ],
        },
        RateLimit { stage: 1, actions: vec![LimitAction::RemoteAddress] },
    ];
    let proxy = limited(&app, global(false), limits, Some(&service));
    let mut client = Client::connect(address(&proxy, "in").await).await;
    let (status, _, headers) = client.text(get("/x?page=7")).await;
    assert_eq!((status, &headers["x-told"]), (200, &"1".parse().unwrap()));
    assert_eq!(headers["x-ratelimit-limit"], "10, 10;w=60");
    assert_eq!(
        (&headers["x-ratelimit-remaining"], &headers["x-ratelimit-reset"]),
        (&"4".parse().unwrap(), &"30".parse().unwrap())
    );
    assert_eq!(app.requests()[0].1["x-counted"], "1");
    let (path, _, body) = service.asked().pop().unwrap();
    assert_eq!(path, "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
    let asked: RateLimitRequest = grpc::unframe(&body).unwrap();
    assert_eq!((&*asked.domain, asked.descriptors.len()), ("shop", 1), "no user, no descriptor of users");
    let entries: Vec<(&str, &str)> =
        asked.descriptors[0].entries.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
    assert_eq!(
        entries,
        [
            ("generic_key", "checkout"),
            ("remote_address", "127.0.0.1"),
            ("destination_cluster", "local"),
            ("source_cluster", "plain.default"),
            ("page", "7"),
            ("masked_remote_address", "127.0.0.0/16"),
        ]
    );
    client.text(with(get("/x"), "x-user", "jason")).await;
    let asked: RateLimitRequest = grpc::unframe(&service.asked().pop().unwrap().2).unwrap();
    assert_eq!(asked.descriptors.len(), 2);
    *service.say.lock() = said(Code::OverLimit);
    let (status, text, headers) = client.text(get("/x")).await;
    assert_eq!((status, &*text), (429, "slow down"));
    assert_eq!(
        (&headers["x-envoy-ratelimited"], &headers["x-told"]),
        (&"true".parse().unwrap(), &"1".parse().unwrap())
    );
    counted(&proxy, &["response_flags=\"RL\""], 1).await;
}

#[tokio::test]
async fn a_service_without_an_answer_stops_requests_only_if_told() {
    let app = App::start("a").await;
    let service = Service::start(Say::Hang).await;
    for deny in [false, true] {
        let proxy = limited(
            &app,
            global(deny),
            vec![RateLimit { stage: 0, actions: vec![LimitAction::RemoteAddress] }],
            Some(&service),
        );
        let mut client = Client::connect(address(&proxy, "in").await).await;
        for say in [
            Say::Hang,
            Say::Close,
            Say::GrpcStatus(14),
            Say::Http(500, HeaderMap::new(), ""),
            Say::Endless,
            said(Code::Unknown),
        ] {
            *service.say.lock() = say;
            let begun = Instant::now();
            assert_eq!(client.text(get("/x")).await.0, if deny { 500 } else { 200 });
            assert!(begun.elapsed() < Duration::from_millis(500));
        }
        if deny {
            counted(&proxy, &["response_flags=\"RLSE\""], 6).await;
        }
    }
}
