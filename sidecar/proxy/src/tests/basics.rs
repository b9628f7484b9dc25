//! From a client through both sidecars to an application, and back.

use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::listener::Direction;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::app::App;
use super::build::{cluster, http_listener, manager, mesh_tls, mutual, route, routes, snapshot};
use super::rig::{Client, Mesh, address, get, metrics, plain, post, sample, sidecar, spiffe, until};

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

#[tokio::test]
async fn plain_http_is_forwarded() {
    let app = App::start("reviews").await;
    let routes = routes(vec![route(REVIEWS)]);
    let listener = http_listener("out", Direction::Outbound, manager(routes, vec![]), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster(REVIEWS, &[app.address])]));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    for round in 0..3 {
        let (status, body, headers) = client.text(post(&format!("/r/{round}?q=1"), "hello")).await;
        assert_eq!((status, &*body), (200, &*format!("reviews /r/{round}?q=1 hello")));
        assert_eq!(headers["server"], "envoy");
        assert!(headers.contains_key("x-envoy-upstream-service-time"));
    }
    let (_, headers, _) = &app.requests()[0];
    assert_eq!(headers["host"], "reviews:9080");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-envoy-attempt-count"], "1");
    assert_eq!(headers["x-request-id"].len(), 36);
    let usage = &proxy.shared().config.load().clusters[REVIEWS].usage;
    assert_eq!(
        usage.totals.upstream_cx_total.load(std::sync::atomic::Ordering::Relaxed),
        1,
        "one connection for all"
    );
}

#[tokio::test]
async fn both_sidecars_with_mutual_tls() {
    for (protocol, version) in [(UpstreamProtocol::Http1, "HTTP/1.1"), (UpstreamProtocol::Http2, "HTTP/2")] {
        through_both(protocol, version).await;
    }
}

