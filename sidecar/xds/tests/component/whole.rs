//! The same client told whole states: by a control plane that a test plays, and by one that answers by itself.

use crate::resources::{bad_cluster, cluster, endpoints, listener, routes};
use crate::world::World;
use policies_xds::type_url::{CLUSTER, ENDPOINTS, LISTENER, ROUTE};
use sidecar_xds::Protocol;
use tests_support::world::World as ControlPlane;

#[tokio::test]
async fn versions_nonces_refusals_and_what_is_left_out() {
    let world = World::new();
    let mut server = world.control_plane(0).await;
    let mut client = world.client_of(server.port, Protocol::Whole);
    let mut stream = server.whole_stream().await;
    assert_eq!(stream.authorization, "Bearer token-1");
    let first = stream.request().await;
    assert_eq!((first.type_url.as_str(), first.version_info.as_str()), (CLUSTER, ""));
    assert_eq!(first.node.expect("the first request says who asks").cluster, "reviews.default");

    let nonce = stream.send(CLUSTER, "1", vec![cluster("a"), cluster("b")]).await;
    let asked = stream.request_where(ENDPOINTS, |_| true).await;
    assert_eq!(asked.resource_names, ["a", "b"]);
    let said = stream.request_where(CLUSTER, |request| request.response_nonce == nonce).await;
    assert_eq!((said.version_info.as_str(), said.error_detail), ("1", None));
    stream.ask(ENDPOINTS, "1", vec![endpoints("a", "10.0.0.1"), endpoints("b", "10.0.0.2")]).await;
    stream.ask(LISTENER, "1", vec![listener("l", "9080")]).await;
    stream.ask(ROUTE, "1", vec![routes("9080", "a")]).await;
    let all = client.snapshot("routes", |snapshot| !snapshot.routes.is_empty()).await;
    assert_eq!((all.clusters.len(), all.endpoints.len(), all.listeners.len()), (2, 2, 1));

    let said = stream.ask(CLUSTER, "2", vec![bad_cluster("a"), cluster("b")]).await;
    assert_eq!(said.version_info, "1", "what was refused is not in force");
    let detail = said.error_detail.expect("a refusal");
    assert!(detail.message.contains("`a`") && detail.message.contains("lb_policy"), "{}", detail.message);

    let said = stream.ask(CLUSTER, "3", vec![cluster("b")]).await;
    assert_eq!((said.version_info.as_str(), said.error_detail), ("3", None));
    let rest = client.snapshot("`b` alone", |snapshot| snapshot.clusters.len() == 1).await;
    assert!(rest.clusters.contains_key("b") && !rest.endpoints.contains_key("a"));
    assert!(rest.listeners.contains_key("l"), "only the type of the response is whole");
    stream.ask(ENDPOINTS, "4", vec![]).await;
    let same = client.snapshot("endpoints", |snapshot| snapshot.endpoints.contains_key("b")).await;
    assert_eq!(same.endpoints.len(), 1, "endpoints that are left out stay");

    drop(stream);
    let mut stream = server.whole_stream().await;
    let first = stream.request().await;
    assert_eq!((first.version_info.as_str(), first.response_nonce.as_str()), ("3", ""));
    client.stop().await;
}

#[tokio::test]
async fn both_forms_lead_to_the_same() {
    for protocol in [Protocol::Delta, Protocol::Whole] {
        let world = World::new();
        let plane = ControlPlane::start(&world.ca).await;
        let node = "reviews-1";
        plane.set(
            node,
            [listener("l", "9080"), routes("9080", "a"), cluster("a"), endpoints("a", "10.0.0.1")],
        );
        let mut client = world.client_of(plane.port, protocol);
        let whole = |snapshot: &sidecar_model::Snapshot| {
            snapshot.endpoints.len() + snapshot.routes.len() + snapshot.listeners.len() == 3
        };
        client.snapshot("everything", whole).await;
        for kind in [CLUSTER, ENDPOINTS, LISTENER, ROUTE] {
            plane.acknowledged(node, kind).await.unwrap();
        }
        plane.set(node, [cluster("b"), endpoints("b", "10.0.0.2")]);
        client.snapshot("`b`", |snapshot| snapshot.endpoints.contains_key("b")).await;
        plane.remove(node, CLUSTER, &["a"]);
        client.snapshot("`a` gone", |snapshot| !snapshot.clusters.contains_key("a")).await;
        assert!(plane.refused().is_empty());
        client.stop().await;
    }
}
