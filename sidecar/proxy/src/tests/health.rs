//! Active health checks over sockets: endpoints that fail get nothing, those that pass again do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use sidecar_model::HealthCheck;
use sidecar_model::health_check::{HttpProbe, Probe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::build::{cluster, route};
use super::forwarding::proxy;
use super::rig::{get, until};

/// A server that answers `/healthz` with what it is told, and everything else with 200.
#[derive(Clone)]
struct Patient {
    address: SocketAddr,
    health: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

impl Patient {
    async fn start(health: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let patient = Self {
            address: listener.local_addr().unwrap(),
            health: Arc::new(health.into()),
            checks: Arc::default(),
            served: Arc::default(),
        };
        let serving = patient.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let patient = serving.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        let status = patient.status(&String::from_utf8_lossy(&head));
                        head.clear();
                        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        patient
    }

    fn status(&self, head: &str) -> u16 {
        if !head.starts_with("GET /healthz ") {
            self.served.fetch_add(1, SeqCst);
            return 200;
        }
        assert!(head.contains("host: patients") && head.contains("user-agent: Envoy/HC"), "{head}");
        self.checks.fetch_add(1, SeqCst);
        self.health.load(SeqCst)
    }
}

fn check(probe: Probe) -> HealthCheck {
    let often = Duration::from_millis(20);
    HealthCheck {
        probe,
        timeout: Duration::from_secs(1),
        interval: often,
        initial_jitter: Duration::ZERO,
        interval_jitter: Duration::ZERO,
        interval_jitter_percent: 0,
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        alt_port: None,
        no_traffic_interval: often,
        no_traffic_healthy_interval: often,
        unhealthy_interval: often,
        unhealthy_edge_interval: often,
        healthy_edge_interval: often,
        logs_failures: false,
    }
}

fn http() -> Probe {
    Probe::Http(HttpProbe {
        host: "patients".into(),
        path: "/healthz".into(),
        method: http::Method::GET,
        headers: vec![],
        expected: vec![(200, 201)],
        retriable: vec![],
        http2: false,
    })
}

#[tokio::test]
async fn the_sick_get_nothing_until_they_are_well() {
    let (well, sick) = (Patient::start(200).await, Patient::start(503).await);
    let mut both = cluster("c", &[well.address, sick.address]);
    both.health_checks = vec![check(http())];
    both.locality_lb.healthy_panic_percent = 0;
    let (proxy, mut client) = proxy(vec![route("c")], vec![both]).await;
    let text = || crate::stats::clusters(proxy.shared());
    let flags = |patient: &Patient, flag: &str| {
        text().contains(&format!("c::{}::health_flags::{flag}\n", patient.address))
    };
    until("verdicts", || {
        (flags(&well, "healthy") && flags(&sick, "/failed_active_hc") && sick.checks.load(SeqCst) > 0)
            .then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(client.text(get("/x")).await.0, 200);
    }
    assert_eq!((well.served.load(SeqCst), sick.served.load(SeqCst)), (20, 0));
    sick.health.store(200, SeqCst);
    until("recovery", || flags(&sick, "healthy").then_some(())).await;
    for _ in 0..20 {
        assert_eq!(client.text(get("/x")).await.0, 200);
    }
    assert_eq!((well.served.load(SeqCst), sick.served.load(SeqCst)), (30, 10));
    well.health.store(500, SeqCst);
    sick.health.store(500, SeqCst);
    until("nobody is well", || {
        (flags(&well, "/failed_active_hc") && flags(&sick, "/failed_active_hc")).then_some(())
    })
    .await;
    let (status, body, _) = client.text(get("/x")).await;
    assert_eq!((status, &*body), (503, "no healthy upstream"));
}

#[tokio::test]
async fn a_closed_port_fails_a_tcp_check() {
    let open = Patient::start(200).await;
    let mut both = cluster("c", &[open.address, "127.0.0.1:1".parse().unwrap()]);
    both.health_checks = vec![check(Probe::Tcp { send: vec![], receive: vec![] })];
    let (proxy, mut client) = proxy(vec![route("c")], vec![both]).await;
    let line = format!("c::{}::health_flags::healthy\n", open.address);
    until("a verdict", || crate::stats::clusters(proxy.shared()).contains(&line).then_some(())).await;
    for _ in 0..10 {
        assert_eq!(client.text(get("/x")).await.0, 200);
    }
    assert_eq!(open.served.load(SeqCst), 10);
}
