//! `pods/<name>[:<port>]/proxy/<path>`: an authorized request is passed on to the pod's own address.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::{
    authn::tokens::lookup,
    context::Context,
    error::{ApiError, ApiResult},
    object::{integer, items, text},
    server::Reply,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that speak of one connection only (RFC 9110, 7.6.1), or prove the caller to this server.
const NOT_PASSED_ON: [HeaderName; 7] = [
    header::HOST,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::ACCEPT_ENCODING,
];

/// Passes the request on.
///
/// # Errors
/// 404 without the pod, 400 for a name that is not `[http:]<pod>[:<port>]`, 503-like internal errors when the pod does not answer.
pub(crate) async fn forward(ctx: &Context) -> ApiResult<Reply> {
    let address = address(ctx)?;
    let unreachable = |why: &dyn std::fmt::Display| {
        ApiError::internal(format!("error trying to reach service: dial tcp {address}: {why}"))
    };
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, ctx.api.dialer.dial(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&"i/o timeout")),
    };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    let shutdown = ctx.api.shutdown.clone();
    ctx.api.tasks.spawn(shutdown.run_until_cancelled_owned(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Proxied connection ended");
        }
    }));
    let query = if ctx.raw_query.is_empty() { String::new() } else { format!("?{}", ctx.raw_query) };
    let mut request = Request::builder().method(ctx.method.clone()).uri(format!("/{}{query}", ctx.info.rest));
    for (key, value) in ctx.headers.iter().filter(|(key, _)| !NOT_PASSED_ON.contains(key)) {
        request = request.header(key, value);
    }
    let request =
        request.header(header::HOST, address.to_string()).body(Full::<Bytes>::new(ctx.body.clone()));
    let request = request.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let (mut parts, body) =
        sender.send_request(request).await.map_err(|error| unreachable(&error))?.into_parts();
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    let frames = futures::TryStreamExt::map_ok(body.into_data_stream(), hyper::body::Frame::data);
    let body = StreamBody::new(futures::TryStreamExt::map_err(frames, std::io::Error::other));
    Ok(Reply::raw(Response::from_parts(parts, body.boxed_unsync())))
}

/// Where the pod listens: the named port, or the first that a container declares.
fn address(ctx: &Context) -> ApiResult<SocketAddr> {
    let wanted = ctx.info.name.strip_prefix("http:").unwrap_or(&ctx.info.name);
    let (pod_name, port) = wanted.split_once(':').unwrap_or((wanted, ""));
    let kind = ctx.kind()?;
    let pod = lookup(&ctx.api, "pods", &ctx.info.namespace, pod_name)
        .ok_or_else(|| ApiError::not_found(&kind, pod_name))?;
    let ip = text(&pod, "/status/podIP");
    let ip = ip.parse().map_err(|_| ApiError::bad_request(format!("pod {pod_name} has no address yet")))?;
    let declared = || {
        items(&pod, "/spec/containers")
            .iter()
            .find_map(|c| integer(c, "/ports/0/containerPort"))
            .and_then(|p| u16::try_from(p).ok())
    };
    let port = match port {
        "" => declared().unwrap_or(80),
        number => number.parse().map_err(|_| ApiError::bad_request(format!("`{number}` is not a port")))?,
    };
    Ok(SocketAddr::new(ip, port))
}
