//! The server end of an HTTP/1.1 connection: one request at a time, in order.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Framing;
use super::encode::{self, ResponseTo};
use super::incoming::{Reading, RequestBody, Shared};
use super::request::{self, RequestHead};
use super::scan::{Scanner, is_token};
use super::transport::Transport;
use crate::body::Body;
use crate::buffer;
use crate::drain::DrainWatch;
use crate::error::ParseError;
use crate::io::BoxIo;
use crate::limits::Limits;
use crate::serve::{Abort, Handler, Outcome, Reply, Served};

/// Bytes of an unread request body that are read over rather than closing the connection for.
const SKIP_MAX: usize = 64 * 1024;
/// A connection without a request for this long is closed by a drain.
const DRAIN_IDLE: Duration = Duration::from_millis(500);
/// How long a request may still take to arrive once there is no memory for it.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes read over while a closing connection lingers.
const LINGER_BYTES: usize = 256 * 1024;

/// Serves a connection until it ends; `prefix` is what was already read from it. Dropping the future closes it.
pub async fn serve<H: Handler>(
    io: BoxIo,
    prefix: BytesMut,
    limits: Rc<Limits>,
    drain: DrainWatch,
    handler: &H,
) -> Served {
    let shared = Rc::new(RefCell::new(Shared {
        transport: Transport::new(io, prefix),
        reading: Reading::Done,
        continue_due: false,
        abandoned: false,
    }));
    let mut idle = Idle::new(&limits);
    let mut left = limits.max_requests;
    loop {
        let head = match read_head(&shared, &limits, &drain, &mut idle).await {
            Next::Head(head) => head,
            Next::Closed => return Served::Closed,
            Next::Expired(why) => return why,
            Next::Failed => return Served::Failed,
            Next::Refused(error) => {
                handler.refused(error);
                refuse(&shared, error, &limits).await;
                return Served::Refused(error);
            }
        };
        left = left.map(|left| left.saturating_sub(1));
        let ends = || match () {
            () if left == Some(0) => Some(Served::MaxRequests),
            () if idle.is_over() => Some(Served::MaxDuration),
            () if drain.closes() => Some(Served::Closed),
            () => None,
        };
        // Boxed so that an idle connection does not carry the size of a request's state.
        match Box::pin(exchange(&shared, *head, &limits, &drain, ends, handler)).await {
            After::Next => idle.since = Instant::now(),
            After::Close(why) => {
                linger(&shared, &limits).await;
                return why;
            }
            After::Failed => return Served::Failed,
            After::Upgraded => return Served::Upgraded,
        }
    }
}

enum Next {
    Head(Box<RequestHead>),
    Closed,
    /// The connection has waited long enough, or lived long enough.
    Expired(Served),
    Failed,
    Refused(ParseError),
}

enum After {
    Next,
    Close(Served),
    Failed,
    Upgraded,
}

/// When the connection became idle and when its life is over, with one timer that is set again only when it fires or must fire earlier.
struct Idle {
    since: Instant,
    /// From then on each response is the last.
    end: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limits: &Limits) -> Self {
        let since = Instant::now();
        Self { since, end: limits.max_connection_duration.map(|life| since + life), timer: None }
    }

    /// Whether the connection's time is over.
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn poll_expired(
        &mut self,
        limits: &Limits,
        idle_max: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<Served> {
        let idle = match (limits.idle_timeout, idle_max) {
            (Some(idle), Some(most)) => Some(idle.min(most)),
            (idle, most) => idle.or(most),
        };
        let idle = idle.map(|idle| (self.since + idle, Served::Idle));
        let end = self.end.map(|end| (end + limits.drain_timeout, Served::MaxDuration));
        let Some((deadline, why)) = idle.into_iter().chain(end).min_by_key(|(deadline, _)| *deadline) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(why);
            }
            timer.as_mut().reset(deadline);
        }
    }
}

async fn read_head(shared: &RefCell<Shared>, limits: &Limits, drain: &DrainWatch, idle: &mut Idle) -> Next {
    let mut scanner = Scanner::default();
    let mut begun: Option<Pin<Box<Sleep>>> = None;
    poll_fn(move |cx| {
        let transport = &mut shared.borrow_mut().transport;
        loop {
            match scan(transport, &mut scanner, limits) {
                Err(error) => return Poll::Ready(Next::Refused(error)),
                Ok(Some(head)) => return Poll::Ready(parsed(&head)),
                Ok(None) => {}
            }
            match transport.poll_fill(cx) {
                Poll::Ready(Ok(0)) if transport.input.is_empty() => return Poll::Ready(Next::Closed),
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Failed),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        if transport.input.is_empty() {
            if drain.poll_draining(cx).is_ready() {
                // One that is in use gets its next request answered as the last; closing it now would cross that on its way.
                return idle.poll_expired(limits, Some(DRAIN_IDLE), cx).map(|_| Next::Closed);
            }
            return idle.poll_expired(limits, drain.idle_max(), cx).map(Next::Expired);
        }
        let deadline =
            begun.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limits.head_timeout)));
        deadline.as_mut().poll(cx).map(|()| Next::Refused(ParseError::Timeout))
    })
    .await
}

