//! CONNECT that ends at the proxy, over HTTP/1.1, HTTP/2 and HBONE, and WebSockets over HTTP/2.

use std::net::SocketAddr;
use std::process::Command;

use http::{Method, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidecar_model::cluster::{ClusterKind, UpstreamProtocol};
use sidecar_model::hcm::Upgrade;
use sidecar_model::listener::Direction;
use sidecar_model::{Action, DownstreamTls, Listener, PathMatch, Route};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::app::App;
use super::build::{cluster, http_listener, manager, mesh_tls, route, route_with, routes, snapshot};
use super::rig::{Mesh, address, metrics, plain, sample, sidecar, spiffe, until};

/// A server that sends every byte back, and closes after the client has.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    address
}

/// CONNECT ends here; everything else is refused by having no route.
fn connect_route(cluster: &str) -> Route {
    let mut route = route_with(cluster, |action| {
        action.upgrades = vec![Upgrade { protocol: "connect".into(), enabled: true, terminates: true }];
    });
    route.matches.path = PathMatch::Connect;
    route
}

fn connect_listener(route: Route, tls: Option<DownstreamTls>) -> Listener {
    http_listener("in", Direction::Inbound, manager(routes(vec![route]), vec![]), tls)
}

/// Bytes there and back, then an end in order.
async fn bounce(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    for round in 0..3 {
        let sent = vec![round; 100_000];
        let mut back = vec![0; sent.len()];
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let (written, read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
        (written.unwrap(), read.unwrap());
        assert_eq!(sent, back);
    }
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn connect_over_http1_reaches_the_upstream_as_bytes() {
    let listener = connect_listener(connect_route("c"), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[echo().await])]));
    let listener = address(&proxy, "in").await;
    let mut stream = TcpStream::connect(listener).await.unwrap();
    // The first bytes may come with the head.
    stream.write_all(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\nearly").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for unwanted in ["connection:", "content-length", "transfer-encoding"] {
        assert!(!head.contains(unwanted), "{head}");
    }
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    bounce(stream).await;
    until("metrics", || sample(&metrics(&proxy), "istio_requests_total", &["response_code=\"200\""])).await;
}

#[tokio::test]
async fn curl_goes_through_a_proxy_tunnel() {
    let app = App::start("behind").await;
    let listener = connect_listener(connect_route("c"), None);
    let proxy = plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]));
    let through = format!("http://{}", address(&proxy, "in").await);
    let curl = tokio::task::spawn_blocking(move || {
        let args =
            ["-sS", "--max-time", "10", "--proxytunnel", "--proxy", &through, "http://app.example/one"];
        Command::new("curl").args(args).output().expect("curl is installed; tests/setup.sh test does it")
    });
    let output = curl.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "behind /one ");
}

#[tokio::test]
async fn connect_must_be_allowed() {
    let upstream = echo().await;
    let mut forbidden = connect_route("c");
    if let Action::Forward(action) = &mut forbidden.action {
        action.upgrades.clear();
    }
    for (route, want) in
        [(forbidden, "HTTP/1.1 403"), (route("c"), "HTTP/1.1 404"), (connect_route("gone"), "HTTP/1.1 503")]
    {
        let proxy = plain(snapshot(vec![connect_listener(route, None)], vec![cluster("c", &[upstream])]));
        let mut stream = TcpStream::connect(address(&proxy, "in").await).await.unwrap();
        stream.write_all(b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n").await.unwrap();
        let mut answer = vec![0; want.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), want);
    }
}

type H2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn http2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> H2 {
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    send
}

/// HBONE: CONNECT inside mutual TLS with HTTP/2; the authority says which port of the pod is meant.
#[tokio::test]
async fn hbone_reaches_the_address_in_the_authority() {
    let mesh = Mesh::new();
    let mut to_authority = cluster("to-authority", &[]);
    to_authority.kind = ClusterKind::OriginalDst { header: Some(header::HOST), port_override: None };
    to_authority.load_assignment = None;
    let listener = connect_listener(connect_route("to-authority"), Some(mesh_tls()));
    let server = sidecar("reviews", mesh.identity("reviews"), snapshot(vec![listener], vec![to_authority]));
    let ports = [echo().await, echo().await];
    let stream = TcpStream::connect(address(&server, "in").await).await.unwrap();
    let check = base_tls::ServerCheck::Spiffe(vec![spiffe("reviews")]);
    let client = base_tls::Client::new(&mesh.identity("ztunnel"), check, &[b"h2"]);
    let mut send = http2(client.connect(stream, "reviews").await.unwrap()).await;
    for port in ports {
        // Streams of one connection, at the same time.
        let request = Request::builder().method(Method::CONNECT).uri(port.to_string());
        let response = send.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        bounce(TokioIo::new(hyper::upgrade::on(response).await.unwrap())).await;
    }
}

#[tokio::test]
async fn a_websocket_over_http2_reaches_an_http1_server() {
    let app = App::start("a").await;
    for allowed in [true, false] {
        let mut manager = manager(routes(vec![route("c")]), vec![]);
        manager.http2.allow_connect = allowed;
        let mut upstream = cluster("c", &[app.address]);
        upstream.http.protocol = UpstreamProtocol::Http1;
        let listener = http_listener("in", Direction::Outbound, manager, None);
        let proxy = plain(snapshot(vec![listener], vec![upstream]));
        let stream = TcpStream::connect(address(&proxy, "in").await).await.unwrap();
        let mut send = http2(stream).await;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://reviews:9080/ws")
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .body(Empty::new())
            .unwrap();
        // The server's settings say first whether this is possible.
        let ready = until_settings(&mut send).await;
        assert!(ready);
        let response = send.send_request(request).await;
        if !allowed {
            assert!(response.is_err() || response.unwrap().status().is_client_error());
            continue;
        }
        let response = response.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key("upgrade"));
        bounce_without_end(TokioIo::new(hyper::upgrade::on(response).await.unwrap())).await;
    }
}

/// A first exchange, after which the server's settings have arrived.
async fn until_settings(send: &mut H2) -> bool {
    let request = Request::get("http://reviews:9080/").body(Empty::new()).unwrap();
    send.send_request(request).await.unwrap().status() == 200
}

async fn bounce_without_end(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    for text in ["one", "another"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, text.as_bytes());
    }
}
