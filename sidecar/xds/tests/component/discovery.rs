//! Configuration: first, changed, refused, taken away, and through outages.

use crate::resources::{bad_cluster, cluster, endpoints, listener, resource, routes};
use crate::world::World;
use policies_xds::type_url::{CLUSTER, ENDPOINTS, LISTENER, ROUTE};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tests_support::control::{ControlPlane, Delta};

/// Answers a new client with one cluster, its endpoint, a listener and its routes.
async fn configure(stream: &mut Delta) {
    stream.ask(CLUSTER, vec![resource("a", "1", cluster("a"))], &[]).await;
    stream.ask(ENDPOINTS, vec![resource("a", "1", endpoints("a", "10.0.0.1"))], &[]).await;
    stream.ask(LISTENER, vec![resource("l", "1", listener("l", "9080"))], &[]).await;
    stream.ask(ROUTE, vec![resource("9080", "1", routes("9080", "a"))], &[]).await;
}

#[tokio::test]
async fn a_first_configuration_is_put_into_force_when_it_is_whole() {
    let world = World::new();
    let mut server = world.control_plane(0).await;
    let mut client = world.client(server.port);
    let mut stream = server.stream().await;
    assert_eq!(stream.authorization, "Bearer token-1");
    let first = stream.request().await;
    let node = first.node.expect("the first request says who asks");
    assert_eq!(node.cluster, "reviews.default");
    assert!(node.metadata.expect("metadata").fields.contains_key("NAMESPACE"));
    let second = stream.request().await;
    assert_eq!((first.type_url.as_str(), second.type_url.as_str()), (CLUSTER, LISTENER));
    assert_eq!(second.node, None);

    stream.send(CLUSTER, vec![resource("a", "1", cluster("a"))], &[]).await;
    let asked = stream.request_where(ENDPOINTS, |_| true).await;
    assert_eq!(asked.resource_names_subscribe, ["a"]);
    assert!(client.applied.lock().is_empty(), "a cluster without its endpoints is not put into force");
    stream.ask(ENDPOINTS, vec![resource("a", "1", endpoints("a", "10.0.0.1"))], &[]).await;
    // It was in force before it was acknowledged.
    assert_eq!(client.applied.lock().last().expect("a snapshot").endpoints.len(), 1);

    stream.send(LISTENER, vec![resource("l", "1", listener("l", "9080"))], &[]).await;
    let asked = stream.request_where(ROUTE, |_| true).await;
    assert_eq!(asked.resource_names_subscribe, ["9080"]);
    assert!(!client.handle.status.view().from_saved);
    stream.ask(ROUTE, vec![resource("9080", "1", routes("9080", "a"))], &[]).await;
    let snapshot = client.snapshot("routes", |snapshot| !snapshot.routes.is_empty()).await;
    assert!(snapshot.listeners.contains_key("l") && snapshot.missing().is_empty());

    let view = client.handle.status.view();
    assert!(view.connected && view.configured && client.handle.status.is_configured());
    assert_eq!((view.types["EDS"].count, view.types["RDS"].version.as_str()), (1, "4"));
    client.stop().await;
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_the_rest_takes_effect() {
    let world = World::new();
    let mut server = world.control_plane(0).await;
    let mut client = world.client(server.port);
    let mut stream = server.stream().await;
    configure(&mut stream).await;
    let both = vec![resource("a", "2", bad_cluster("a")), resource("b", "1", cluster("b"))];
    let answer = stream.ask(CLUSTER, both, &[]).await;
    let detail = answer.error_detail.expect("a refusal");
    assert!(detail.message.contains("`a`") && detail.message.contains("lb_policy"), "{}", detail.message);
    assert!(!detail.message.contains("`b`"));
    stream.ask(ENDPOINTS, vec![resource("b", "1", endpoints("b", "10.0.0.2"))], &[]).await;
    let snapshot = client.snapshot("`b`", |snapshot| snapshot.clusters.contains_key("b")).await;
    assert!(snapshot.clusters["a"].eds_name().is_some(), "the last good version stays");
    let rejected = &client.handle.status.view().types["CDS"].rejected["a"];
    assert_eq!(rejected.version, "2");
    assert!(rejected.reason.contains("lb_policy"));

    let answer = stream.ask(CLUSTER, vec![resource("a", "3", cluster("a"))], &[]).await;
    assert_eq!(answer.error_detail, None);
    client.until("forgiven", |handle| handle.status.view().types["CDS"].rejected.is_empty()).await;
    client.stop().await;
}

#[tokio::test]
async fn removed_resources_go_and_nothing_is_asked_for_them() {
    let world = World::new();
    let mut server = world.control_plane(0).await;
    let mut client = world.client(server.port);
    let mut stream = server.stream().await;
    configure(&mut stream).await;
    client.snapshot("routes", |snapshot| !snapshot.routes.is_empty()).await;
    stream.send(LISTENER, vec![], &["l"]).await;
    let request = stream.request_where(ROUTE, |request| request.response_nonce.is_empty()).await;
    assert_eq!(request.resource_names_unsubscribe, ["9080"]);
    stream.send(CLUSTER, vec![], &["a"]).await;
    let request = stream.request_where(ENDPOINTS, |request| request.response_nonce.is_empty()).await;
    assert_eq!(request.resource_names_unsubscribe, ["a"]);
    let snapshot = client.snapshot("nothing", |snapshot| snapshot.clusters.is_empty()).await;
    assert!(snapshot.endpoints.is_empty() && snapshot.routes.is_empty() && snapshot.listeners.is_empty());
    client.stop().await;
}

#[tokio::test]
async fn a_new_stream_begins_with_the_versions_of_the_last_one() {
    let world = World::new();
    let mut server = world.control_plane(0).await;
    let mut client = world.client(server.port);
    let mut stream = server.stream().await;
    configure(&mut stream).await;
    let before = client.snapshot("routes", |snapshot| !snapshot.routes.is_empty()).await;
    std::fs::write(world.path("token"), "token-2").unwrap();
    drop(stream);

    let mut stream = server.stream().await;
    assert_eq!(stream.authorization, "Bearer token-2", "the token is read at every connection");
    let mut versions = HashMap::new();
    for _ in 0..4 {
        let request = stream.request().await;
        versions
            .insert(request.type_url, (request.resource_names_subscribe, request.initial_resource_versions));
    }
    let held = |name: &str| HashMap::from([(name.to_owned(), "1".to_owned())]);
    assert_eq!(versions[CLUSTER], (vec![], held("a")));
    assert_eq!(versions[ENDPOINTS], (vec!["a".to_owned()], held("a")));
    assert_eq!(versions[LISTENER], (vec![], held("l")));
    assert_eq!(versions[ROUTE], (vec!["9080".to_owned()], held("9080")));
    stream.ask(ENDPOINTS, vec![resource("a", "2", endpoints("a", "10.0.0.9"))], &[]).await;
    let after = client.snapshot("new endpoints", |snapshot| snapshot.endpoints != before.endpoints).await;
    assert_eq!(after.routes, before.routes);
    assert!(after.version > before.version);
    assert!(
        client.applied.lock().iter().skip_while(|one| one.routes.is_empty()).all(|one| one.routes.len() == 1)
    );
    client.stop().await;
}

#[tokio::test]
async fn a_saved_configuration_serves_until_the_control_plane_is_there() {
    let world = World::new();
    let mut server = world.control_plane(0).await;
    let port = server.port;
    let client = world.client(port);
    let mut stream = server.stream().await;
    configure(&mut stream).await;
    drop((stream, server));
    client.until("disconnected", |handle| !handle.status.view().connected).await;
    client.stop().await;

    let started = Instant::now();
    let mut client = world.client(port);
    let saved = client.snapshot("routes", |snapshot| !snapshot.routes.is_empty()).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(saved.missing().is_empty() && saved.clusters.contains_key("a"));
    let view = client.handle.status.view();
    assert!(view.configured && view.from_saved && !view.connected);
    client.until("refused", |handle| handle.status.view().connect_error.is_some()).await;

    let mut server = world.control_plane(port).await;
    let mut stream = server.stream().await;
    let first = stream.request().await;
    assert_eq!(first.initial_resource_versions, HashMap::from([("a".to_owned(), "1".to_owned())]));
    stream.ask(CLUSTER, vec![], &[]).await;
    stream.ask(LISTENER, vec![], &[]).await;
    client.until("up to date", |handle| !handle.status.view().from_saved).await;
    assert!(client.handle.snapshots.borrow().routes.contains_key("9080"), "nothing was lost on the way");
    client.stop().await;
}

#[tokio::test]
async fn a_name_that_nobody_answers_holds_nothing_back_for_long() {
    let world = World::new();
    let mut server = world.control_plane(0).await;
    let mut client = world.client(server.port);
    let mut stream = server.stream().await;
    let started = Instant::now();
    stream.ask(CLUSTER, vec![resource("a", "1", cluster("a"))], &[]).await;
    client.snapshot("`a`", |snapshot| snapshot.clusters.contains_key("a")).await;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(10), "{waited:?}");
    client.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_the_control_plane_is_not_believed() {
    let world = World::new();
    let mut other = ControlPlane::start(&world.ca, 0, "elsewhere.test").await;
    let client = world.client(other.port);
    client.until("refused", |handle| handle.status.view().connect_error.is_some()).await;
    let error = client.handle.status.view().connect_error.unwrap();
    assert!(error.contains("TLS"), "{error}");
    client.until("refused", |handle| handle.status.view().certificate_error.is_some()).await;
    assert!(client.handle.identity.current().is_none() && !client.handle.status.has_certificate());
    assert!(other.authority.lock().tokens.is_empty(), "no token was shown");
    let none = tokio::time::timeout(Duration::from_millis(50), other.stream()).await;
    assert!(none.is_err());
    client.stop().await;
}
