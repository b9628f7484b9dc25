//! Circuit breakers and outlier detection.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sidecar_model::cluster::{OutlierDetection, Thresholds};
use sidecar_model::listener::Direction;

use super::app::App;
use super::build::{UNLIMITED, cluster, http_listener, manager, route, routes, snapshot};
use super::rig::{Client, address, counted, get, plain, until, with};
use crate::Proxy;

fn sidecar(cluster: sidecar_model::Cluster) -> Proxy {
    let listener = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    plain(snapshot(vec![listener], vec![cluster]))
}

fn breakers(thresholds: Thresholds, app: &App) -> sidecar_model::Cluster {
    let mut cluster = cluster("c", &[app.address]);
    cluster.circuit_breakers.default = thresholds;
    cluster
}

#[tokio::test]
async fn too_many_requests_overflow() {
    let app = App::start("a").await;
    let proxy = sidecar(breakers(Thresholds { max_requests: 1, ..UNLIMITED }, &app));
    let out = address(&proxy, "out").await;
    let (mut first, mut second) = (Client::connect(out).await, Client::connect(out).await);
    let busy = tokio::spawn(async move { first.text(with(get("/"), "test-delay-ms", "300")).await.0 });
    let usage = proxy.shared().config.load().clusters["c"].usage.clone();
    until("a request under way", || (usage.now()[2] == 1).then_some(())).await;
    let (status, body, headers) = second.text(get("/")).await;
    assert_eq!(status, 503);
    assert_eq!(headers["x-envoy-overloaded"], "true");
    assert!(body.ends_with("reset reason: overflow"), "{body}");
    assert_eq!(busy.await.unwrap(), 200);
    assert_eq!(second.text(get("/")).await.0, 200, "room again");
    counted(&proxy, &["response_flags=\"UO\""], 1).await;
    assert_eq!(usage.totals.upstream_rq_pending_overflow.load(Relaxed), 1);
}

#[tokio::test]
async fn one_connection_is_shared_and_waiting_is_bounded() {
    let app = App::start("a").await;
    let thresholds = Thresholds { max_connections: 1, max_pending_requests: 1, ..UNLIMITED };
    let proxy = sidecar(breakers(thresholds, &app));
    let out = address(&proxy, "out").await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(out).await;
        tasks.push(tokio::spawn(async move { client.text(with(get("/"), "test-delay-ms", "200")).await.0 }));
    }
    let mut statuses = Vec::new();
    for task in tasks {
        statuses.push(task.await.unwrap());
    }
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!((2..=3).contains(&served), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    let usage = &proxy.shared().config.load().clusters["c"].usage;
    assert_eq!(usage.totals.upstream_cx_total.load(Relaxed), 1);
    until("all given back", || (usage.now() == [1, 0, 0, 0]).then_some(())).await;
}

/// Three failures in a row eject for 0.8 s.
pub(super) fn outlier_rules() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 0,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local_origin_errors: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        interval: Duration::from_millis(100),
        base_ejection_time: Duration::from_millis(800),
        max_ejection_time: Duration::from_secs(1),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 50,
        always_eject_one: true,
        enforcing_success_rate: 0,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_failure_percentage: 0,
        failure_percentage_threshold: 85,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        enforcing_local_origin_success_rate: 0,
        enforcing_failure_percentage_local_origin: 0,
        successful_check_unejects: true,
    }
}

#[tokio::test]
async fn a_failing_endpoint_is_put_aside_and_comes_back() {
    let (bad, good) = (App::start("bad").await, App::start("good").await);
    let mut both = cluster("c", &[bad.address, good.address]);
    both.outlier = Some(outlier_rules());
    both.locality_lb.healthy_panic_percent = 0;
    let proxy = sidecar(both);
    let mut client = Client::connect(address(&proxy, "out").await).await;
    while bad.requests().len() < 3 {
        client.text(with(get("/"), "test-status", "503")).await;
    }
    let counted = bad.requests().len();
    let ejections =
        || proxy.shared().config.load().clusters["c"].usage.totals.outlier_ejections.load(Relaxed);
    // Both fail, but the last endpoint in service is never put aside.
    assert_eq!(ejections(), 1);
    let began = std::time::Instant::now();
    let (mut to_bad, mut to_good) = (0, 0);
    for _ in 0..20 {
        if client.text(get("/")).await.1.starts_with("bad") { to_bad += 1 } else { to_good += 1 }
    }
    if began.elapsed() < Duration::from_millis(500) {
        assert!(to_bad == 0 || to_good == 0, "one of them is out: {to_bad} {to_good}");
    }
    let total = || bad.requests().len() + good.requests().len();
    let before = total();
    until("both serve again", || (began.elapsed() > Duration::from_millis(900)).then_some(())).await;
    for _ in 0..20 {
        assert_eq!(client.text(get("/")).await.0, 200);
    }
    assert_eq!(total(), before + 20);
    assert!(bad.requests().len() > counted && good.requests().len() > 3);
}
