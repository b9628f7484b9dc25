//! What pushes mean to connections that are open: nothing, unless a connection like it would not be let in any more.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http_body_util::{BodyExt as _, Empty};
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::filter_chain::{FilterChainMatch, NetworkFilter, Terminal, TransportProtocol};
use sidecar_model::listener::Direction;
use sidecar_model::rbac::{NetworkRbac, Permission, Principal, RbacAction, RbacPolicy, RbacRules};
use sidecar_model::{FilterChain, Listener, Rbac, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::app::App;
use super::build::{
    chain, cluster, http_listener, listener, manager, mesh_tls, mutual, route, routes, snapshot, tcp,
};
use super::rig::{Client, Mesh, address, get, http2, plain, sidecar, spiffe, until};

/// A chain for one transport, as meshd makes them for an inbound port.
fn inbound_chain(transport: TransportProtocol, application: &[&str], terminal: Terminal) -> FilterChain {
    let tls = (transport == TransportProtocol::Tls).then(mesh_tls);
    FilterChain {
        matches: FilterChainMatch {
            transport_protocol: transport,
            application_protocols: application.iter().map(|name| (*name).into()).collect(),
            ..FilterChainMatch::default()
        },
        ..chain(terminal, tls)
    }
}

fn http(cluster: &str) -> Terminal {
    Terminal::Http(Arc::new(manager(routes(vec![route(cluster)]), vec![])))
}

fn inbound(chains: Vec<FilterChain>) -> Listener {
    listener("in", Direction::Inbound, chains)
}

fn strict() -> Listener {
    inbound(vec![inbound_chain(TransportProtocol::Tls, &[], http("local"))])
}

fn permissive() -> Listener {
    let mutual = ["istio-http/1.1", "istio-h2", "istio"];
    inbound(vec![
        inbound_chain(TransportProtocol::Tls, &mutual, http("local")),
        inbound_chain(TransportProtocol::RawBuffer, &[], http("local")),
    ])
}

#[tokio::test]
async fn strict_ends_plain_connections_and_keeps_those_of_the_mesh() {
    let mesh = Mesh::new();
    let app = App::start("reviews").await;
    let with =
        |listener: Listener| Arc::new(snapshot(vec![listener], vec![cluster("local", &[app.address])]));
    let server = sidecar("reviews", mesh.identity("reviews"), Snapshot::clone(&with(permissive())));
    let to = address(&server, "in").await;
    let upstream = mutual(cluster("c", &[to]), &spiffe("reviews"), UpstreamProtocol::Http1);
    let out = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    // The first connection of the peer is made under STRICT, where nothing is asked of what it offers.
    server.apply(with(strict()));
    let peer = sidecar("productpage", mesh.identity("productpage"), snapshot(vec![out], vec![upstream]));
    let mut friend = Client::connect(address(&peer, "out").await).await;
    assert_eq!(friend.text(get("/1")).await.0, 200);
    let connections = || server.shared().stats.downstream_cx_total.load(Relaxed);
    let of_peer = connections();
    server.apply(with(permissive()));
    assert_eq!(friend.text(get("/2")).await.0, 200);
    assert_eq!(connections(), of_peer, "the peer's connection goes on under PERMISSIVE");

    let (mut old, mut other) = (Client::connect(to).await, http2(to).await);
    assert_eq!(old.text(get("/3")).await.0, 200);
    let request = || {
        let body = Empty::new().boxed();
        http::Request::builder().uri("http://reviews:9080/4").body(body).unwrap()
    };
    assert_eq!(other.send_request(request()).await.unwrap().status(), 200);
    server.apply(with(strict()));
    assert_eq!(old.try_text(get("/5")).await, None, "closed, as a new connection would be");
    let error = other.send_request(request()).await.unwrap_err();
    let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(reason.contains("refused"), "it may be sent again: {reason}");
    until("the HTTP/2 connection ended", || other.is_closed().then_some(())).await;
    assert_eq!(Client::connect(to).await.try_text(get("/6")).await, None);
    assert_eq!(friend.text(get("/7")).await.0, 200);
    assert_eq!(connections(), of_peer + 3);
    assert!(app.requests().iter().all(|(path, _, _)| !matches!(&**path, "/5" | "/6")));
}

#[tokio::test]
async fn a_connection_whose_chain_is_gone_goes_on_under_the_one_that_takes_it_now() {
    let (one, two) = (App::start("one").await, App::start("two").await);
    let narrow = |terminal| FilterChain {
        name: "narrow".into(),
        matches: FilterChainMatch {
            prefix_ranges: vec!["127.0.0.1/32".parse().unwrap()],
            ..FilterChainMatch::default()
        },
        ..chain(terminal, None)
    };
    let with = |listener: Listener| {
        let clusters = vec![cluster("one", &[one.address]), cluster("two", &[two.address])];
        snapshot(vec![listener], clusters)
    };
    let proxy = plain(with(inbound(vec![narrow(http("one")), chain(http("two"), None)])));
    let at = address(&proxy, "in").await;
    let mut client = Client::connect(at).await;
    assert!(client.text(get("/")).await.1.starts_with("one"));
    proxy.apply(Arc::new(with(inbound(vec![chain(http("two"), None)]))));
    assert!(client.text(get("/")).await.1.starts_with("two"), "the port's own chain is gone");
    proxy.apply(Arc::new(with(inbound(vec![narrow(http("one")), chain(http("two"), None)]))));
    assert!(client.text(get("/")).await.1.starts_with("one"));
    // Now bytes are wanted on this port: requests can no longer be told apart, so the client must come again.
    proxy.apply(Arc::new(with(inbound(vec![narrow(tcp("two")), chain(http("two"), None)]))));
    assert_eq!(client.try_text(get("/")).await, None);
    let mut client = Client::connect(at).await;
    assert!(client.text(get("/")).await.1.starts_with("two"));
    // The whole listener goes: what is open is served once more, and told that it was the last time.
    let mut held = Client::connect(at).await;
    assert!(held.text(get("/")).await.1.starts_with("two"));
    proxy.apply(Arc::new(with(inbound(vec![chain(http("two"), None)]))));
    let mut last = Client::connect(at).await;
    assert!(last.text(get("/")).await.1.starts_with("two"));
    proxy.apply(Arc::new(snapshot(vec![], vec![cluster("two", &[two.address])])));
    let (status, _, headers) = last.text(get("/")).await;
    assert_eq!((status, headers.get("connection").map(|value| value.as_bytes())), (200, Some(&b"close"[..])));
    until("closed", || last.is_closed().then_some(())).await;
}

fn deny_all() -> NetworkFilter {
    let policy = RbacPolicy {
        name: "ns[default]-policy[deny]-rule[0]".into(),
        permissions: vec![Permission::Any],
        principals: vec![Principal::Any],
    };
    let rules = Some(RbacRules { action: RbacAction::Deny, policies: vec![policy] });
    NetworkFilter::Rbac(Arc::new(NetworkRbac {
        stat_prefix: "tcp.".into(),
        rbac: Rbac { rules, ..Rbac::default() },
    }))
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").await.is_ok() && stream.read_exact(&mut back).await.is_ok() && &back == b"ping"
}

#[tokio::test]
async fn bytes_end_when_authorization_takes_the_right_to_them_away() {
    let echo = super::app::echo().await;
    let with = |listener| snapshot(vec![listener], vec![cluster("c", &[echo])]);
    let proxy = plain(with(inbound(vec![chain(tcp("c"), None)])));
    let at = address(&proxy, "in").await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    assert!(echoes(&mut stream).await);
    // A change that means nothing to the connection.
    let named = FilterChain { name: "other".into(), ..chain(tcp("c"), None) };
    proxy.apply(Arc::new(with(inbound(vec![named]))));
    assert!(echoes(&mut stream).await);
    let denied = FilterChain { network_filters: vec![deny_all()], ..chain(tcp("c"), None) };
    proxy.apply(Arc::new(with(inbound(vec![denied]))));
    let mut rest = Vec::new();
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, stream.read_to_end(&mut rest)).await.expect("closed in time").unwrap();
    assert!(rest.is_empty());
    assert_eq!(proxy.shared().stats.downstream_cx_orphaned.load(Relaxed), 1);
}

