//! Active health checks: one checker for the whole process, on the first worker. What it finds is in the endpoints' shared states, which
//! every worker reads without a lock.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::Body as _;
use sidecar_balance::{Host, HostState};
use sidecar_http::h1::ClientConnection;
use sidecar_http::{Body, BoxIo, Limits, h2};
use sidecar_model::health_check::{Finding, HttpProbe, Probe, Verdict};
use sidecar_model::{Address, Cluster};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use crate::config::ClusterPlan;
use crate::pool::{Protocol, Target, connect};
use crate::proxy::Command;
use crate::target;
use crate::worker::Worker;

/// What Envoy's checks call themselves.
const USER_AGENT: &str = "Envoy/HC";
/// Bytes of an answer that are looked at.
const ANSWER_MAX: usize = 16 * 1024;

/// The task that checks one endpoint.
struct Checked {
    task: JoinHandle<()>,
    cluster: Arc<Cluster>,
    state: Arc<HostState>,
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Checks for as long as the worker lives.
pub(crate) async fn run(worker: Rc<Worker>, mut commands: watch::Receiver<Command>) {
    let mut running: HashMap<(Arc<str>, Address), Checked> = HashMap::new();
    loop {
        commands.borrow_and_update();
        let config = worker.shared.config.load_full();
        running.retain(|(name, address), checked| {
            let plan = config.clusters.get(name).filter(|plan| Arc::ptr_eq(&plan.cluster, &checked.cluster));
            plan.is_some_and(|plan| {
                let same = |host: &Host| Arc::ptr_eq(&host.state, &checked.state);
                plan.balancer.hosts().iter().any(|host| host.endpoint.address == *address && same(host))
            })
        });
        for (name, plan) in config.clusters.iter().filter(|(_, plan)| !plan.cluster.health_checks.is_empty())
        {
            for host in plan.balancer.hosts() {
                let key = (Arc::clone(name), host.endpoint.address.clone());
                running.entry(key).or_insert_with(|| Checked {
                    task: spawn_local(check(Rc::clone(&worker), Arc::clone(plan), host.clone())),
                    cluster: Arc::clone(&plan.cluster),
                    state: Arc::clone(&host.state),
                });
            }
        }
        drop(config);
        if commands.changed().await.is_err() {
            return;
        }
    }
}

/// Checks one endpoint again and again.
async fn check(worker: Rc<Worker>, plan: Arc<ClusterPlan>, host: Host) {
    let Some(rules) = plan.cluster.health_checks.first() else { return };
    let Some(mut target) = target::of_host(&plan, &host) else { return };
    if let Some(port) = rules.alt_port {
        target.address.set_port(port);
    }
    let random = || worker.random() as f64 / u64::MAX as f64;
    sleep(rules.initial_jitter.mul_f64(random())).await;
    let mut verdict = Verdict::default();
    loop {
        let found = timeout(rules.timeout, probe(&worker, &target, &host, &rules.probe)).await;
        let finding = found.unwrap_or(Finding::Bad);
        let changed = verdict.add(rules, finding);
        if changed {
            settle(&worker, &plan, &host, verdict);
        } else if rules.logs_failures && finding != Finding::Good {
            tracing::info!(cluster = %plan.cluster.name, endpoint = %host.endpoint.address, "Health check failed");
        }
        let has_traffic = plan.usage.totals.upstream_cx_total.load(Relaxed) > 0;
        sleep(rules.pause(verdict, changed, has_traffic, random())).await;
    }
}

/// Lets everybody know a new verdict.
fn settle(worker: &Worker, plan: &ClusterPlan, host: &Host, verdict: Verdict) {
    let failed = verdict.failed == Some(true);
    host.state.set_failed_check(failed, worker.shared.now_ms());
    if !failed && plan.cluster.outlier.as_ref().is_some_and(|rules| rules.successful_check_unejects) {
        host.state.uneject();
    }
    // The balancer in force may be a newer one with the same states.
    if let Some(plan) = worker.shared.config.load().clusters.get(&plan.cluster.name) {
        plan.balancer.refresh();
    }
    let (cluster, endpoint) = (&plan.cluster.name, &host.endpoint.address);
    if failed {
        tracing::warn!(%cluster, %endpoint, "Endpoint fails its health check");
    } else {
        tracing::info!(%cluster, %endpoint, "Endpoint passes its health check");
    }
}

async fn probe(worker: &Worker, target: &Target, host: &Host, probe: &Probe) -> Finding {
    let found = match probe {
        Probe::Http(probe) => http(worker, target, host, probe).await,
        Probe::Tcp { send, receive } => tcp(worker, target, send, receive).await,
        Probe::Grpc { service, authority, headers } => {
            grpc(worker, target, service, authority, headers).await
        }
    };
    found.unwrap_or(Finding::Bad)
}

async fn open(worker: &Worker, target: &Target, protocol: Protocol) -> Option<BoxIo> {
    match connect(worker, target, protocol).await {
        Ok(connected) => Some(connected.io),
        Err(error) => {
            tracing::debug!(?error, address = %target.address, "Health check cannot connect");
            None
        }
    }
}

async fn tcp(worker: &Worker, target: &Target, send: &[u8], receive: &[Vec<u8>]) -> Option<Finding> {
    let mut io = open(worker, target, Protocol::Tcp).await?;
    io.write_all(send).await.ok()?;
    let mut received = Vec::new();
    while !in_order(&received, receive) {
        if received.len() >= ANSWER_MAX || io.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    }
    Some(Finding::Good)
}

/// Whether the pieces occur one behind the other, with anything between them.
fn in_order(mut received: &[u8], pieces: &[Vec<u8>]) -> bool {
    pieces.iter().filter(|piece| !piece.is_empty()).all(|piece| {
        let at = received.windows(piece.len()).position(|window| window == piece.as_slice());
        received = at.map_or(&[][..], |at| &received[at + piece.len()..]);
        at.is_some()
    })
}

fn head(method: &Method, path: &str, authority: &str, headers: &[(Box<str>, Box<str>)]) -> Option<Parts> {
    let request = Request::builder().method(method).uri(path).header(header::USER_AGENT, USER_AGENT);
    let (mut parts, ()) = request.header(header::HOST, authority).body(()).ok()?.into_parts();
    for (name, value) in headers {
        parts.headers.append(HeaderName::try_from(&**name).ok()?, HeaderValue::from_str(value).ok()?);
    }
    Some(parts)
}

async fn http(worker: &Worker, target: &Target, host: &Host, probe: &HttpProbe) -> Option<Finding> {
    let authority = [&probe.host, &host.endpoint.hostname].into_iter().find(|name| !name.is_empty());
    let authority = authority.map_or(&*target.plan.cluster.name, |name| name);
    let parts = head(&probe.method, &probe.path, authority, &probe.headers)?;
    let protocol = if probe.http2 { Protocol::Http2 } else { Protocol::Http1 };
    let io = open(worker, target, protocol).await?;
    let limits = Rc::new(Limits::default());
    let response = if probe.http2 {
        let client = h2::Client::connect(io, &limits).await.ok()?;
        client.send(&parts, Body::empty(), target.tls.is_some()).await.ok()?
    } else {
        ClientConnection::new(io, limits).send(&parts, Body::empty(), None).await.ok()?
    };
    Some(probe.finding(response.status().as_u16()))
}

async fn grpc(
    worker: &Worker,
    target: &Target,
    service: &str,
    authority: &str,
    headers: &[(Box<str>, Box<str>)],
) -> Option<Finding> {
    let authority = if authority.is_empty() { &*target.plan.cluster.name } else { authority };
    let mut parts = head(&Method::POST, "/grpc.health.v1.Health/Check", authority, headers)?;
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let io = open(worker, target, Protocol::Http2).await?;
    let client = h2::Client::connect(io, &Limits::default()).await.ok()?;
    let body = Body::full(Bytes::from(question(service)?));
    let response = client.send(&parts, body, target.tls.is_some()).await.ok()?;
    serving(response).await
}

/// `HealthCheckRequest { service = 1 }` behind gRPC's prefix.
fn question(service: &str) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Lengths of one byte are enough for names.
        message.extend([0x0a, u8::try_from(service.len()).ok().filter(|length| *length < 0x80)?]);
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).ok()?.to_be_bytes());
    framed.extend(message);
    Some(framed)
}

/// Whether the answer is `HealthCheckResponse { status = 1: SERVING }`.
async fn serving(response: Response<Body>) -> Option<Finding> {
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            answer.extend_from_slice(&data);
            if answer.len() > ANSWER_MAX {
                return None;
            }
        }
    }
    (answer == [0, 0, 0, 0, 2, 0x08, 0x01]).then_some(Finding::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_must_come_in_order() {
        let pieces = |all: &[&str]| all.iter().map(|piece| piece.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(in_order(b"+PONG..OK", &pieces(&["PONG", "OK"])));
        assert!(!in_order(b"OK..PONG", &pieces(&["PONG", "OK"])));
        assert!(!in_order(b"PON", &pieces(&["PONG"])));
        assert!(in_order(b"", &[]));
    }

    #[test]
    fn a_question_has_grpcs_form() {
        assert_eq!(question("").unwrap(), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B").unwrap(), b"\0\0\0\0\x05\x0a\x03a.B");
        assert!(question(&"x".repeat(200)).is_none());
    }
}
