//! What is more than a request and an answer: WebSocket, gRPC, bytes, drain, detection.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::TokioIo;
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::filter_chain::{FilterChainMatch, Terminal};
use sidecar_model::listener::Direction;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::app::App;
use super::build::{
    chain, cluster, http_listener, listener, manager, mesh_tls, mutual, route, routes, snapshot, tcp,
};
use super::rig::{Client, Mesh, address, get, http2, metrics, plain, sample, sidecar, spiffe, until, with};
use crate::Proxy;

/// Both sidecars of a mesh with HTTP between them.
async fn pair(mesh: &Mesh, app: &App, protocol: UpstreamProtocol) -> (Proxy, Proxy) {
    let mut local = cluster("local", &[app.address]);
    local.http.protocol = UpstreamProtocol::UseDownstream;
    let inner = http_listener(
        "in",
        Direction::Inbound,
        manager(routes(vec![route("local")]), vec![]),
        Some(mesh_tls()),
    );
    let server = sidecar("reviews", mesh.identity("reviews"), snapshot(vec![inner], vec![local]));
    let upstream = mutual(cluster("c", &[address(&server, "in").await]), &spiffe("reviews"), protocol);
    let outer = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    let client = sidecar("productpage", mesh.identity("productpage"), snapshot(vec![outer], vec![upstream]));
    (server, client)
}

#[tokio::test]
async fn a_websocket_goes_through_both_sidecars() {
    let mesh = Mesh::new();
    let app = App::start("a").await;
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (_server, proxy) = pair(&mesh, &app, protocol).await;
        let mut client = Client::connect(address(&proxy, "out").await).await;
        let request = with(with(get("/ws"), "connection", "Upgrade"), "upgrade", "websocket");
        let response = client.send(request).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["upgrade"], "websocket");
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        for text in ["one", "another"] {
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut back = vec![0; text.len()];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, text.as_bytes());
        }
        drop(stream);
        until("metrics", || sample(&metrics(&proxy), "istio_requests_total", &["response_code=\"101\""]))
            .await;
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_allowed_is_refused() {
    let app = App::start("a").await;
    let listener = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    let request = with(with(get("/ws"), "connection", "Upgrade"), "upgrade", "spdy/3.1");
    assert_eq!(client.text(request).await.0, 403);
}

#[tokio::test]
async fn grpc_web_reaches_a_grpc_server() {
    use base64::Engine as _;
    let app = App::start("a").await;
    let mut upstream = cluster("c", &[app.address]);
    upstream.http.protocol = UpstreamProtocol::Http2;
    let manager = manager(routes(vec![route("c")]), vec![sidecar_model::HttpFilterKind::GrpcWeb]);
    let listener = http_listener("out", Direction::Outbound, manager, None);
    let proxy = plain(snapshot(vec![listener], vec![upstream]));
    let mut client = Client::connect(address(&proxy, "out").await).await;
    let message = &b"\0\0\0\0\x05hello"[..];
    let trailers = b"\x80\0\0\0\x0fgrpc-status:0\r\n";
    let text = base64::engine::general_purpose::STANDARD;
    let binary = [message, trailers].concat();
    let encoded = [text.encode(message), text.encode(trailers)].concat().into_bytes();
    for (kind, sent, want) in [
        ("application/grpc-web+proto", message.to_vec(), binary),
        ("application/grpc-web-text+proto", text.encode(message).into_bytes(), encoded),
    ] {
        let request = Request::post("http://reviews:9080/pkg.Service/Method")
            .header("host", "reviews:9080")
            .header("content-type", kind)
            .header("accept", kind)
            .body(Full::new(Bytes::from(sent)))
            .unwrap();
        let response = client.send(request).await;
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-type"].as_bytes()),
            (200, kind.as_bytes())
        );
        let body = response.into_body().collect().await.unwrap();
        assert!(body.trailers().is_none());
        assert_eq!(body.to_bytes(), want, "{kind}");
    }
    for (_, headers, _) in app.requests() {
        assert_eq!(
            (&headers["content-type"], &headers["te"]),
            (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn grpc_keeps_its_trailers_and_its_errors() {
    let mesh = Mesh::new();
    let app = App::start("a").await;
    let (server, proxy) = pair(&mesh, &app, UpstreamProtocol::Http2).await;
    let mut client = http2(address(&proxy, "out").await).await;
    let request = || {
        let message = Bytes::from_static(b"\0\0\0\0\x05hello\0\0\0\0\x02hi");
        let body = http_body_util::StreamBody::new(futures::stream::iter([Ok(Frame::data(message))]));
        Request::builder()
            .method("POST")
            .uri("http://reviews:9080/pkg.Service/Method")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(http_body_util::BodyExt::boxed(body))
            .unwrap()
    };
    let response = client.send_request(request()).await.unwrap();
    assert_eq!(response.status(), 200);
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), &b"\0\0\0\0\x05hello\0\0\0\0\x02hi"[..]);
    let grpc = ["request_protocol=\"grpc\"", "grpc_response_status=\"0\""];
    until("metrics", || sample(&metrics(&proxy), "istio_requests_total", &grpc)).await;
    assert_eq!(sample(&metrics(&proxy), "istio_request_messages_total", &grpc), Some(2));
    assert_eq!(sample(&metrics(&server), "istio_response_messages_total", &grpc), Some(2));
    proxy.apply(Arc::new(snapshot(
        vec![http_listener("out", Direction::Outbound, manager(routes(vec![route("gone")]), vec![]), None)],
        vec![],
    )));
    let response = client.send_request(request()).await.unwrap();
    assert_eq!(response.status(), 200, "errors are in the gRPC status");
    assert_eq!(response.headers()["grpc-status"], "14");
}

#[tokio::test]
async fn a_response_that_nobody_reads_does_not_stop_its_request() {
    // An upstream that answers at once with more than fits anywhere, then reads the request to its end.
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream_at = upstream.local_addr().unwrap();
    const ANSWER: usize = 24_000_000;
    const REQUEST: usize = 24_000_000;
    tokio::spawn(async move {
        let (stream, _) = upstream.accept().await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let mut head = vec![0; 100];
        assert!(read.read(&mut head).await.unwrap() > 0);
        tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&vec![b'x'; ANSWER]).await.unwrap();
        });
        let mut rest = vec![0; 64 * 1024];
        while read.read(&mut rest).await.unwrap() > 0 {}
    });
    let listener = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[upstream_at])]));
    let stream = TcpStream::connect(address(&proxy, "out").await).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {REQUEST}\r\n\r\n");
    write.write_all(head.as_bytes()).await.unwrap();
    // Only when all is sent does the client begin to read.
    let sent =
        tokio::time::timeout(std::time::Duration::from_secs(10), write.write_all(&vec![b'y'; REQUEST])).await;
    sent.expect("the request stands still").unwrap();
    let mut answer = vec![0; ANSWER];
    read.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn bytes_go_through_both_sidecars() {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo_at = echo.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let mesh = Mesh::new();
    let inner = listener("in", Direction::Inbound, vec![chain(tcp("local"), Some(mesh_tls()))]);
    let server =
        sidecar("db", mesh.identity("db"), snapshot(vec![inner], vec![cluster("local", &[echo_at])]));
    let upstream =
        mutual(cluster("c", &[address(&server, "in").await]), &spiffe("db"), UpstreamProtocol::Http1);
    let outer = listener("out", Direction::Outbound, vec![chain(tcp("c"), None)]);
    let proxy = sidecar("app", mesh.identity("app"), snapshot(vec![outer], vec![upstream]));
    let mut stream = TcpStream::connect(address(&proxy, "out").await).await.unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    let send = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, received) = tokio::join!(send, read.read_to_end(&mut back));
    received.unwrap();
    assert!(back == data, "{} bytes came back", back.len());
    let mutual =
        ["connection_security_policy=\"mutual_tls\"", &format!("source_principal=\"{}\"", spiffe("app"))];
    until("metrics", || {
        sample(&metrics(&server), "istio_tcp_received_bytes_total", &mutual).filter(|n| *n == 300_000)
    })
    .await;
    until("metrics", || {
        sample(&metrics(&proxy), "istio_tcp_connections_closed_total", &["reporter=\"source\""])
    })
    .await;
    until("metrics", || {
        sample(&metrics(&proxy), "istio_tcp_sent_bytes_total", &["reporter=\"source\""])
            .filter(|n| *n == 300_000)
    })
    .await;
}

