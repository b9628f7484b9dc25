//! What retries heed: what the upstream asks for, stillness, priorities.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sidecar_model::retry::{RateLimitedBackOff, ResetFormat, ResetHeader};
use sidecar_model::{Endpoints, LocalityEndpoints, RetryPolicy};

use super::app::App;
use super::build::{cluster, route_with};
use super::forwarding::{proxy, retry_policy};
use super::rig::{counted, get, with};

fn route(policy: RetryPolicy) -> sidecar_model::Route {
    route_with("c", |action| action.retry = Some(Arc::new(policy)))
}

#[tokio::test]
async fn the_pause_that_the_upstream_asks_for_is_kept() {
    let app = App::start("a").await;
    let mut policy = retry_policy("5xx", 1);
    policy.rate_limited = Some(RateLimitedBackOff {
        headers: vec![ResetHeader { name: http::header::RETRY_AFTER, format: ResetFormat::Seconds }],
        max: Duration::from_secs(5),
    });
    let (_proxy, mut client) = proxy(vec![route(policy)], vec![cluster("c", &[app.address])]).await;
    let began = Instant::now();
    let request = with(with(get("/x"), "test-fail-first", "1"), "test-retry-after", "1");
    assert_eq!(client.text(request).await.0, 200);
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    let began = Instant::now();
    let request = with(with(get("/x"), "test-status", "503"), "test-retry-after", "6");
    assert_eq!(client.text(request).await.0, 503);
    assert!(began.elapsed() < Duration::from_secs(4), "more than the bound is not heeded");
    assert_eq!(app.requests().len(), 4);
}

#[tokio::test]
async fn a_rate_limit_of_another_proxy_is_retried_only_when_asked() {
    let app = App::start("a").await;
    for (on, attempts) in [("5xx", 1), ("5xx,envoy-ratelimited", 2)] {
        let before = app.requests().len();
        let (_proxy, mut client) =
            proxy(vec![route(retry_policy(on, 1))], vec![cluster("c", &[app.address])]).await;
        let request =
            with(with(get("/x"), "test-status", "503"), "test-answer-header", "x-envoy-ratelimited");
        assert_eq!(client.text(request).await.0, 503);
        assert_eq!(app.requests().len() - before, attempts, "{on}");
    }
}

#[tokio::test]
async fn an_attempt_that_is_still_is_given_up() {
    let app = App::start("a").await;
    let mut policy = retry_policy("reset", 1);
    policy.per_try_idle_timeout = Some(Duration::from_millis(100));
    let (proxy, mut client) = proxy(vec![route(policy)], vec![cluster("c", &[app.address])]).await;
    let (status, body, _) = client.text(with(get("/x"), "test-delay-ms", "20000")).await;
    assert_eq!((status, &*body), (504, "upstream request timeout"));
    counted(&proxy, &["response_code=\"504\"", "response_flags=\"UT,URX\""], 1).await;
    let response = client.send(with(get("/x"), "test-stall", "1")).await;
    assert_eq!(response.status(), 200);
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert!(body.is_err(), "a response that stalls is cut off");
}

#[tokio::test]
async fn a_priority_that_failed_is_left() {
    let (near, far) = (App::start("near").await, App::start("far").await);
    let (mut both, of_far) = (cluster("c", &[near.address]), cluster("c", &[far.address]));
    let locality = |cluster: &sidecar_model::Cluster, priority| {
        let endpoints = cluster.load_assignment.as_ref().unwrap();
        LocalityEndpoints { priority, ..endpoints.localities[0].clone() }
    };
    let localities = vec![locality(&both, 0), locality(&of_far, 1)];
    let endpoints = both.load_assignment.as_deref().unwrap().clone();
    both.load_assignment = Some(Arc::new(Endpoints { localities, ..endpoints }));
    for (frequency, served) in [(None, "near"), (Some(1), "far")] {
        let mut policy = retry_policy("reset", 1);
        policy.avoid_previous_hosts = false;
        policy.avoid_previous_priorities = frequency;
        let (_proxy, mut client) = proxy(vec![route(policy)], vec![both.clone()]).await;
        let (status, _, headers) = client.text(with(get("/x"), "test-reset-app", "near")).await;
        let app = headers.get("test-app").map(|name| name.to_str().unwrap().to_owned());
        let want = if served == "far" { (200, Some("far".to_owned())) } else { (503, None) };
        assert_eq!((status, app), want, "{frequency:?}");
    }
}
