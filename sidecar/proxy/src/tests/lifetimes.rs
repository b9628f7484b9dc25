//! How long connections and streams may live: limits of connection managers, routes and TCP proxies.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::HeaderMap;
use sidecar_model::filter_chain::{ConnectionLimit, FilterChainMatch, NetworkFilter, Terminal};
use sidecar_model::hcm::Http2Options;
use sidecar_model::listener::Direction;
use sidecar_model::route_action::IdleTimeout;
use sidecar_model::{FilterChain, HttpConnectionManager, RouteAction, TcpProxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::app::{App, echo};
use super::build::{chain, cluster, http_listener, listener, manager, route_with, routes, snapshot, tcp};
use super::rig::{Client, address, counted, get, http2, plain, until, with};
use crate::Proxy;

const SHORT: Duration = Duration::from_millis(250);
/// What nobody should have to wait for.
const LONG: Duration = Duration::from_secs(8);

/// A proxy before `app` whose connection manager and route a test changes.
fn proxy(
    app: &App,
    change: impl FnOnce(&mut HttpConnectionManager),
    route: impl FnOnce(&mut RouteAction),
) -> Proxy {
    let mut manager = manager(routes(vec![route_with("c", route)]), vec![]);
    change(&mut manager);
    let listener = http_listener("out", Direction::Outbound, manager, None);
    plain(snapshot(vec![listener], vec![cluster("c", &[app.address])]))
}

fn closes(headers: &HeaderMap) -> bool {
    headers.get("connection").is_some_and(|value| value == "close")
}

/// Sends raw bytes and reads until the connection ends.
async fn until_closed(at: std::net::SocketAddr, bytes: &[u8]) -> (String, Duration) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let began = Instant::now();
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut all))
        .await
        .expect("the connection is closed")
        .unwrap();
    (String::from_utf8_lossy(&all).into_owned(), began.elapsed())
}

#[tokio::test]
async fn a_connection_has_so_many_requests() {
    let app = App::start("a").await;
    let proxy = proxy(&app, |hcm| hcm.max_requests_per_connection = Some(3), |_| {});
    let at = address(&proxy, "out").await;
    let mut client = Client::connect(at).await;
    for last in [false, false, true] {
        let (status, _, headers) = client.text(get("/")).await;
        assert_eq!((status, closes(&headers)), (200, last));
    }
    until("closed", || client.is_closed().then_some(())).await;
    let mut client = http2(at).await;
    for _ in 0..3 {
        let body = http_body_util::BodyExt::boxed(http_body_util::Empty::new());
        let request = http::Request::builder().uri("http://reviews/").body(body).unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    }
    until("GOAWAY", || client.is_closed().then_some(())).await;
    let ended = || proxy.shared().stats.http_total("downstream_cx_max_requests_reached");
    until("counted", || (ended() == 2).then_some(())).await;
}

