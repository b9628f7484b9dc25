//! Logs, exec, attach and port-forward: authorized here, done by the kubelet of the pod's node.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::{
    admission::{self, Attributes, Operation},
    authn::tokens::lookup,
    context::Context,
    error::{ApiError, ApiResult},
    object::{integer, items, name, text},
    outbound,
    request::RequestInfo,
    server::{Body, Reply},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a request is a stream in both directions.
pub(crate) fn is_stream(info: &RequestInfo) -> bool {
    info.is_resource
        && info.group.is_empty()
        && info.resource == "pods"
        && matches!(info.subresource.as_str(), "exec" | "attach" | "portforward")
}

/// A pod and where its kubelet listens.
struct Located {
    pod: Value,
    address: SocketAddr,
}

fn locate(ctx: &Context) -> ApiResult<Located> {
    let kind = ctx.kind()?;
    let pod_name = &ctx.info.name;
    let pod = lookup(&ctx.api, "pods", &ctx.info.namespace, pod_name)
        .ok_or_else(|| ApiError::not_found(&kind, pod_name))?;
    let node_name = text(&pod, "/spec/nodeName");
    if node_name.is_empty() {
        return Err(ApiError::bad_request(format!("pod {pod_name} does not have a host assigned")));
    }
    let node = lookup(&ctx.api, "nodes", "", node_name)
        .ok_or_else(|| ApiError::internal(format!("node {node_name:?} of pod {pod_name:?} is gone")))?;
    let ip = items(&node, "/status/addresses")
        .iter()
        .find(|a| a["type"] == "InternalIP")
        .map_or("", |a| text(a, "/address"));
    let ip = ip.parse().map_err(|_| ApiError::internal(format!("node {node_name:?} has no InternalIP")))?;
    let port =
        integer(&node, "/status/daemonEndpoints/kubeletEndpoint/Port").and_then(|p| u16::try_from(p).ok());
    Ok(Located { pod, address: SocketAddr::new(ip, port.filter(|p| *p > 0).unwrap_or(10250)) })
}

/// The container that is meant: the named one, the annotated one, or the only one.
fn container(ctx: &Context, pod: &Value) -> ApiResult<String> {
    let names = |list: &str| items(pod, list).iter().map(|c| text(c, "/name").to_owned()).collect::<Vec<_>>();
    let (main, init) = (names("/spec/containers"), names("/spec/initContainers"));
    if let Some(wanted) = ctx.query.get("container") {
        let known = main.iter().chain(&init).any(|c| c == wanted)
            || names("/spec/ephemeralContainers").iter().any(|c| c == wanted);
        if !known {
            return Err(ApiError::bad_request(format!(
                "container {wanted} is not valid for pod {}",
                name(pod)
            )));
        }
        return Ok(wanted.to_owned());
    }
    let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    if let Some(annotated) = annotated.filter(|wanted| main.iter().any(|c| c == wanted)) {
        return Ok(annotated.to_owned());
    }
    match main.as_slice() {
        [only] => Ok(only.clone()),
        _ => {
            let init = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]{init}",
                name(pod),
                main.join(" ")
            )))
        }
    }
}

/// The request's query without the parameter that became part of the path.
fn query_without(raw: &str, dropped: &str) -> String {
    let kept: Vec<&str> =
        raw.split('&').filter(|p| !p.is_empty() && p.split('=').next() != Some(dropped)).collect();
    kept.join("&")
}

/// Handles `/log`: the kubelet's answer is passed on as it comes.
///
/// # Errors
/// 400, 404, and 500 when the kubelet cannot be reached.
pub(crate) async fn logs(ctx: &Context) -> ApiResult<Reply> {
    let located = locate(ctx)?;
    let container = container(ctx, &located.pod)?;
    let query = query_without(&ctx.raw_query, "container");
    let path = format!("/containerLogs/{}/{}/{container}?{query}", ctx.info.namespace, ctx.info.name);
    let request =
        Request::get(path).header(header::HOST, located.address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let io = dial(ctx, located.address).await?;
    let (mut sender, connection) =
        http1::handshake(io).await.map_err(|error| ApiError::internal(error.to_string()))?;
    let shutdown = ctx.api.shutdown.clone();
    ctx.api.tasks.spawn(shutdown.run_until_cancelled_owned(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Log connection ended");
        }
    }));
    let response =
        sender.send_request(request).await.map_err(|error| ApiError::internal(error.to_string()))?;
    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        let text = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Err(ApiError::bad_request(String::from_utf8_lossy(&text).trim().to_owned()));
    }
    let body = StreamBody::new(
        body.into_data_stream().map_ok(hyper::body::Frame::data).map_err(std::io::Error::other),
    );
    let mut response = Response::new(body.boxed_unsync());
    let plain = HeaderValue::from_static("text/plain");
    let kind = parts.headers.get(header::CONTENT_TYPE).cloned().unwrap_or(plain);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(Reply::raw(response))
}

