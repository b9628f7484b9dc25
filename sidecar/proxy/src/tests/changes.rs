//! Change under load: pushes, certificates, endpoints. No request may notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use sidecar_model::Snapshot;
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::listener::Direction;

use super::app::App;
use super::build::{cluster, http_listener, manager, mesh_tls, mutual, route, routes, snapshot};
use super::rig::{Client, Mesh, address, post, sidecar, spiffe, until};

/// Sends requests on connections of their own until told to stop; returns how many were answered, all with 200.
async fn load(to: std::net::SocketAddr, clients: usize, stop: Arc<AtomicBool>) -> usize {
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let stop = Arc::clone(&stop);
        tasks.push(tokio::spawn(async move {
            let mut client = Client::connect(to).await;
            let mut count = 0;
            while !stop.load(SeqCst) || count < 20 {
                let (status, body, headers) = client.text(post("/x", "hello")).await;
                assert_eq!((status, body.split(' ').next_back()), (200, Some("hello")), "{body}");
                assert!(!headers.contains_key("connection"), "the connection is kept");
                count += 1;
            }
            count
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_endpoints_and_certificates_change_under_load() {
    let mesh = Mesh::new();
    let apps = [App::start("one").await, App::start("two").await];
    let inner = http_listener(
        "in",
        Direction::Inbound,
        manager(routes(vec![route("local")]), vec![]),
        Some(mesh_tls()),
    );
    let inside = |app: &App| cluster("local", &[app.address]);
    let server_identity = mesh.identity("reviews");
    let server =
        sidecar("reviews", server_identity.clone(), snapshot(vec![inner.clone()], vec![inside(&apps[0])]));
    let to = address(&server, "in").await;
    let outbound = |protocol, version: u64| {
        let listener =
            http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
        let upstream = mutual(cluster("c", &[to]), &spiffe("reviews"), protocol);
        Snapshot { version, ..snapshot(vec![listener], vec![upstream]) }
    };
    let client_identity = mesh.identity("productpage");
    let client = sidecar("productpage", client_identity.clone(), outbound(UpstreamProtocol::Http1, 0));
    let out = address(&client, "out").await;
    let stop = Arc::new(AtomicBool::new(false));
    let running = tokio::spawn(load(out, 8, Arc::clone(&stop)));
    for push in 1..=300u64 {
        // Now and then everything changes: protocol between the sidecars, the application's address, both certificates.
        let protocol = if push % 40 < 20 { UpstreamProtocol::Http1 } else { UpstreamProtocol::Http2 };
        client.apply(Arc::new(outbound(protocol, push)));
        server
            .apply(Arc::new(snapshot(vec![inner.clone()], vec![inside(&apps[usize::from(push % 30 < 15)])])));
        if push % 50 == 0 {
            for (rotating, account) in [(&server_identity, "reviews"), (&client_identity, "productpage")] {
                rotating.publish(mesh.material(account));
            }
        }
        let arrived = || apps[0].count() + apps[1].count();
        let before = arrived();
        until("requests between two pushes", || (arrived() > before + 4).then_some(())).await;
    }
    stop.store(true, SeqCst);
    let answered = running.await.unwrap();
    assert!(answered >= 1500, "{answered}");
    assert_eq!(apps[0].count() + apps[1].count(), answered, "each request arrived exactly once");
    until("all connections closed by their clients", || (client.open_connections() == 0).then_some(())).await;
}