#[tokio::test]
async fn a_connection_has_so_much_time() {
    let app = App::start("a").await;
    let change = |hcm: &mut HttpConnectionManager| {
        hcm.max_connection_duration = Some(SHORT);
        hcm.drain_timeout = SHORT;
    };
    let proxy = proxy(&app, change, |_| {});
    let at = address(&proxy, "out").await;
    let (mut busy, mut still) = (Client::connect(at).await, Client::connect(at).await);
    assert!(!closes(&busy.text(get("/")).await.2) && !closes(&still.text(get("/")).await.2));
    let (status, _, headers) = busy.text(with(get("/"), "test-delay-ms", "300")).await;
    assert_eq!((status, closes(&headers)), (200, true), "the request under way is answered, as the last");
    let client = http2(at).await;
    until("the idle ones are closed", || (still.is_closed() && client.is_closed()).then_some(())).await;
    assert_eq!(proxy.shared().stats.http_total("downstream_cx_max_duration_reached"), 3);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_without_limit_is_not() {
    let app = App::start("a").await;
    let bounded = proxy(&app, |hcm| hcm.idle_timeout = Some(SHORT), |_| {});
    let free = proxy(&app, |hcm| hcm.idle_timeout = None, |_| {});
    let mut clients = Vec::new();
    for proxy in [&bounded, &free] {
        let mut client = Client::connect(address(proxy, "out").await).await;
        assert_eq!(client.text(get("/")).await.0, 200);
        clients.push(client);
    }
    until("the bounded one closed", || clients[0].is_closed().then_some(())).await;
    assert!(!clients[1].is_closed());
    assert_eq!(bounded.shared().stats.http_total("downstream_cx_idle_timeout"), 1);
}

#[tokio::test]
async fn a_stream_that_stands_still_is_given_up() {
    let app = App::start("a").await;
    let proxy = proxy(&app, |hcm| hcm.stream_idle_timeout = Some(SHORT), |_| {});
    let at = address(&proxy, "out").await;
    let mut client = Client::connect(at).await;
    let (status, body, _) = client.text(with(get("/"), "test-delay-ms", "20000")).await;
    assert_eq!((status, &*body), (504, "stream timeout"), "the request had arrived");
    counted(&proxy, &["response_flags=\"SI\"", "response_code=\"504\""], 1).await;
    let half = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    let (text, took) = until_closed(at, half).await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.ends_with("stream timeout"), "{text}");
    assert!(took >= SHORT, "{took:?}");
    // The answer has begun: all that can be done is to end it.
    let stall = b"GET / HTTP/1.1\r\nhost: a\r\ntest-stall: 1\r\n\r\n";
    let (text, _) = until_closed(at, stall).await;
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.contains("begun") && !text.ends_with("0\r\n\r\n"),
        "{text}"
    );
    counted(&proxy, &["response_flags=\"SI\"", "response_code=\"200\""], 1).await;
    assert_eq!(proxy.shared().stats.http_total("downstream_rq_idle_timeout"), 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let app = App::start("a").await;
    let proxy = proxy(&app, |hcm| hcm.stream_idle_timeout = Some(SHORT), |_| {});
    let mut stream = TcpStream::connect(address(&proxy, "out").await).await.unwrap();
    let body = vec![b'x'; 12_000_000];
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // The application sends the body back, of which nothing is read.
    stream.write_all(&body).await.unwrap();
    counted(&proxy, &["response_flags=\"SI\""], 1).await;
    until("closed", || (proxy.open_connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_route_says_how_long_its_streams_may_stand_still_and_last() {
    let app = App::start("a").await;
    let change = |hcm: &mut HttpConnectionManager| hcm.stream_idle_timeout = Some(SHORT);
    let off = proxy(&app, change, |route| route.idle_timeout = IdleTimeout::Off);
    let mut client = Client::connect(address(&off, "out").await).await;
    assert_eq!(client.text(with(get("/"), "test-delay-ms", "500")).await.0, 200);
    let own = proxy(&app, |_| {}, |route| route.idle_timeout = IdleTimeout::After(SHORT));
    let mut client = Client::connect(address(&own, "out").await).await;
    assert_eq!(client.text(with(get("/"), "test-delay-ms", "20000")).await.1, "stream timeout");
    let lasting = proxy(&app, |_| {}, |route| route.max_stream_duration = Some(SHORT));
    let mut client = Client::connect(address(&lasting, "out").await).await;
    let (status, body, _) = client.text(with(get("/"), "test-delay-ms", "20000")).await;
    assert_eq!((status, &*body), (504, "downstream duration timeout"));
}

#[tokio::test]
async fn a_request_must_arrive_and_a_stream_must_end_in_time() {
    let app = App::start("a").await;
    let slow = proxy(&app, |hcm| hcm.request_timeout = Some(SHORT), |_| {});
    let at = address(&slow, "out").await;
    let mut client = Client::connect(at).await;
    assert_eq!(client.text(with(get("/"), "test-delay-ms", "500")).await.0, 200, "it arrived in time");
    let (text, _) = until_closed(at, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.ends_with("request timeout"), "{text}");
    assert_eq!(slow.shared().stats.http_total("downstream_rq_timeout"), 1);
    let short = proxy(&app, |hcm| hcm.max_stream_duration = Some(SHORT), |_| {});
    let mut client = Client::connect(address(&short, "out").await).await;
    let request = with(get("/"), "test-delay-ms", "20000");
    let (status, body, _) = client.text(request.clone()).await;
    assert_eq!((status, &*body), (504, "downstream duration timeout"));
    let (status, _, headers) = client.text(with(request, "content-type", "application/grpc")).await;
    assert_eq!((status, &headers["grpc-status"]), (200, &"4".parse::<http::HeaderValue>().unwrap()));
    assert_eq!(short.shared().stats.http_total("downstream_rq_max_duration_reached"), 2);
}

#[tokio::test]
async fn an_http2_client_that_does_not_answer_pings_is_left() {
    let app = App::start("a").await;
    let http2 = Http2Options {
        keepalive_interval: Some(SHORT),
        keepalive_timeout: Some(SHORT),
        ..Http2Options::default()
    };
    let proxy = proxy(&app, |hcm| hcm.http2 = http2, |_| {});
    let at = address(&proxy, "out").await;
    let alive = super::rig::http2(at).await;
    // A preface and empty settings, and never a word again.
    let mut silent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    silent.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let (_, took) = until_closed(at, &silent).await;
    assert!(took >= 2 * SHORT, "{took:?}");
    assert!(!alive.is_closed(), "who answers is kept");
}

#[tokio::test]
async fn bytes_have_their_limits_too() {
    let echo = echo().await;
    let chain_of = |change: fn(&mut TcpProxy)| {
        let Terminal::Tcp(mut proxy) = tcp("c") else { unreachable!() };
        change(Arc::make_mut(&mut proxy));
        chain(Terminal::Tcp(proxy), None)
    };
    let start = |chain: FilterChain| {
        plain(snapshot(vec![listener("in", Direction::Inbound, vec![chain])], vec![cluster("c", &[echo])]))
    };
    let old = start(chain_of(|tcp| tcp.max_connection_duration = Some(SHORT)));
    let (text, took) = until_closed(address(&old, "in").await, b"ping").await;
    assert!(text == "ping" && took >= SHORT, "{text} {took:?}");
    let still = start(chain_of(|tcp| tcp.idle_timeout = Some(SHORT)));
    assert!(until_closed(address(&still, "in").await, b"ping").await.1 >= SHORT);
    let limit = ConnectionLimit { stat_prefix: "two".into(), max_connections: 2, delay: SHORT };
    let limited = start(FilterChain {
        matches: FilterChainMatch::default(),
        network_filters: vec![NetworkFilter::ConnectionLimit(Arc::new(limit))],
        ..chain_of(|_| {})
    });
    let at = address(&limited, "in").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        open.push(stream);
    }
    let mut third = TcpStream::connect(at).await.unwrap();
    let began = Instant::now();
    assert_eq!(third.read(&mut [0]).await.unwrap(), 0, "closed");
    assert!(began.elapsed() >= SHORT, "after a while");
    assert_eq!(limited.shared().stats.connection_limited.load(Relaxed), 1);
    drop(open.pop());
    until("one has left", || (limited.open_connections() == 1).then_some(())).await;
    let mut fourth = TcpStream::connect(at).await.unwrap();
    fourth.write_all(b"x").await.unwrap();
    assert_eq!(fourth.read_u8().await.unwrap(), b'x', "room again");
}