async fn dial(
    ctx: &Context,
    address: SocketAddr,
) -> ApiResult<TokioIo<base_tls::TlsStream<tokio::net::TcpStream>>> {
    let server_name = address.ip().to_string();
    let work = outbound::connect(&ctx.api, &ctx.api.kubelet_client, address, &server_name);
    match tokio::time::timeout(CONNECT_TIMEOUT, work).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(why)) => Err(ApiError::internal(format!("error dialing backend: {why}"))),
        Err(_) => Err(ApiError::internal(format!("error dialing backend: {address} does not answer"))),
    }
}

/// Handles exec, attach and port-forward: the upgrade request goes to the kubelet as it is, and after its 101 raw bytes go both ways.
///
/// # Errors
/// 400 without an upgrade, 404, what admission refuses, 500 when the kubelet cannot be reached.
pub(crate) async fn connect(ctx: &Context, mut request: Request<Incoming>) -> ApiResult<Reply> {
    let located = locate(ctx)?;
    let kind = ctx.kind()?;
    let attributes = Attributes {
        kind: &kind,
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        subresource: &ctx.info.subresource,
        operation: Operation::Connect,
    };
    admission::validate(ctx, &attributes, &Value::Null, None).await?;
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(ApiError::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr and upgrade the connection",
        ));
    }
    let path = kubelet_path(ctx, &located.pod)?;
    let io = dial(ctx, located.address).await?;
    let (mut sender, connection) =
        http1::handshake(io).await.map_err(|error| ApiError::internal(error.to_string()))?;
    ctx.api.tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "Kubelet connection ended");
        }
    });
    let mut forwarded = Request::builder().method(request.method().clone()).uri(path);
    for (key, value) in request.headers() {
        if key != header::HOST && key != header::AUTHORIZATION && !key.as_str().starts_with("impersonate-") {
            forwarded = forwarded.header(key, value);
        }
    }
    let forwarded = forwarded.header(header::HOST, located.address.to_string()).body(Empty::<Bytes>::new());
    let forwarded = forwarded.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let response =
        sender.send_request(forwarded).await.map_err(|error| ApiError::internal(error.to_string()))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(response).await;
    }
    let mut switched = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = response.headers().clone();
    let client = hyper::upgrade::on(&mut request);
    ctx.api.tasks.spawn(pipe(client, hyper::upgrade::on(response), Arc::clone(&ctx.api)));
    Ok(Reply::raw(switched))
}

fn kubelet_path(ctx: &Context, pod: &Value) -> ApiResult<String> {
    let (namespace, pod_name) = (&ctx.info.namespace, &ctx.info.name);
    if ctx.info.subresource == "portforward" {
        return Ok(format!("/portForward/{namespace}/{pod_name}?{}", ctx.raw_query));
    }
    let container = container(ctx, pod)?;
    // The kubelet's parameters are called input, output, error; the API's stdin, stdout, stderr.
    let query = query_without(&ctx.raw_query, "container")
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some(("stdin", value)) => format!("input={}", truth(value)),
            Some(("stdout", value)) => format!("output={}", truth(value)),
            Some(("stderr", value)) => format!("error={}", truth(value)),
            Some(("tty", value)) => format!("tty={}", truth(value)),
            _ => pair.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("&");
    Ok(format!("/{}/{namespace}/{pod_name}/{container}?{query}", ctx.info.subresource))
}

fn truth(value: &str) -> &'static str {
    if matches!(value, "true" | "1") { "1" } else { "0" }
}

async fn refused(response: Response<Incoming>) -> ApiResult<Reply> {
    let (parts, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, 64 * 1024).collect().await;
    let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Body = http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    Ok(Reply::raw(response))
}

/// Copies both ways until either side ends or the server stops.
async fn pipe(
    client: hyper::upgrade::OnUpgrade,
    kubelet: hyper::upgrade::OnUpgrade,
    api: Arc<crate::api::Api>,
) {
    let (client, kubelet) = match tokio::try_join!(client, kubelet) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "Upgrade failed"),
    };
    let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut kubelet) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "Stream ended");
            }
        }
        () = api.shutdown.cancelled() => {}
    }
}
