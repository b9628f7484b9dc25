//! The server end of an HTTP/2 connection: a task per stream.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::ext::Protocol;
use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{Ping, PingPong, Reason, RecvStream};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::{Pump, PumpError, RecvBody};
use super::flood::{Watch, Watched};
use super::{PREFACE, join_cookies, strip_connection_headers};
use crate::body::{Body, BodyError};
use crate::date;
use crate::drain::DrainWatch;
use crate::duplex;
use crate::error::ParseError;
use crate::headers;
use crate::io::{BoxIo, Prefixed};
use crate::limits::{Keepalive, Limits};
use crate::serve::{Abort, Handler, Outcome, Reply, Served};

/// How often a busy connection is looked at again when idle ones must end at once.
const IDLE_TICK: Duration = Duration::from_millis(100);

/// Serves a connection until it ends; `prefix` is what was already read from it.
pub async fn serve<H: Handler + 'static>(
    io: BoxIo,
    prefix: BytesMut,
    limits: Rc<Limits>,
    drain: DrainWatch,
    handler: Rc<H>,
) -> Served {
    let mut io = Watched::new(Prefixed::new(prefix, io), PREFACE.len());
    let watch = io.watch();
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
    Server::new(connection, watch, limits, drain, handler).run().await
}

struct Server<H> {
    connection: Connection<Watched, Bytes>,
    limits: Rc<Limits>,
    drain: DrainWatch,
    handler: Rc<H>,
    watch: Rc<Watch>,
    streams: Rc<Streams>,
    /// Requests that may still come.
    left: Option<u32>,
    /// Requests that were refused.
    refused: usize,
    idle: Option<Pin<Box<Sleep>>>,
    end: Option<Pin<Box<Sleep>>>,
    pings: Option<Pings>,
    ending: Option<Served>,
}

/// What the streams of one connection tell it.
#[derive(Default)]
struct Streams {
    active: Cell<usize>,
    /// An answer was to be the last.
    closing: Cell<bool>,
}

impl<H: Handler + 'static> Server<H> {
    fn new(
        mut connection: Connection<Watched, Bytes>,
        watch: Rc<Watch>,
        limits: Rc<Limits>,
        drain: DrainWatch,
        handler: Rc<H>,
    ) -> Self {
        let sleeps = |life| Box::pin(sleep_until(Instant::now() + life));
        Self {
            pings: limits.h2_keepalive.and_then(|keepalive| Pings::new(keepalive, connection.ping_pong()?)),
            end: limits.max_connection_duration.map(sleeps),
            left: limits.max_requests,
            refused: 0,
            streams: Rc::default(),
            idle: None,
            ending: None,
            watch,
            connection,
            limits,
            drain,
            handler,
        }
    }

    async fn run(mut self) -> Served {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await {
                _ if self.watch.flooded() => return self.calm().await,
                Event::Ended(None) => return self.ending.unwrap_or(Served::Closed),
                // A client that hears GOAWAY may hang up before all is said.
                Event::Ended(Some(_)) => return self.ending.unwrap_or(Served::Failed),
                Event::PingTimeout => return Served::PingTimeout,
                Event::Request(request, respond) => {
                    self.idle = None;
                    self.left = self.left.map(|left| left.saturating_sub(1));
                    let head = *request.method() == Method::HEAD;
                    // Judged here and not in the stream's own task: refused heads shall not pile up until it runs.
                    let request = match accept(request, &self.limits) {
                        Ok(request) => request,
                        Err(error) => {
                            self.refuse(error, *respond);
                            if self.refused > self.limits.h2_local_resets {
                                return self.calm().await;
                            }
                            continue;
                        }
                    };
                    self.streams.active.set(self.streams.active.get() + 1);
                    let stream = Stream {
                        handler: Rc::clone(&self.handler),
                        streams: Guard(Rc::clone(&self.streams)),
                    };
                    spawn_local(stream.run(request, head, *respond));
                }
            }
        }
    }

    fn refuse(&mut self, error: ParseError, mut respond: SendResponse<Bytes>) {
        self.refused += 1;
        self.handler.refused(error);
        let mut response = Response::new(());
        *response.status_mut() = error.status();
        // The peer may have reset the stream meanwhile: then nobody waits for the answer.
        let _ = respond.send_response(response, true);
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.ending.is_none()
            && let Some(why) = self.poll_end(cx)
        {
            self.ending = Some(why);
            self.connection.graceful_shutdown();
        }
        if let Some(pings) = &mut self.pings
            && pings.poll_lost(cx).is_ready()
        {
            return Poll::Ready(Event::PingTimeout);
        }
        let polled = self.connection.poll_accept(cx);
        if self.watch.flooded() {
            return Poll::Ready(Event::Ended(None));
        }
        if polled.is_pending() && self.watch.resume() {
            cx.waker().wake_by_ref();
        }
        polled.map(|accepted| match accepted {
            None => Event::Ended(None),
            Some(Err(error)) => Event::Ended(Some(error)),
            Some(Ok((request, respond))) => Event::Request(request, Box::new(respond)),
        })
    }

    /// Ends a connection that floods, saying so; a peer that does not listen is not waited for.
    async fn calm(mut self) -> Served {
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let linger = self.limits.linger;
        // Whether it heard or not, the connection ends here.
        let _ = tokio::time::timeout(linger, poll_fn(|cx| self.connection.poll_closed(cx))).await;
        Served::Failed
    }

    /// Why no further request is wanted on this connection.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<Served> {
        if self.left == Some(0) {
            return Some(Served::MaxRequests);
        }
        if self.drain.poll_draining(cx).is_ready() || self.streams.closing.get() {
            return Some(Served::Closed);
        }
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            return Some(Served::MaxDuration);
        }
        self.poll_idle(cx).is_ready().then_some(Served::Idle)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = match (self.limits.idle_timeout, self.drain.idle_max()) {
            (Some(idle), Some(most)) => idle.min(most),
            (None, None) => return Poll::Pending,
            (idle, most) => idle.or(most).unwrap_or_default(),
        };
        let deadline = Instant::now() + idle;
        let timer = self.idle.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if self.streams.active.get() == 0 {
                return Poll::Ready(());
            }
            timer.as_mut().reset(Instant::now() + idle.max(IDLE_TICK));
        }
        Poll::Pending
    }
}

