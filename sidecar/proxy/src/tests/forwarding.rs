//! Retries, timeouts, mirrors, weights, changes of headers: what routes ask for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use sidecar_model::listener::Direction;
use sidecar_model::route::{DirectResponse, Redirect, RedirectPath};
use sidecar_model::route_action::{Mirror, PathRewrite};
use sidecar_model::{
    Action, ClusterChoice, Fraction, HeaderAdd, HeaderAppend, HeaderOps, PathMatch, RetryOn, RetryPolicy,
    Route, WeightedCluster, WeightedClusters,
};

use super::app::App;
use super::build::{action, cluster, http_listener, log, manager, route, route_with, routes, snapshot};
use super::rig::{Client, address, counted, get, plain, post, until, with};
use crate::Proxy;

pub(super) async fn proxy(routes_: Vec<Route>, clusters: Vec<sidecar_model::Cluster>) -> (Proxy, Client) {
    let listener = http_listener("out", Direction::Outbound, manager(routes(routes_), vec![]), None);
    let proxy = plain(snapshot(vec![listener], clusters));
    let client = Client::connect(address(&proxy, "out").await).await;
    (proxy, client)
}

fn policy(on: &str, retries: u32) -> Option<Arc<RetryPolicy>> {
    Some(Arc::new(retry_policy(on, retries)))
}

pub(super) fn retry_policy(on: &str, retries: u32) -> RetryPolicy {
    RetryPolicy {
        on: RetryOn::parse(on),
        num_retries: retries,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        back_off_base: Duration::from_millis(1),
        back_off_max: Duration::from_millis(10),
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        avoid_previous_hosts: true,
        avoid_previous_priorities: None,
        host_selection_attempts_max: 5,
        rate_limited: None,
    }
}

#[tokio::test]
async fn failed_answers_are_retried_with_the_body() {
    let app = App::start("a").await;
    let (proxy, mut client) = proxy(
        vec![route_with("c", |action| action.retry = policy("5xx", 3))],
        vec![cluster("c", &[app.address])],
    )
    .await;
    let (status, body, headers) = client.text(with(post("/x", "hello"), "test-fail-first", "2")).await;
    assert_eq!((status, &*body), (200, "a /x hello"));
    assert!(!headers.contains_key("x-envoy-attempt-count"));
    let requests = app.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|(_, _, body)| body == "hello"));
    assert_eq!(requests[2].1["x-envoy-attempt-count"], "3");
    let (status, _, _) = client.text(with(get("/y"), "test-status", "503")).await;
    assert_eq!(status, 503);
    assert_eq!(app.requests().len(), 3 + 4, "one attempt and three retries");
    counted(&proxy, &["response_code=\"503\"", "response_flags=\"URX\""], 1).await;
    counted(&proxy, &["response_code=\"200\"", "response_flags=\"-\""], 1).await;
}

#[tokio::test]
async fn a_reset_is_retried_on_another_endpoint() {
    let (bad, good) = (App::start("bad").await, App::start("good").await);
    let both = cluster("c", &[bad.address, good.address]);
    let (_proxy, mut client) =
        proxy(vec![route_with("c", |action| action.retry = policy("reset", 1))], vec![both]).await;
    for _ in 0..4 {
        assert_eq!(client.text(with(get("/x"), "test-reset-app", "bad")).await.0, 200);
    }
    assert!(bad.requests().len() >= 2);
    assert_eq!(good.requests().len(), 4);
}