/// Looks for a whole head in what was read; one empty line before it is ignored (RFC 9112, 2.2).
fn scan(
    transport: &mut Transport,
    scanner: &mut Scanner,
    limits: &Limits,
) -> Result<Option<Bytes>, ParseError> {
    match &transport.input[..] {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n'] => return Ok(None),
        [b'\r', b'\n', ..] => {
            let _ = transport.input.split_to(2);
        }
        _ => {}
    }
    if transport.input.first().is_some_and(|byte| !is_token(*byte)) {
        return Err(ParseError::NotHttp);
    }
    let end = scanner.scan(&transport.input, limits)?;
    Ok(end.map(|end| transport.input.split_to(end).freeze()))
}

fn parsed(head: &Bytes) -> Next {
    match request::parse(head) {
        Ok(head) => Next::Head(Box::new(head)),
        Err(error) => Next::Refused(error),
    }
}

/// One request and its response.
async fn exchange<H: Handler>(
    shared: &Rc<RefCell<Shared>>,
    head: RequestHead,
    limits: &Limits,
    drain: &DrainWatch,
    ends: impl Fn() -> Option<Served>,
    handler: &H,
) -> After {
    let RequestHead { parts, framing, keep_alive, expect_continue } = head;
    let mut to = ResponseTo {
        version: parts.version,
        head: parts.method == http::Method::HEAD,
        connect: parts.method == http::Method::CONNECT,
        keep_alive,
    };
    {
        let mut shared = shared.borrow_mut();
        shared.reading = Reading::new(framing, limits);
        shared.continue_due = expect_continue;
        shared.abandoned = false;
    }
    let body = if framing == Framing::Length(0) {
        Body::empty()
    } else {
        Body::request(RequestBody::new(Rc::clone(shared)))
    };
    let reply = {
        let work = pin!(handler.handle(Request::from_parts(parts, body)));
        unless_closed(work, shared, drain, limits).await
    };
    let Some(reply) = reply else { return After::Failed };
    let Reply { response, finish, upgrade, close, refused } = reply;
    if refused {
        return After::Close(Served::Closed);
    }
    let ends = ends();
    to.keep_alive &= !close && ends.is_none();
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (to.connect && response.status().is_success());
    let upgraded = switched && upgrade.is_some();
    let (outcome, keep_alive) = respond(shared, response, to, limits).await;
    let aborted = outcome.abort.is_some();
    if let Some(finish) = finish {
        finish.finish(outcome);
    }
    if aborted {
        return After::Failed;
    }
    if let (true, Some(upgrade)) = (upgraded, upgrade) {
        let transport = std::mem::replace(
            &mut shared.borrow_mut().transport,
            Transport::new(Box::new(tokio::io::empty()), BytesMut::new()),
        );
        upgrade(transport.into_upgraded()).await;
        return After::Upgraded;
    }
    if keep_alive && shared.borrow().reading.is_done() {
        After::Next
    } else {
        After::Close(ends.unwrap_or(Served::Closed))
    }
}

/// Runs `work` unless the client goes away first, or takes its time with its request while there is no memory for that. The work comes
/// pinned: by value it would be in the connection's state twice.
async fn unless_closed<F: Future>(
    mut work: Pin<&mut F>,
    shared: &RefCell<Shared>,
    drain: &DrainWatch,
    limits: &Limits,
) -> Option<F::Output> {
    let mut patience: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if !shared.borrow().reading.is_done() && drain.poll_hurries(cx) {
            let timer =
                patience.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + UPLOAD_PATIENCE)));
            return timer.as_mut().poll(cx).map(|()| None);
        }
        poll_gone(shared, limits, cx).map(|()| None)
    })
    .await
}

