//! The kubelet's own API on port 10250: logs, exec, attach, port-forward, metrics, pods.
//!
//! Every caller shows a client certificate of an administrator of kubelets; the API server is the usual one.

mod exec;
mod follow;
mod logs;
mod metrics;
mod port_forward;
mod query;
mod spdy;
mod stats;
mod websocket;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base_tls::{ClientAuth, PeerCertificate, Rotating, Server};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::query::Query;
use crate::node::{Node, PodEntry};

/// Connections served at a time; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 512;
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Wait after the system refused to accept (out of descriptors): accepting at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Groups whose members may use the kubelet's API.
const GROUPS: [&str; 2] = ["system:masters", "system:kubelet-api-admin"];

/// Body of an answer: a text, or a stream that ends with the connection or the container.
type Body = BoxBody<Bytes, Infallible>;
type Answer = Response<Body>;

/// What every request may need.
struct Api {
    node: Arc<Node>,
    samples: stats::Samples,
    shutdown: CancellationToken,
}

/// A request that cannot be served.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

/// Serves until `shutdown`.
pub(crate) async fn run(
    node: Arc<Node>,
    listener: TcpListener,
    serving: Rotating,
    shutdown: CancellationToken,
) {
    let tls = Server::new(&serving, ClientAuth::Required, &[b"http/1.1"]);
    let api = Arc::new(Api { node, samples: stats::Samples::default(), shutdown: shutdown.clone() });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let (api, tls) = (api.clone(), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            serve(api, tls, stream).await;
        });
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "Connection not accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve(api: Arc<Api>, tls: Server, stream: TcpStream) {
    // Small writes of an interactive session must not wait for each other; without it they only come later.
    let _delayed = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(error = %base_types::ErrorChain(&error), "Kubelet client refused");
            return;
        }
        Err(_) => return,
    };
    let allowed = stream.peer().is_some_and(|peer| may_ask(peer));
    let shutdown = api.shutdown.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let api = api.clone();
        async move {
            let answer = if allowed {
                route(api, request).await
            } else {
                Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "the client certificate names no administrator of kubelets",
                ))
            };
            Ok::<_, Infallible>(answer.unwrap_or_else(Refusal::answer))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(error = %base_types::ErrorChain(&error), "Kubelet connection ended");
        }
    }
}

fn may_ask(peer: &PeerCertificate) -> bool {
    peer.organizations.iter().any(|group| GROUPS.contains(&group.as_str()))
}

async fn route(api: Arc<Api>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
    }
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Ok(text("ok")),
        ["pods" | "runningpods"] => Ok(pods(&api)),
        ["metrics"] => Ok(text(metrics::own(&api.node))),
        ["metrics", "cadvisor"] => Ok(text(metrics::cadvisor(&api.node).await)),
        ["metrics", "resource"] => Ok(text(metrics::resource(&api.node).await)),
        ["metrics", "probes"] => Ok(text(String::new())),
        ["stats", "summary"] => Ok(object(&stats::summary(&api.node, &api.samples).await)),
        ["containerLogs", namespace, pod, container] => {
            let found = find(&api, namespace, pod, None)?;
            logs::stream(&api, found, container, &query)
        }
        ["exec", namespace, pod, rest @ ..] => {
            let (uid, container) = uid_and_container(rest)?;
            exec::exec(&api, find(&api, namespace, pod, uid)?, container, &query, request)
        }
        ["attach", namespace, pod, rest @ ..] => {
            let (uid, container) = uid_and_container(rest)?;
            exec::attach(&api, find(&api, namespace, pod, uid)?, container, &query, request)
        }
        ["portForward", namespace, pod, rest @ ..] => {
            port_forward::start(&api, &find(&api, namespace, pod, rest.first().copied())?, &query, request)
        }
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found")),
    }
}

/// The last one or two segments of a path to a container: `[uid/]container`.
fn uid_and_container<'a>(rest: &[&'a str]) -> Result<(Option<&'a str>, &'a str), Refusal> {
    match rest {
        [container] => Ok((None, container)),
        [uid, container] => Ok((Some(uid), container)),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found")),
    }
}

fn find(api: &Api, namespace: &str, name: &str, uid: Option<&str>) -> Result<PodEntry, Refusal> {
    api.node
        .pods
        .find(namespace, name)
        .filter(|entry| uid.is_none_or(|uid| crate::pod::uid(&entry.pod) == uid))
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("pod {name}_{namespace} not found")))
}

fn pods(api: &Api) -> Answer {
    let items: Vec<_> = api.node.pods.all().into_iter().map(|entry| entry.pod).collect();
    object(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// A plain text.
fn text(body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed());
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

fn object(value: &serde_json::Value) -> Answer {
    let mut answer = text(value.to_string());
    let kind = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    answer
}

// === impl Refusal ===

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn answer(self) -> Answer {
        let mut answer = text(self.message);
        *answer.status_mut() = self.status;
        answer
    }
}
