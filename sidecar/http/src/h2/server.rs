//! The server end of an HTTP/2 connection: a task per stream.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use ::h2::ext::Protocol;
use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::{Pump, PumpError, RecvBody};
use super::flood::Watched;
use super::{PREFACE, join_cookies, strip_connection_headers};
use crate::body::{Body, BodyError};
use crate::date;
use crate::drain::DrainWatch;
use crate::duplex;
use crate::error::ParseError;
use crate::headers;
use crate::io::{BoxIo, Prefixed};
use crate::limits::Limits;
use crate::serve::{Abort, Handler, Outcome, Reply, Served};

/// Serves a connection until it ends; `prefix` is what was already read from it.
pub async fn serve<H: Handler + 'static>(
    io: BoxIo,
    prefix: BytesMut,
    limits: Rc<Limits>,
    drain: DrainWatch,
    handler: Rc<H>,
) -> Served {
    let io = Watched::new(Prefixed::new(prefix, io), PREFACE.len());
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_pending_resets)
        .max_local_error_reset_streams(Some(limits.h2_local_resets))
        .max_send_buffer_size(256 * 1024);
    if limits.h2_connect_protocol {
        builder.enable_connect_protocol();
    }
    let handshake = tokio::time::timeout(limits.head_timeout, builder.handshake::<_, Bytes>(io));
    let Ok(Ok(connection)) = handshake.await else { return Served::Failed };
    let active = Rc::new(Cell::new(0));
    Server { connection, limits, drain, handler, active, idle: None, ending: false }.run().await
}

struct Server<H> {
    connection: Connection<Watched, Bytes>,
    limits: Rc<Limits>,
    drain: DrainWatch,
    handler: Rc<H>,
    active: Rc<Cell<usize>>,
    idle: Option<Pin<Box<Sleep>>>,
    ending: bool,
}