/// What happens on a connection.
enum Event {
    Request(Request<RecvStream>, Box<SendResponse<Bytes>>),
    Ended(Option<::h2::Error>),
    PingTimeout,
}

/// Pings that find out whether the client is still there.
struct Pings {
    keepalive: Keepalive,
    pings: PingPong,
    waits: bool,
    timer: Pin<Box<Sleep>>,
}

impl Pings {
    fn new(keepalive: Keepalive, pings: PingPong) -> Option<Self> {
        let first = Instant::now().checked_add(keepalive.interval)?;
        Some(Self { keepalive, pings, waits: false, timer: Box::pin(sleep_until(first)) })
    }

    /// Ready when a ping was not answered in time.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waits && self.pings.poll_pong(cx).is_ready() {
                self.waits = false;
                self.timer.as_mut().reset(Instant::now() + self.keepalive.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.waits {
                return Poll::Ready(());
            }
            self.waits = self.pings.send_ping(Ping::opaque()).is_ok();
            self.timer.as_mut().reset(Instant::now() + self.keepalive.timeout);
        }
    }
}

/// Counts a stream while it lives.
struct Guard(Rc<Streams>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

struct Stream<H> {
    handler: Rc<H>,
    streams: Guard,
}

impl<H: Handler> Stream<H> {
    async fn run(self, mut request: Request<Body>, head: bool, mut respond: SendResponse<Bytes>) {
        // The body of a CONNECT is no body but the client's side of a stream; an extended one asks for an upgrade by now.
        let connect = *request.method() == Method::CONNECT || headers::is_upgrade(request.headers());
        let client = connect.then(|| std::mem::take(request.body_mut()));
        let reply = {
            let work = pin!(self.handler.handle(request));
            unless_reset(work, &mut respond).await
        };
        let Some(reply) = reply else { return };
        let Reply { mut response, finish, upgrade, close, refused } = reply;
        if close {
            // Sending the answer wakes the connection, which sees it then.
            self.streams.0.closing.set(true);
        }
        if refused {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
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

async fn unless_reset<F: Future>(
    mut work: Pin<&mut F>,
    respond: &mut SendResponse<Bytes>,
) -> Option<F::Output> {
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