/// Ready when the client has ended its side while nothing more is expected from it.
fn poll_gone(shared: &RefCell<Shared>, limits: &Limits, cx: &mut Context<'_>) -> Poll<()> {
    let shared = &mut *shared.borrow_mut();
    if !shared.reading.is_done() {
        return Poll::Pending;
    }
    while shared.transport.input.len() < limits.pipeline_bytes {
        match ready!(shared.transport.poll_fill(cx)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
    Poll::Pending
}

async fn respond(
    shared: &RefCell<Shared>,
    response: Response<Body>,
    mut to: ResponseTo,
    limits: &Limits,
) -> (Outcome, bool) {
    poll_fn(|cx| {
        skip_unread(shared, cx);
        Poll::Ready(())
    })
    .await;
    let (parts, body) = response.into_parts();
    let (framing, keep_alive) = {
        let shared = &mut *shared.borrow_mut();
        shared.continue_due = false;
        to.keep_alive &= shared.reading.is_done() || !shared.abandoned;
        encode::response(&parts, &body, to, shared.transport.output.flat())
    };
    buffer::give_map(parts.headers);
    let left = if let Framing::Length(length) = framing { Some(length) } else { None };
    let done = framing == Framing::Length(0);
    let mut writer = Writer { shared, body, framing, left, sent: 0, done };
    let abort = poll_fn(|cx| writer.poll(cx, limits)).await.err();
    (Outcome { body_bytes: writer.sent, abort }, keep_alive)
}

/// Reads over what little may be left of a request body that nobody wants, without waiting for it.
fn skip_unread(shared: &RefCell<Shared>, cx: &mut Context<'_>) {
    let shared = &mut *shared.borrow_mut();
    if !shared.abandoned || shared.continue_due {
        return;
    }
    let mut skipped = 0;
    while skipped < SKIP_MAX {
        match shared.reading.poll_frame(&mut shared.transport, cx) {
            Poll::Ready(Some(Ok(frame))) => skipped += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

/// Writes a response's body behind its head.
struct Writer<'a> {
    shared: &'a RefCell<Shared>,
    body: Body,
    framing: Framing,
    left: Option<u64>,
    sent: u64,
    done: bool,
}

impl Writer<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, limits: &Limits) -> Poll<Result<(), Abort>> {
        loop {
            let mut waiting = false;
            while !self.done && !waiting && self.shared.borrow().transport.output.has_room() {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Pending => waiting = true,
                    Poll::Ready(None) => self.end(None)?,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Abort::Body(error))),
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => self.data(data)?,
                        Err(frame) => self.end(frame.into_trailers().ok().as_ref())?,
                    },
                }
            }
            let flushed = self.shared.borrow_mut().transport.poll_flush(cx);
            match flushed {
                Poll::Ready(Ok(())) if self.done => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if !waiting => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Abort::Downstream)),
                Poll::Ready(Ok(())) => {
                    return poll_gone(self.shared, limits, cx).map(|()| Err(Abort::Downstream));
                }
                Poll::Pending => {
                    // The client reads slowly; what it still sends must not stand still for that.
                    return self.body.background(cx).map(|error| Err(Abort::Body(error)));
                }
            }
        }
    }

    fn data(&mut self, data: Bytes) -> Result<(), Abort> {
        let length = data.len() as u64;
        if let Some(left) = &mut self.left {
            // More than was announced would be read as the next response.
            *left = left
                .checked_sub(length)
                .ok_or(Abort::Body(crate::BodyError::GivenUp("longer than announced")))?;
        }
        self.sent += length;
        encode::data(self.framing, data, &mut self.shared.borrow_mut().transport.output);
        // With a known length the end needs no further poll: head and body leave in one write.
        if self.left == Some(0) { self.end(None) } else { Ok(()) }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Abort> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Abort::Body(crate::BodyError::Incomplete));
        }
        self.done = true;
        encode::end(self.framing, trailers, &mut self.shared.borrow_mut().transport.output);
        Ok(())
    }
}

/// Answers a message that is not a request, then closes.
async fn refuse(shared: &RefCell<Shared>, error: ParseError, limits: &Limits) {
    let status = error.status();
    let mut response = Response::new(Body::full(status.canonical_reason().unwrap_or("").as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    shared.borrow_mut().reading = Reading::Failed;
    let to = ResponseTo { version: Version::HTTP_11, head: false, connect: false, keep_alive: false };
    let _ = tokio::time::timeout(limits.head_timeout, respond(shared, response, to, limits)).await;
    linger(shared, limits).await;
}

/// Ends this side and reads over what still comes, so that the peer's kernel does not throw the response away.
async fn linger(shared: &RefCell<Shared>, limits: &Limits) {
    let mut total = 0;
    let discard = poll_fn(|cx| {
        let transport = &mut shared.borrow_mut().transport;
        if ready!(transport.poll_shutdown(cx)).is_err() || transport.ended() {
            return Poll::Ready(());
        }
        loop {
            transport.input.clear();
            match ready!(transport.poll_fill(cx)) {
                Ok(bytes) if bytes > 0 && total < LINGER_BYTES => total += bytes,
                _ => return Poll::Ready(()),
            }
        }
    });
    let _ = tokio::time::timeout(limits.linger, discard).await;
}
