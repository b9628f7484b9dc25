//! The admin port of a real process, asked as Envoy's tools ask.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A sidecar without a control plane.
struct Sidecar {
    process: Child,
    admin: u16,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let sockets: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

impl Sidecar {
    fn start() -> Self {
        let [admin, status, health, metrics, nobody] = free_ports();
        let process = Command::new(env!("CARGO_BIN_EXE_sidecar"))
            .args(["proxy", "sidecar", "--state-dir", "/nonexistent"])
            .args(["--admin-port", &admin.to_string(), "--status-port", &status.to_string()])
            .args(["--health-port", &health.to_string(), "--metrics-port", &metrics.to_string()])
            .env("DISCOVERY_ADDRESS", format!("127.0.0.1:{nobody}"))
            .env("POD_NAME", "a-1")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sidecar = Self { process, admin };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, admin)).is_err() {
            assert!(Instant::now() < deadline, "the admin port does not open");
            std::thread::yield_now();
        }
        sidecar
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }
}

#[test]
fn the_admin_port_answers_as_envoys_does() {
    let sidecar = Sidecar::start();
    let dump = sidecar.json("/config_dump?include_eds");
    let kinds: Vec<&str> =
        dump["configs"].as_array().unwrap().iter().map(|one| one["@type"].as_str().unwrap()).collect();
    for kind in ["Bootstrap", "Clusters", "Endpoints", "Listeners", "Routes", "Secrets"] {
        let wanted = format!("type.googleapis.com/envoy.admin.v3.{kind}ConfigDump");
        assert!(kinds.contains(&wanted.as_str()), "{wanted} is missing in {kinds:?}");
    }
    assert_eq!(
        sidecar.json("/config_dump")["configs"].as_array().unwrap().len(),
        5,
        "endpoints only when asked for"
    );
    let bootstrap = sidecar.json("/config_dump?resource=bootstrap");
    assert!(bootstrap["configs"][0]["node"]["id"].as_str().unwrap().contains("a-1.default"), "{bootstrap}");
    for refused in [
        "/config_dump?mask=x",
        "/config_dump?resource=x",
        "/stats?filter=(",
        "/stats?format=x",
        "/clusters?format=x",
    ] {
        assert_eq!(sidecar.ask("GET", refused).0, 400, "{refused}");
    }
    assert_eq!(sidecar.json("/server_info")["state"], "PRE_INITIALIZING");
    assert!(sidecar.json("/memory")["allocated"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(sidecar.json("/certs")["certificates"].as_array().unwrap().is_empty());
    assert!(sidecar.json("/clusters?format=json")["cluster_statuses"].is_array());
    assert!(sidecar.json("/listeners?format=json")["listener_statuses"].is_array());
    let uptime = sidecar.json("/stats?format=json&filter=^server%5C.uptime$");
    assert_eq!(uptime["stats"].as_array().unwrap().len(), 1, "{uptime}");
    assert!(sidecar.ask("GET", "/stats/prometheus").1.contains("envoy_cluster_manager_active_clusters 0"));
    assert_eq!(sidecar.ask("GET", "/ready").0, 503);
    assert_eq!(sidecar.ask("GET", "/nothing").0, 404);
}

#[test]
fn what_changes_something_is_asked_by_post() {
    let mut sidecar = Sidecar::start();
    for path in ["/quitquitquit", "/drain_listeners", "/healthcheck/fail", "/healthcheck/ok", "/drain"] {
        let (status, body) = sidecar.ask("GET", path);
        assert_eq!(status, 405, "{path}: {body}");
    }
    assert_eq!(sidecar.ask("DELETE", "/stats").0, 405);
    assert!(sidecar.ask("GET", "/logging").1.contains("info"));
    assert_eq!(sidecar.ask("POST", "/logging?level=loud").0, 400);
    assert!(sidecar.ask("POST", "/logging?level=warning").1.contains("  warn\n"));
    let paths = sidecar.ask("POST", "/logging?paths=sidecar_proxy:debug,h2:off").1;
    assert!(paths.contains("sidecar_proxy: debug") && paths.contains("h2: off"), "{paths}");
    assert!(sidecar.ask("POST", "/logging?sidecar_proxy=trace").1.contains("sidecar_proxy: trace"));
    assert_eq!(sidecar.ask("POST", "/healthcheck/fail").0, 200);
    assert_eq!(sidecar.json("/server_info")["state"], "DRAINING");
    assert_eq!(sidecar.ask("POST", "/healthcheck/ok").0, 200);
    assert_eq!(sidecar.json("/server_info")["state"], "PRE_INITIALIZING");
    assert_eq!(sidecar.ask("POST", "/quitquitquit").0, 200);
    let deadline = Instant::now() + Duration::from_secs(20);
    while sidecar.process.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::yield_now();
    }
}
