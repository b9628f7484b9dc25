//! Sidecars under test, a mesh authority, and a plain HTTP client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base_tls::{CertificateAuthority, LeafProfile, Material, Roots, Rotating};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sidecar_model::Snapshot;
use sidecar_telemetry::{Metrics, Workload};
use tokio::net::TcpStream;

use crate::{Node, NodeKind, Options, Proxy};

/// A certificate authority for both sidecars of a test.
pub(crate) struct Mesh(CertificateAuthority);

impl Mesh {
    pub(crate) fn new() -> Self {
        Self(CertificateAuthority::generate("mesh", "test", Duration::from_secs(3600)).unwrap())
    }

    /// The identity of a service account.
    pub(crate) fn identity(&self, account: &str) -> Rotating {
        Rotating::new(self.material(account))
    }

    /// A fresh certificate of a service account.
    pub(crate) fn material(&self, account: &str) -> Material {
        let profile = LeafProfile {
            spiffe_id: Some(spiffe(account).parse().unwrap()),
            server: true,
            client: true,
            lifetime: Duration::from_secs(600),
            ..LeafProfile::default()
        };
        let issued = self.0.issue(&profile).unwrap();
        let roots = Roots::from_pem(self.0.certificate_pem()).unwrap();
        Material::from_pem(&issued.chain_pem, &issued.key_pem, Some(roots)).unwrap()
    }
}

pub(crate) fn spiffe(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

/// A sidecar with one worker.
pub(crate) fn sidecar(account: &str, identity: Rotating, snapshot: Snapshot) -> Proxy {
    let workload = Workload {
        name: format!("{account}-v1").into(),
        namespace: "default".into(),
        canonical_name: account.into(),
        canonical_revision: "v1".into(),
        app: account.into(),
        version: "v1".into(),
        cluster: "Kubernetes".into(),
    };
    let id = format!("sidecar~127.0.0.1~{account}.default~default.svc.cluster.local");
    let node = Node::new(NodeKind::Sidecar, &id, workload, Vec::new(), "host")
        .described(&format!("{account}.default"), []);
    let proxy = Proxy::start(Options {
        workers: 1,
        node,
        identity,
        metrics: Metrics::default(),
        inherited: Vec::new(),
    })
    .unwrap();
    proxy.apply(Arc::new(snapshot));
    proxy
}

/// A sidecar without a certificate.
pub(crate) fn plain(snapshot: Snapshot) -> Proxy {
    sidecar("plain", Rotating::empty(), snapshot)
}

/// Waits until `ready` gives something.
pub(crate) async fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "timeout: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The address of a listener, once it is open.
pub(crate) async fn address(proxy: &Proxy, listener: &str) -> SocketAddr {
    until("listener", || proxy.bound().get(listener).and_then(|all| all.first().copied())).await
}

/// One HTTP/1.1 connection of a client.
pub(crate) struct Client(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            // The client of a test may be dropped at any time.
            let _ = connection.with_upgrades().await;
        });
        Self(send)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.0.ready().await.unwrap();
        self.0.send_request(request).await.unwrap()
    }

    /// Sends a request and reads the whole answer; none when the connection is closed instead.
    pub(crate) async fn try_text(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Option<(u16, String, http::HeaderMap)> {
        self.0.ready().await.ok()?;
        let (parts, body) = self.0.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some((parts.status.as_u16(), String::from_utf8_lossy(&body).into_owned(), parts.headers))
    }

    /// Whether the connection is closed by now.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request and reads the whole answer: status, body, headers.
    pub(crate) async fn text(&mut self, request: Request<Full<Bytes>>) -> (u16, String, http::HeaderMap) {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap(), parts.headers)
    }
}

/// One HTTP/2 connection of a client, by prior knowledge.
pub(crate) async fn http2(
    address: SocketAddr,
) -> hyper::client::conn::http2::SendRequest<
    http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>,
> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    send
}

/// A request for a path.
pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(path).header("host", "reviews:9080").body(Full::default()).unwrap()
}

/// A request with one more header.
pub(crate) fn with(
    mut request: Request<Full<Bytes>>,
    name: &'static str,
    value: &str,
) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// A POST with a body.
pub(crate) fn post(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method("POST").uri(path).header("host", "reviews:9080").body(Full::from(body)).unwrap()
}

/// The metrics of a sidecar.
pub(crate) fn metrics(proxy: &Proxy) -> String {
    let mut text = String::new();
    proxy.shared().metrics.render(&mut text);
    text
}

/// The value of the only series of a family whose labels contain all of these.
pub(crate) fn sample(text: &str, family: &str, labels: &[&str]) -> Option<u64> {
    let matches = |line: &&str| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label))
    };
    let all: Vec<&str> = text.lines().filter(matches).collect();
    assert!(all.len() <= 1, "{all:#?}");
    all.first().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until so many requests with these labels are counted.
pub(crate) async fn counted(proxy: &Proxy, labels: &[&str], count: u64) {
    until("requests counted", || {
        sample(&metrics(proxy), "istio_requests_total", labels).filter(|is| *is == count)
    })
    .await;
}