#[expect(clippy::too_many_lines, reason = "one story, told from both ends")]
async fn through_both(protocol: UpstreamProtocol, version: &str) {
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access.log");
    let mesh = Mesh::new();
    let app = App::start("reviews").await;
    let mut inner = manager(routes(vec![route("inbound|9080||")]), vec![]);
    inner.server_name = "istio-envoy".into();
    inner.forward_client_cert = sidecar_model::hcm::ForwardClientCert::AppendForward;
    inner.client_cert_details.uri = true;
    inner.access_log = vec![super::build::log(
        &log,
        "%PROTOCOL% %RESPONSE_CODE% %DOWNSTREAM_PEER_URI_SAN% %REQUESTED_SERVER_NAME% %UPSTREAM_CLUSTER% %ROUTE_NAME%",
    )];
    let mut local = cluster("inbound|9080||", &[app.address]);
    local.metadata = cluster(REVIEWS, &[]).metadata;
    let server = sidecar(
        "reviews",
        mesh.identity("reviews"),
        snapshot(vec![http_listener("in", Direction::Inbound, inner, Some(mesh_tls()))], vec![local]),
    );
    let inbound = address(&server, "in").await;
    let upstream = mutual(cluster(REVIEWS, &[inbound]), &spiffe("reviews"), protocol);
    let out = http_listener("out", Direction::Outbound, manager(routes(vec![route(REVIEWS)]), vec![]), None);
    let client_side =
        sidecar("productpage", mesh.identity("productpage"), snapshot(vec![out], vec![upstream]));
    let mut client = Client::connect(address(&client_side, "out").await).await;
    for _ in 0..5 {
        let (status, body, headers) = client.text(get("/reviews/0")).await;
        assert_eq!((status, &*body), (200, "reviews /reviews/0 "));
        assert_eq!(headers["server"], "envoy");
        assert!(!headers.contains_key("x-envoy-peer-metadata"));
    }
    let (_, headers, _) = &app.requests()[0];
    let xfcc = headers["x-forwarded-client-cert"].to_str().unwrap();
    assert!(xfcc.starts_with(&format!("By={};Hash=", spiffe("reviews"))), "{xfcc}");
    assert!(xfcc.ends_with(&format!(";URI={}", spiffe("productpage"))), "{xfcc}");
    assert!(!headers.contains_key("x-envoy-peer-metadata"), "{headers:?}");
    let client_principal = format!("source_principal=\"{}\"", spiffe("productpage"));
    let server_principal = format!("destination_principal=\"{}\"", spiffe("reviews"));
    let both = [
        "response_code=\"200\"",
        &client_principal,
        &server_principal,
        "destination_service_name=\"reviews\"",
    ];
    let source = [
        &both[..],
        &[
            "reporter=\"source\"",
            "source_workload=\"productpage-v1\"",
            "destination_workload=\"reviews-v1\"",
            "connection_security_policy=\"unknown\"",
        ],
    ]
    .concat();
    let destination = [
        &both[..],
        &[
            "reporter=\"destination\"",
            "source_workload=\"productpage-v1\"",
            "source_version=\"v1\"",
            "destination_workload=\"reviews-v1\"",
            "connection_security_policy=\"mutual_tls\"",
        ],
    ]
    .concat();
    until("metrics", || {
        sample(&metrics(&client_side), "istio_requests_total", &source).filter(|count| *count == 5)
    })
    .await;
    until("metrics", || {
        sample(&metrics(&server), "istio_requests_total", &destination).filter(|count| *count == 5)
    })
    .await;
    let line = format!(
        "{version} 200 {} outbound_.9080_._.reviews.default.svc.cluster.local inbound|9080|| default\n",
        spiffe("productpage")
    );
    until("log", || (std::fs::read_to_string(&log).unwrap_or_default() == line.repeat(5)).then_some(()))
        .await;
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused() {
    let mesh = Mesh::new();
    let app = App::start("reviews").await;
    let inner = http_listener(
        "in",
        Direction::Inbound,
        manager(routes(vec![route("local")]), vec![]),
        Some(mesh_tls()),
    );
    let server = sidecar(
        "ratings",
        mesh.identity("ratings"),
        snapshot(vec![inner], vec![cluster("local", &[app.address])]),
    );
    let upstream = mutual(
        cluster(REVIEWS, &[address(&server, "in").await]),
        &spiffe("reviews"),
        UpstreamProtocol::Http1,
    );
    let out = http_listener("out", Direction::Outbound, manager(routes(vec![route(REVIEWS)]), vec![]), None);
    let client_side =
        sidecar("productpage", mesh.identity("productpage"), snapshot(vec![out], vec![upstream]));
    let mut client = Client::connect(address(&client_side, "out").await).await;
    let (status, body, _) = client.text(get("/")).await;
    assert_eq!(status, 503);
    assert!(body.starts_with("upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"), "{body}");
    assert!(app.requests().is_empty());
    let plain_out =
        http_listener("out", Direction::Outbound, manager(routes(vec![route("bare")]), vec![]), None);
    let stranger = plain(snapshot(vec![plain_out], vec![cluster("bare", &[address(&server, "in").await])]));
    let mut client = Client::connect(address(&stranger, "out").await).await;
    assert_eq!(client.text(get("/")).await.0, 503, "plain text under STRICT");
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn http10_is_served_where_it_is_asked_for() {
    let app = App::start("a").await;
    for (accepted, host, sent, want) in [
        (false, "", "host: reviews\r\n", "HTTP/1.1 426 "),
        (true, "", "host: reviews\r\n", "HTTP/1.1 200 "),
        (true, "", "", "HTTP/1.1 400 "),
        (true, "reviews", "", "HTTP/1.1 200 "),
    ] {
        let mut manager = manager(routes(vec![route("c")]), vec![]);
        manager.http1.accept_http_10 = accepted;
        manager.http10_host = host.into();
        let listener = http_listener("out", Direction::Outbound, manager, None);
        let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]));
        let mut stream = TcpStream::connect(address(&proxy, "out").await).await.unwrap();
        stream.write_all(format!("GET /old HTTP/1.0\r\n{sent}\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Without keep-alive the connection ends after the answer.
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(want), "{accepted} {host:?} {sent:?}: {answer}");
        assert_eq!(answer.ends_with("a /old "), want.contains("200"));
    }
}