#[tokio::test]
async fn a_sniffed_port_takes_http_and_bytes() {
    let app = App::start("a").await;
    let bytes = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bytes_at = bytes.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = bytes.accept().await {
            stream.write_all(b"server first").await.unwrap();
        }
    });
    let http = Terminal::Http(Arc::new(manager(routes(vec![route("web")]), vec![])));
    let protocols = vec!["http/1.1".into(), "h2c".into()];
    let mut web = chain(http, None);
    web.matches = FilterChainMatch { application_protocols: protocols, ..FilterChainMatch::default() };
    let mut both = listener("out", Direction::Outbound, vec![web, chain(tcp("raw"), None)]);
    both.listener_filters_timeout = Some(std::time::Duration::from_millis(100));
    let proxy =
        plain(snapshot(vec![both], vec![cluster("web", &[app.address]), cluster("raw", &[bytes_at])]));
    let out = address(&proxy, "out").await;
    let mut client = Client::connect(out).await;
    assert_eq!(client.text(get("/x")).await.1, "a /x ");
    let mut client = http2(out).await;
    let request = Request::builder().uri("http://reviews:9080/y").body(Full::default().boxed()).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    for first in [&b""[..], b"*1\r\n$4\r\nPING\r\n"] {
        let mut stream = TcpStream::connect(out).await.unwrap();
        stream.write_all(first).await.unwrap();
        let mut back = vec![0; 12];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, b"server first", "{first:?}");
    }
}

#[tokio::test]
async fn draining_says_goodbye() {
    let app = App::start("a").await;
    let listener = http_listener("out", Direction::Outbound, manager(routes(vec![route("c")]), vec![]), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]));
    let out = address(&proxy, "out").await;
    let mut client = Client::connect(out).await;
    assert_eq!(client.text(get("/")).await.0, 200);
    let mut busy = Client::connect(out).await;
    let slow = tokio::spawn(async move { busy.text(with(get("/slow"), "test-delay-ms", "300")).await });
    until("the slow request", || (app.requests().len() == 1 && proxy.open_connections() == 2).then_some(()))
        .await;
    let usage = proxy.shared().config.load().clusters["c"].usage.clone();
    until("the slow request", || (usage.now()[2] == 1).then_some(())).await;
    proxy.drain();
    let (status, _, headers) = slow.await.unwrap();
    assert_eq!((status, headers["connection"].to_str().unwrap()), (200, "close"));
    until("connections closed", || (proxy.open_connections() == 0).then_some(())).await;
}