#[tokio::test]
async fn connection_failures_say_why_and_are_retried_when_asked() {
    let app = App::start("a").await;
    let closed = "127.0.0.1:1".parse().unwrap();
    let (proxy, mut client) = proxy(vec![route("dead")], vec![cluster("dead", &[closed])]).await;
    let (status, body, headers) = client.text(get("/x")).await;
    assert_eq!(
        (status, &*body),
        (
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        )
    );
    assert_eq!(headers["content-type"], "text/plain");
    counted(&proxy, &["response_flags=\"UF\""], 1).await;
    let both = cluster("c", &[closed, app.address]);
    let retry = route_with("c", |action| action.retry = policy("connect-failure,refused-stream", 2));
    let (_proxy, mut client) = self::proxy(vec![retry], vec![both]).await;
    for _ in 0..4 {
        assert_eq!(client.text(get("/x")).await.0, 200);
    }
}

#[tokio::test]
async fn timeouts_end_the_request() {
    let app = App::start("a").await;
    let slow = route_with("c", |action| action.timeout = Some(Duration::from_millis(100)));
    let (proxy, mut client) = proxy(vec![slow], vec![cluster("c", &[app.address])]).await;
    let began = Instant::now();
    let (status, body, _) = client.text(with(get("/x"), "test-delay-ms", "20000")).await;
    assert_eq!((status, &*body), (504, "upstream request timeout"));
    assert!(began.elapsed() >= Duration::from_millis(95) && began.elapsed() < Duration::from_secs(5));
    counted(&proxy, &["response_code=\"504\"", "response_flags=\"UT\""], 1).await;
    assert_eq!(client.text(get("/x")).await.0, 200, "the client's connection lives");
    let response = client.send(with(get("/x"), "test-stall", "1")).await;
    assert_eq!(response.status(), 200);
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert!(body.is_err(), "a body that stalls is cut off");
}

