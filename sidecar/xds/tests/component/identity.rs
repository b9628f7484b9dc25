//! The certificate: obtained, renewed, and obtained again after an outage longer than its life.

use crate::world::World;
use std::time::{Duration, SystemTime};

fn issued(handle: &sidecar_xds::Handle) -> u64 {
    handle.status.view().certificate.map_or(0, |certificate| certificate.issued)
}

#[tokio::test]
async fn a_certificate_is_obtained_with_the_token() {
    let world = World::new();
    let server = world.control_plane(0).await;
    server.authority.lock().refuse = true;
    let client = world.client(server.port);
    client.until("refused", |handle| handle.status.view().certificate_error.is_some()).await;
    let error = client.handle.status.view().certificate_error.unwrap();
    assert!(error.contains("not today"), "{error}");
    assert!(client.handle.identity.current().is_none());
    server.authority.lock().refuse = false;
    client.until("certified", |handle| handle.identity.current().is_some()).await;
    let material = client.handle.identity.current().unwrap();
    let id = "spiffe://cluster.local/ns/default/sa/reviews";
    assert_eq!(material.spiffe_id().unwrap().as_str(), id);
    let view = client.handle.status.view();
    assert_eq!(view.certificate.unwrap().identity, id);
    assert_eq!(view.certificate_error, None);
    assert!(client.handle.status.has_certificate());
    assert!(server.authority.lock().tokens.iter().all(|token| token == "Bearer token-1"));
    client.stop().await;
}

#[tokio::test]
async fn it_is_renewed_at_half_of_its_life() {
    let world = World::new();
    let server = world.control_plane(0).await;
    server.authority.lock().life = Duration::from_secs(3);
    let client = world.client(server.port);
    client.until("certified", |handle| issued(handle) == 1).await;
    let first = client.handle.identity.current().unwrap();
    std::fs::write(world.path("token"), "token-2").unwrap();
    client.until("renewed", |handle| issued(handle) == 2).await;
    assert!(SystemTime::now() < first.not_after().unwrap(), "before the first one expired");
    let second = client.handle.identity.current().unwrap();
    assert_ne!(first.leaf().unwrap().serial, second.leaf().unwrap().serial);
    assert_eq!(server.authority.lock().tokens, ["Bearer token-1", "Bearer token-2"]);
    client.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_no_obstacle_to_a_new_one() {
    let world = World::new();
    let server = world.control_plane(0).await;
    let port = server.port;
    server.authority.lock().life = Duration::from_secs(1);
    let client = world.client(port);
    client.until("certified", |handle| issued(handle) >= 1).await;
    drop(server);
    client
        .until("expired", |handle| {
            let expiry = handle.identity.current().and_then(|material| material.not_after());
            expiry.is_some_and(|expiry| SystemTime::now() > expiry) && !handle.status.has_certificate()
        })
        .await;
    let before = issued(&client.handle);
    let server = world.control_plane(port).await;
    client
        .until("certified again", |handle| issued(handle) > before && handle.status.has_certificate())
        .await;
    assert!(!server.authority.lock().tokens.is_empty());
    client.stop().await;
}