impl<H: Handler + 'static> Server<H> {
    async fn run(mut self) -> Served {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                None => return Served::Closed,
                // A client that hears GOAWAY may hang up before all is said.
                Some(Err(_)) if self.ending => return Served::Closed,
                Some(Err(_)) => return Served::Failed,
                Some(Ok((request, respond))) => {
                    self.idle = None;
                    let stream = Stream {
                        handler: Rc::clone(&self.handler),
                        limits: Rc::clone(&self.limits),
                        _active: Guard::new(&self.active),
                    };
                    spawn_local(stream.run(request, respond));
                }
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the type of `h2::server::Connection::poll_accept`")]
    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(Request<RecvStream>, SendResponse<Bytes>), ::h2::Error>>> {
        if !self.ending && (self.drain.poll_draining(cx).is_ready() || self.poll_idle(cx).is_ready()) {
            self.ending = true;
            self.connection.graceful_shutdown();
        }
        self.connection.poll_accept(cx)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.limits.idle_timeout;
        let timer = self.idle.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        while timer.as_mut().poll(cx).is_ready() {
            if self.active.get() == 0 {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    }
}

/// Counts a stream while it lives.
struct Guard(Rc<Cell<usize>>);

impl Guard {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Stream<H> {
    handler: Rc<H>,
    limits: Rc<Limits>,
    _active: Guard,
}

impl<H: Handler> Stream<H> {
    async fn run(self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let head = *request.method() == Method::HEAD;
        let connect = *request.method() == Method::CONNECT;
        let mut request = match accept(request, &self.limits) {
            Ok(request) => request,
            Err(error) => {
                self.handler.refused(error);
                let mut response = Response::new(());
                *response.status_mut() = error.status();
                // The peer may have reset the stream meanwhile: then nobody waits for the answer.
                let _ = respond.send_response(response, true);
                return;
            }
        };
        // The body of a CONNECT is no body but the client's side of a stream.
        let client = connect.then(|| std::mem::take(request.body_mut()));
        let Some(reply) = unless_reset(self.handler.handle(request), &mut respond).await else { return };
        let Reply { mut response, finish, upgrade, .. } = reply;
        if let (Some(client), Some(upgrade)) = (client, upgrade) {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                *response.status_mut() = StatusCode::OK;
            }
            let (stream, body) = duplex::over_bodies(client);
            *response.body_mut() = body;
            spawn_local(upgrade(stream));
        }
        let outcome = send(response, head, &mut respond).await;
        if let Some(finish) = finish {
            finish.finish(outcome);
        }
    }
}

/// Brings a request into the form that HTTP/1.1 requests have: the target is a path, the authority stands in `host`.
fn accept(request: Request<RecvStream>, limits: &Limits) -> Result<Request<Body>, ParseError> {
    let (mut parts, stream) = request.into_parts();
    if parts.headers.len() > limits.header_count {
        return Err(ParseError::TooManyHeaders);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(ParseError::Host);
    }
    let authority = match parts.uri.authority() {
        Some(authority) => Some(HeaderValue::from_str(authority.as_str()).map_err(|_| ParseError::Host)?),
        None => None,
    };
    let host = match (authority, host) {
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(ParseError::Host);
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(ParseError::Host),
    };
    if !crate::h1::valid_host(host.as_bytes()) {
        return Err(ParseError::Host);
    }
    parts.headers.insert(header::HOST, host);
    if let Some(protocol) = parts.extensions.remove::<Protocol>() {
        // From here on it is what an HTTP/1.1 client would have asked for.
        let protocol = HeaderValue::from_str(protocol.as_str()).map_err(|_| ParseError::HeaderValue)?;
        parts.method = Method::GET;
        parts.headers.insert(header::UPGRADE, protocol);
    }
    if parts.method != Method::CONNECT {
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let whole_server = path.as_str() == "*" && parts.method == Method::OPTIONS;
        if !path.as_str().starts_with('/') && !whole_server {
            return Err(ParseError::Target);
        }
        parts.uri = Uri::from(path);
    }
    parts.version = Version::HTTP_2;
    parts.headers.remove(header::EXPECT);
    join_cookies(&mut parts.headers);
    let body = if stream.is_end_stream() {
        Body::empty()
    } else {
        let length = headers::content_length(&parts.headers);
        Body::h2(RecvBody::new(stream, length))
    };
    Ok(Request::from_parts(parts, body))
}

async fn unless_reset<F: Future>(work: F, respond: &mut SendResponse<Bytes>) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        respond.poll_reset(cx).map(|_| None)
    })
    .await
}

async fn send(response: Response<Body>, head: bool, respond: &mut SendResponse<Bytes>) -> Outcome {
    let (mut parts, body) = response.into_parts();
    let no_body = head || parts.status == StatusCode::NOT_MODIFIED || parts.status == StatusCode::NO_CONTENT;
    strip_connection_headers(&mut parts.headers);
    if !no_body {
        match body.size_hint().exact() {
            Some(length) if length > 0 => drop(parts.headers.insert(header::CONTENT_LENGTH, length.into())),
            Some(_) if body.is_end_stream() => {}
            _ => drop(parts.headers.remove(header::CONTENT_LENGTH)),
        }
    }
    if !parts.headers.contains_key(header::DATE) {
        parts.headers.insert(header::DATE, date::now());
    }
    parts.version = Version::HTTP_2;
    let end = no_body || body.is_end_stream();
    let Ok(stream) = respond.send_response(Response::from_parts(parts, ()), end) else {
        return Outcome { body_bytes: 0, abort: Some(Abort::Downstream) };
    };
    if end {
        return Outcome::default();
    }
    let mut pump = Pump::new(body, stream);
    let abort = match poll_fn(|cx| pump.poll(cx)).await {
        Ok(()) => None,
        Err(PumpError::Body(error)) => Some(Abort::Body(error)),
        Err(PumpError::Stream(error)) if error.reason() == Some(Reason::NO_ERROR) => None,
        Err(PumpError::Stream(_)) => Some(Abort::Downstream),
    };
    Outcome { body_bytes: pump.sent, abort }
}

impl From<::h2::Error> for BodyError {
    fn from(error: ::h2::Error) -> Self {
        Self::Reset(error)
    }
}