#[tokio::test]
async fn each_try_has_its_own_timeout() {
    let app = App::start("a").await;
    let retry = route_with("c", |action| {
        let policy = policy("5xx,gateway-error", 2).unwrap();
        action.retry = Some(Arc::new(RetryPolicy {
            per_try_timeout: Some(Duration::from_millis(50)),
            ..(*policy).clone()
        }));
    });
    let (proxy, mut client) = proxy(vec![retry], vec![cluster("c", &[app.address])]).await;
    let (status, _, _) = client.text(with(get("/x"), "test-delay-ms", "20000")).await;
    assert_eq!(status, 504);
    let totals = &proxy.shared().config.load().clusters["c"].usage.totals;
    assert_eq!(totals.upstream_rq_per_try_timeout.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn mirrors_get_a_copy_and_nobody_waits_for_them() {
    let (app, mirror) = (App::start("a").await, App::start("mirror").await);
    let dead = cluster("dead", &["127.0.0.1:1".parse().unwrap()]);
    let to = |name: &str| Mirror { cluster: name.into(), fraction: Fraction::ALL, keep_host: true };
    let mirrored = route_with("c", |action| action.mirrors = vec![to("m"), to("dead")]);
    let clusters = vec![cluster("c", &[app.address]), cluster("m", &[mirror.address]), dead];
    let (_proxy, mut client) = proxy(vec![mirrored], clusters).await;
    for _ in 0..5 {
        assert_eq!(client.text(post("/x", "hello")).await.1, "a /x hello");
    }
    until("mirrored requests", || (mirror.requests().len() == 5).then_some(())).await;
    assert!(
        mirror.requests().iter().all(|(path, headers, body)| path == "/x"
            && headers["host"] == "reviews:9080"
            && body == "hello")
    );
    let never = route_with("c", |action| {
        action.mirrors = vec![Mirror { cluster: "m".into(), fraction: Fraction::ZERO, keep_host: true }];
    });
    let (_proxy, mut client) = proxy_of(vec![never], &app, &mirror).await;
    assert_eq!(client.text(get("/y")).await.0, 200);
    assert_eq!(mirror.requests().len(), 5);
}

async fn proxy_of(routes: Vec<Route>, app: &App, mirror: &App) -> (Proxy, Client) {
    proxy(routes, vec![cluster("c", &[app.address]), cluster("m", &[mirror.address])]).await
}

fn weighted(shares: &[(&str, u32)]) -> ClusterChoice {
    let one = |(name, weight): &(&str, u32)| WeightedCluster {
        name: (*name).into(),
        weight: *weight,
        request_headers: HeaderOps::default(),
        response_headers: set("x-share", name),
        host_rewrite: None,
        metadata_match: sidecar_model::Metadata::default(),
        filters: sidecar_model::RouteFilters::default(),
    };
    let total = shares.iter().map(|(_, weight)| u64::from(*weight)).sum();
    ClusterChoice::Weighted(WeightedClusters {
        clusters: shares.iter().map(one).collect(),
        total,
        random_header: None,
        by_hash: false,
    })
}

fn set(name: &'static str, value: &str) -> HeaderOps {
    let add = HeaderAdd {
        name: HeaderName::from_static(name),
        value: value.into(),
        append: HeaderAppend::OverwriteOrAdd,
        keep_empty: false,
    };
    HeaderOps { add: vec![add], remove: Vec::new() }
}

#[tokio::test]
async fn weights_share_requests_and_change_without_closing_a_connection() {
    let (one, two) = (App::start("one").await, App::start("two").await);
    let clusters = || vec![cluster("one", &[one.address]), cluster("two", &[two.address])];
    let with_weights = |shares: &[(&str, u32)]| {
        let split = Route { action: Action::Forward(Box::new(action(weighted(shares)))), ..route("") };
        let mut listener =
            http_listener("out", Direction::Outbound, manager(routes(vec![split]), vec![]), None);
        listener.name = "out".into();
        snapshot(vec![listener], clusters())
    };
    let proxy = plain(with_weights(&[("one", 90), ("two", 10)]));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    for _ in 0..1000 {
        let (status, body, headers) = client.text(get("/")).await;
        assert_eq!(status, 200);
        assert!(body.starts_with(headers["x-share"].to_str().unwrap()));
    }
    let share = two.requests().len();
    // 1,000 draws at 10 %: the standard deviation is 9.5.
    assert!((60..=140).contains(&share), "{share}");
    proxy.apply(Arc::new(with_weights(&[("one", 0), ("two", 100)])));
    let before = one.requests().len();
    for _ in 0..50 {
        assert!(client.text(get("/")).await.1.starts_with("two"), "the same connection follows at once");
    }
    assert_eq!(one.requests().len(), before);
}

#[tokio::test]
async fn headers_paths_and_answers_follow_the_route() {
    let app = App::start("a").await;
    let mut rewritten =
        route_with("c", |action| action.path_rewrite = Some(PathRewrite::Prefix("/new".into())));
    rewritten.matches.path = PathMatch::Prefix("/old".into());
    rewritten.request_headers = set("x-from", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%-%REQ(user-agent)%");
    rewritten.response_headers =
        HeaderOps { remove: vec![HeaderName::from_static("test-app")], ..set("x-set", "yes") };
    let mut away = route("c");
    away.matches.path = PathMatch::Exact("/away".into());
    away.action = Action::Redirect(Box::new(Redirect {
        status: http::StatusCode::FOUND,
        scheme: None,
        host: Some("other".into()),
        port: None,
        path: Some(RedirectPath::Path("/there".into())),
        strip_query: false,
    }));
    let mut direct = route("c");
    direct.matches.path = PathMatch::Exact("/direct".into());
    direct.action = Action::DirectResponse(DirectResponse {
        status: http::StatusCode::IM_A_TEAPOT,
        body: (*b"short").into(),
    });
    let mut nowhere = route("missing");
    nowhere.matches.path = PathMatch::Exact("/missing".into());
    let (proxy, mut client) =
        proxy(vec![rewritten, away, direct, nowhere], vec![cluster("c", &[app.address])]).await;
    let (status, body, headers) = client.text(with(get("/old/x?q=1"), "user-agent", "test")).await;
    assert_eq!((status, &*body), (200, "a /new/x?q=1 "));
    assert_eq!(headers["x-set"], "yes");
    assert!(!headers.contains_key("test-app"));
    let (_, sent, _) = &app.requests()[0];
    assert_eq!(sent["x-envoy-original-path"], "/old/x?q=1");
    assert_eq!(sent["x-from"], "127.0.0.1-test");
    let (status, _, headers) = client.text(get("/away")).await;
    assert_eq!((status, headers["location"].to_str().unwrap()), (302, "http://other/there"));
    assert_eq!(client.text(get("/direct")).await.1, "short");
    assert_eq!(client.text(get("/none")).await.0, 404);
    assert_eq!(client.text(get("/missing")).await.0, 503);
    counted(&proxy, &["response_code=\"404\"", "response_flags=\"NR\""], 1).await;
    counted(&proxy, &["response_code=\"503\"", "response_flags=\"NC\""], 1).await;
}

#[tokio::test]
async fn the_log_says_what_happened() {
    let logs = tempfile::tempdir().unwrap();
    let path = logs.path().join("log");
    let app = App::start("a").await;
    let mut manager = manager(
        routes(vec![route_with("c", |a| a.path_rewrite = Some(PathRewrite::Full("/b".into())))]),
        vec![],
    );
    manager.access_log = vec![log(
        &path,
        "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% \
         %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %REQ(:AUTHORITY)% %UPSTREAM_HOST% %UPSTREAM_CLUSTER_RAW% %ROUTE_NAME%",
    )];
    let listener = http_listener("out", Direction::Outbound, manager, None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    assert_eq!(client.text(post("/a", "hello")).await.0, 200);
    let want =
        format!("POST /a /b HTTP/1.1 200 - via_upstream 5 10 reviews:9080 {} c default\n", app.address);
    until("log", || (std::fs::read_to_string(&path).unwrap_or_default() == want).then_some(())).await;
}

#[tokio::test]
async fn endpoints_that_are_named_are_resolved() {
    let app = App::start("a").await;
    let mut named = cluster("c", &[app.address]);
    let mut endpoints = (**named.load_assignment.as_ref().unwrap()).clone();
    let one = &mut endpoints.localities[0].endpoints[0];
    *one = Arc::new(sidecar_model::Endpoint {
        address: sidecar_model::Address::Name("localhost".into(), app.address.port()),
        ..(**one).clone()
    });
    named.load_assignment = Some(Arc::new(endpoints));
    let options = sidecar_model::cluster::DnsOptions {
        refresh: Duration::from_secs(60),
        respect_ttl: false,
        family: sidecar_model::cluster::DnsFamily::V4Only,
    };
    named.kind = sidecar_model::cluster::ClusterKind::StrictDns(options);
    let (proxy, mut client) = proxy(vec![route("c")], vec![named]).await;
    until("the name", || {
        (!proxy.shared().config.load().clusters["c"].balancer.hosts().is_empty()).then_some(())
    })
    .await;
    assert_eq!(client.text(get("/x")).await.1, "a /x ");
}

#[tokio::test]
async fn connections_to_endpoints_that_are_gone_do_not_linger() {
    let (old, new) = (App::start("old").await, App::start("new").await);
    let at = |app: &App| {
        let listener =
            http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
        snapshot(vec![listener], vec![cluster("c", &[app.address])])
    };
    let proxy = plain(at(&old));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    assert!(client.text(get("/")).await.1.starts_with("old"));
    proxy.apply(Arc::new(at(&new)));
    assert!(client.text(get("/")).await.1.starts_with("new"));
    // The sweep comes every five seconds.
    let usage = proxy.shared().config.load().clusters["c"].usage.clone();
    until("the old connection closed", || (usage.now()[0] == 1).then_some(())).await;
    assert!(client.text(get("/")).await.1.starts_with("new"));
    assert_eq!(usage.totals.upstream_cx_total.load(std::sync::atomic::Ordering::Relaxed), 2);
}
