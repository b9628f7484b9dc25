//! Requests as watchers see them, and failures as they are remembered.

use sidecar_model::listener::Direction;
use sidecar_telemetry::tap::Wanted;

use super::app::App;
use super::build::{cluster, http_listener, manager, route, routes, snapshot};
use super::rig::{Client, address, get, plain, until, with};

#[tokio::test]
async fn a_watcher_sees_requests_without_their_secrets() {
    let app = App::start("a").await;
    let listener = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    let tap = &proxy.shared().tap;
    client.text(get("/before")).await;
    let wanted = Wanted { path: "/seen".into(), ..Wanted::default() };
    tap.take("me", wanted.clone(), 10).unwrap();
    client.text(get("/other")).await;
    client
        .text(with(with(get("/seen?a=b"), "authorization", "Bearer s3cret"), "x-request-id", "my-id"))
        .await;
    let event = until("event", || tap.take("me", wanted.clone(), 10).unwrap().0.pop()).await;
    assert_eq!(
        (&event["path"], &event["status"], &event["requestId"]),
        (&"/seen?a=b".into(), &200.into(), &"my-id".into())
    );
    assert_eq!(event["requestHeaders"]["authorization"], "[redacted]");
    assert_eq!(event["responseHeaders"]["test-app"], "a");
    assert!(!event.to_string().contains("s3cret"), "{event}");
    assert_eq!(event["endpoint"], app.address.to_string());
    assert!(tap.failures(None).is_empty(), "nothing failed");
}

#[tokio::test]
async fn a_failure_is_remembered_with_its_cause_though_nobody_watches() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[gone])]));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    let (status, _, _) = client.text(with(get("/path"), "x-request-id", "failing")).await;
    assert_eq!(status, 503);
    let failure = until("failure", || proxy.shared().tap.failures(Some("failing")).pop()).await;
    assert_eq!((&failure["failure"]["flag"], &failure["path"]), (&"UF".into(), &"/path".into()));
    assert!(failure["failure"]["hint"].as_str().unwrap().contains("targetPort"), "{failure}");
    assert_eq!(failure["failure"]["hop"], format!("host -> c ({gone})"));
    assert!(failure["transportFailure"].as_str().unwrap().contains("refused"), "{failure}");
}