/// How many of each sort of connection, and how many pushes; the environment makes the test as large as the machine bears.
fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn websocket(at: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_survive_a_thousand_pushes() {
    let (connections, pushes) = (size("MESH_IDLE_CONNECTIONS", 400), size("MESH_PUSHES", 1000));
    let (app, echo) = (App::start("app").await, super::app::echo().await);
    let content = |push: usize| {
        // Everything changes at each push: a log, a route, a cluster's limit, an endpoint's weight.
        let mut hcm = manager(routes(vec![route("app")]), vec![]);
        hcm.stat_prefix = format!("push-{}", push % 2).into();
        hcm.via = format!("push-{push}").into();
        let bytes = FilterChain { name: format!("bytes-{push}").into(), ..chain(tcp("echo"), None) };
        let mut app_cluster = cluster("app", &[app.address]);
        app_cluster.connect_timeout += std::time::Duration::from_millis(push as u64);
        let mut echo_cluster = cluster("echo", &[echo]);
        echo_cluster.per_connection_buffer_bytes_max += push;
        let listeners = vec![
            http_listener("http", Direction::Inbound, hcm, None),
            listener("tcp", Direction::Inbound, vec![bytes]),
        ];
        Snapshot { version: push as u64, ..snapshot(listeners, vec![app_cluster, echo_cluster]) }
    };
    let proxy = plain(content(0));
    let (http_at, tcp_at) = (address(&proxy, "http").await, address(&proxy, "tcp").await);
    let (mut streams, mut sockets, mut kept, mut second) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..connections / 4 {
        let mut stream = TcpStream::connect(tcp_at).await.unwrap();
        assert!(echoes(&mut stream).await);
        streams.push(stream);
        sockets.push(websocket(http_at).await);
        let mut client = Client::connect(http_at).await;
        assert_eq!(client.text(get("/")).await.0, 200);
        kept.push(client);
        second.push(http2(http_at).await);
    }
    let all = i64::try_from(connections / 4 * 4).unwrap();
    let open = until("all are open", || Some(proxy.open_connections()).filter(|open| *open == all)).await;
    let before = resident_kib();
    let began = std::time::Instant::now();
    for push in 1..=pushes {
        proxy.apply(Arc::new(content(push)));
    }
    let took = began.elapsed();
    // All pushes are in force, and every connection serves under the last.
    let last = format!("push-{pushes}");
    for client in &mut kept {
        let (status, _, headers) = client.text(get("/")).await;
        assert_eq!((status, headers["via"].to_str().unwrap()), (200, &*last));
    }
    for stream in streams.iter_mut().chain(&mut sockets) {
        assert!(echoes(stream).await);
    }
    for client in &mut second {
        let body = Empty::new().boxed();
        let request = http::Request::builder().uri("http://reviews/").body(body).unwrap();
        assert_eq!(client.send_request(request).await.unwrap().headers()["via"], *last);
    }
    assert_eq!(proxy.open_connections(), open, "none was closed");
    assert_eq!(proxy.shared().stats.downstream_cx_orphaned.load(Relaxed), 0);
    let grown = resident_kib().saturating_sub(before);
    println!("{open} connections, {pushes} pushes in {took:?}, {grown} KiB more");
    // What serving all of them once more takes is in it, for the clients too: some KiB for each.
    assert!(grown < 16 * 1024 + connections * 4, "{grown} KiB for {pushes} pushes");
}
