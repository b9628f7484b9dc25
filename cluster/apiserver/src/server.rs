//! Sockets, TLS, HTTP: accepting connections, reading requests, writing replies.

pub(crate) mod paths;
pub(crate) mod reply;

use std::{convert::Infallible, sync::Arc, time::Duration};

use base_tls::Server;
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};

pub(crate) use reply::{Body, Reply};

use crate::{
    api::Api,
    authn::{self, User},
    authz,
    context::Context,
    error::{ApiError, ApiResult},
    kubelet, registry,
    request::{Query, RequestInfo},
};

/// The largest request body (Kubernetes: 3 MiB).
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// How much of a larger one is read before the connection is given up.
const DISCARDED_BYTES_MAX: usize = 64 * 1024 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one request that is not a stream may take (Kubernetes: 60 s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long open requests may go on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(3);
/// Connections served at once.
const CONNECTIONS_MAX: usize = 4096;

/// Accepts connections until shutdown.
pub(crate) async fn accept(api: Arc<Api>, listener: TcpListener, tls: Server) {
    let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = api.shutdown.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (connection, tls) = (Arc::clone(&api), tls.clone());
                api.tasks.spawn(async move {
                    serve(connection, stream, tls).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors: accepting goes on when some are free.
                tracing::warn!(%error, "API server cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(api: Arc<Api>, stream: TcpStream, tls: Server) {
    // Small frames of watches must not wait for acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(error = %base_types::ErrorChain(&error), "TLS handshake failed");
        }
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let user = stream.peer().map(|peer| Arc::new(User::from_certificate(peer)));
    let shutdown = api.shutdown.clone();
    let service = hyper::service::service_fn(move |request| {
        let (api, user) = (Arc::clone(&api), user.clone());
        async move { Ok::<_, Infallible>(answer(api, user, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(300));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .initial_stream_window_size(256 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "Connection ended");
    }
}

/// Answers one request; refusals become Status objects.
async fn answer(api: Arc<Api>, user: Option<Arc<User>>, request: Request<Incoming>) -> Response<Body> {
    let started = std::time::Instant::now();
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let result = process(Arc::clone(&api), user, info.clone(), &query, request).await;
    let reply = result.unwrap_or_else(|error| Reply::from_error(&error));
    let (status, took) = (reply.status().as_u16(), started.elapsed());
    let served = api.kinds.load().find(&info.group, &info.version, &info.resource).is_some();
    api.metrics.finished(&info, served, status, took);
    tracing::debug!(verb = info.verb, path = info.path, status, micros = took.as_micros(), "Request");
    reply.into_response()
}

async fn process(
    api: Arc<Api>,
    user: Option<Arc<User>>,
    info: RequestInfo,
    query: &Query,
    request: Request<Incoming>,
) -> ApiResult<Reply> {
    let raw_query = request.uri().query().unwrap_or_default().to_owned();
    let user = authn::authenticate(&api, user, request.headers())?;
    let user = authz::impersonate(&api, user, request.headers())?;
    authz::check(&api, &user, &info)?;
    let method = request.method().clone();
    let headers = request.headers().clone();
    let mut ctx = Context::new(api, user, method, info, query.clone(), raw_query, headers)?;
    if kubelet::is_stream(&ctx.info) {
        return kubelet::connect(&ctx, request).await;
    }
    ctx.body = match tokio::time::timeout(REQUEST_TIMEOUT, read_body(request.into_body())).await {
        Ok(body) => body?,
        Err(_) => return Err(ApiError::timeout("the body did not arrive in time")),
    };
    let ctx = Arc::new(ctx);
    let work = dispatch(Arc::clone(&ctx));
    let mut reply = match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
        Ok(result) => match result {
            Ok(reply) => reply,
            Err(error) => Reply::from_error(&error),
        },
        Err(_) => Reply::from_error(&ApiError::timeout("request did not complete within the allotted time")),
    };
    for warning in ctx.take_warnings() {
        reply.warn(&warning);
    }
    Ok(reply)
}

/// Reads a body. What is too large is read on and thrown away for a while, so that the client can hear why it is refused.
async fn read_body(mut body: Incoming) -> ApiResult<Bytes> {
    let mut read = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen > DISCARDED_BYTES_MAX {
            break;
        }
        if seen <= BODY_BYTES_MAX {
            read.extend_from_slice(&data);
        } else {
            read.clear();
        }
    }
    if seen > BODY_BYTES_MAX { Err(ApiError::too_large()) } else { Ok(read.freeze()) }
}

async fn dispatch(ctx: Arc<Context>) -> ApiResult<Reply> {
    if ctx.info.is_resource { registry::handle(&ctx).await } else { paths::handle(&ctx) }
}
