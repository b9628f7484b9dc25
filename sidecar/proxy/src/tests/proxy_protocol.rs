//! PROXY protocol headers in front of requests: from a real HAProxy, and by hand.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use sidecar_model::Listener;
use sidecar_model::listener::{Direction, ProxyProtocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::app::App;
use super::build::{cluster, http_listener, log, manager, route, routes, snapshot};
use super::rig::{Client, address, get, plain, until};

const CLUSTER: &str = "outbound|80||app.default.svc.cluster.local";

fn behind_a_proxy(log_file: &std::path::Path, optional: bool) -> Listener {
    let mut manager = manager(routes(vec![route(CLUSTER)]), vec![]);
    manager.use_remote_address = true;
    manager.skip_xff_append = false;
    manager.access_log = vec![log(
        log_file,
        "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    )];
    let mut listener = http_listener("in", Direction::Unspecified, manager, None);
    listener.listener_filters.proxy_protocol =
        Some(ProxyProtocol { optional, version1: true, version2: true });
    listener
}

/// A process of the test, ended with it.
struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy on a free port, which tells `server` who its clients are.
async fn haproxy(dir: &std::path::Path, server: SocketAddr, option: &str) -> (HaProxy, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
         listen l\n bind {free}\n server s {server} {option}\n"
    );
    let file = dir.join(format!("{option}.cfg"));
    std::fs::write(&file, config).unwrap();
    let child = Command::new("haproxy")
        .args(["-db", "-f"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = HaProxy(child.expect("haproxy is installed; tests/setup.sh test does it"));
    until("haproxy listens", || match child.0.try_wait().unwrap() {
        Some(status) => panic!("haproxy ended: {status}"),
        None => std::net::TcpStream::connect(free).ok(),
    })
    .await;
    (child, free)
}

#[tokio::test]
async fn haproxy_tells_who_the_client_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let app = App::start("app").await;
    let proxy = plain(snapshot(vec![behind_a_proxy(&log, false)], vec![cluster(CLUSTER, &[app.address])]));
    let listener = address(&proxy, "in").await;
    for (round, option) in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"].into_iter().enumerate() {
        let (_process, front) = haproxy(dir.path(), listener, option).await;
        let mut client = Client::connect(front).await;
        let (status, ..) = client.text(get("/")).await;
        assert_eq!(status, 200, "{option}");
        let line = until("a line of log", || {
            std::fs::read_to_string(&log).ok()?.lines().nth(round).map(str::to_owned)
        })
        .await;
        // HAProxy's client spoke to HAProxy's port, not to the listener's.
        assert_eq!(line.split(' ').nth(1), Some(&*front.to_string()), "{option}: {line}");
        assert_eq!(line.split(' ').nth(2), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn the_header_decides_where_a_request_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let app = App::start("app").await;
    let proxy = plain(snapshot(vec![behind_a_proxy(&log, false)], vec![cluster(CLUSTER, &[app.address])]));
    let listener = address(&proxy, "in").await;
    let request = "GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n";
    // In one piece, and byte by byte.
    for pieces in [1, 200] {
        let mut stream = TcpStream::connect(listener).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let bytes = format!("PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n{request}").into_bytes();
        for piece in bytes.chunks(bytes.len().div_ceil(pieces)) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for (_, headers, _) in app.requests() {
        assert_eq!(headers["x-forwarded-for"], "203.0.113.7");
    }
    let text = until("two lines of log", || {
        std::fs::read_to_string(&log).ok().filter(|text| text.lines().count() == 2)
    })
    .await;
    assert_eq!(text.lines().next(), Some("203.0.113.7:4711 198.51.100.1:80 127.0.0.1"));
}

#[tokio::test]
async fn without_a_proper_header_nothing_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::start("app").await;
    for optional in [false, true] {
        let listener = behind_a_proxy(&dir.path().join("access.log"), optional);
        let proxy = plain(snapshot(vec![listener], vec![cluster(CLUSTER, &[app.address])]));
        let listener = address(&proxy, "in").await;
        let request = "GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n";
        for (header, served) in
            [("", optional), ("PROXY TCP4 203.0.113.7 1.1.1.1 4711\r\n", false), ("PROXY UNKNOWN\r\n", true)]
        {
            let mut stream = TcpStream::connect(listener).await.unwrap();
            stream.write_all(format!("{header}{request}").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A refused connection may be reset.
            let _ = stream.read_to_end(&mut answer).await;
            assert_eq!(answer.starts_with(b"HTTP/1.1 200"), served, "{optional} {header:?}");
            assert!(served || answer.is_empty());
        }
    }
}
