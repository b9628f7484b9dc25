//! The clocks of one stream: how long it may be still, how long its request may take to arrive, and how long it may last at all.
//!
//! Nothing here costs anything while no such limit is configured. Status, texts and details are Envoy's.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use sidecar_http::{Body, BodyError, Layer};
use sidecar_model::route_action::IdleTimeout;
use sidecar_model::{HttpConnectionManager, RouteAction};
use tokio::time::{Instant, Sleep, sleep_until};

use super::failure::Failure;

/// Why a stream was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing moved for too long.
    Idle,
    /// The request took too long to arrive.
    Request,
    /// The stream lasted too long.
    Duration,
}

impl Expired {
    /// What a body that is given up for it says.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Idle => "stream timeout",
            Self::Request => "request timeout",
            Self::Duration => "downstream duration timeout",
        }
    }
}

/// Waits for so long, or for ever.
pub(super) async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// The clocks of one stream.
pub(super) struct Clocks {
    idle: Cell<Option<Duration>>,
    /// When the stream must have ended.
    end: Cell<Option<Instant>>,
    /// When the request must have arrived.
    arrival: Cell<Option<Instant>>,
    progress: Rc<Progress>,
}

/// How far a stream has come; its bodies keep it up to date.
#[derive(Default)]
struct Progress {
    /// Pieces of either body so far.
    pieces: Cell<u64>,
    /// The request has arrived.
    arrived: Cell<bool>,
}

impl Clocks {
    /// The clocks of a stream that begins now; none when neither the connection manager nor a want of memory (`idle_max`) bounds anything.
    pub(super) fn begin(
        hcm: &HttpConnectionManager,
        idle_max: Option<Duration>,
        body: &mut Body,
    ) -> Option<Self> {
        let most = hcm.max_stream_duration;
        let idle = match (hcm.stream_idle_timeout, idle_max) {
            (Some(idle), Some(most)) => Some(idle.min(most)),
            (idle, most) => idle.or(most),
        };
        if most.is_none() && idle.is_none() && hcm.request_timeout.is_none() {
            return None;
        }
        let clocks = Self::new();
        clocks.idle.set(idle);
        clocks.end.set(most.map(|most| Instant::now() + most));
        clocks.arrival.set(hcm.request_timeout.map(|most| Instant::now() + most));
        clocks.follow(body);
        Some(clocks)
    }

    fn new() -> Self {
        Self {
            idle: Cell::default(),
            end: Cell::default(),
            arrival: Cell::default(),
            progress: Rc::default(),
        }
    }

    /// Sees the request's body arrive.
    fn follow(&self, body: &mut Body) {
        if body.is_end_stream() {
            self.progress.arrived.set(true);
        } else {
            let inner = std::mem::take(body);
            *body = Body::wrap(Arriving { body: inner, progress: Rc::clone(&self.progress) });
        }
    }

    /// The route is known: what it says goes before what the connection manager says.
    pub(super) fn route(&self, action: &RouteAction) {
        match action.idle_timeout {
            IdleTimeout::Inherit => {}
            IdleTimeout::Off => self.idle.set(None),
            IdleTimeout::After(idle) => self.idle.set(Some(idle)),
        }
        if let Some(most) = action.max_stream_duration {
            self.end.set((!most.is_zero()).then(|| Instant::now() + most));
        }
    }

    /// Clocks for a route that bounds its streams where the connection manager does not.
    pub(super) fn of_route(action: &RouteAction, body: &mut Body) -> Option<Self> {
        let bounds = matches!(action.idle_timeout, IdleTimeout::After(_))
            || action.max_stream_duration.is_some_and(|most| !most.is_zero());
        if !bounds {
            return None;
        }
        let clocks = Self::new();
        clocks.route(action);
        clocks.follow(body);
        Some(clocks)
    }

    /// How long the stream may be still.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.idle.get()
    }

    /// How long the stream may still last.
    pub(super) fn left(&self) -> Option<Duration> {
        self.end.get().map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Runs `work` while no clock has run out.
    pub(super) async fn within<F: Future>(&self, work: F) -> Result<F::Output, Failure> {
        let mut work = pin!(work);
        let mut timer = Timer::default();
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            timer.poll(self, cx).map(|why| Err(Failure::Stream { why, arrived: self.progress.arrived.get() }))
        })
        .await
    }

    /// A response's body that is given up when a clock runs out.
    pub(super) fn bound(self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::wrap(Bounded { body, clocks: self, timer: Timer::default() })
    }
}

/// One timer for all clocks; it is set again only when it fires or must fire earlier.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    pieces: u64,
    moved: Option<Instant>,
}

impl Timer {
    fn poll(&mut self, clocks: &Clocks, cx: &mut Context<'_>) -> Poll<Expired> {
        let progress = &clocks.progress;
        if self.moved.is_none() || self.pieces != progress.pieces.get() {
            self.pieces = progress.pieces.get();
            self.moved = Some(Instant::now());
        }
        let since = self.moved.unwrap_or_else(Instant::now);
        let idle = clocks.idle.get().map(|idle| (since + idle, Expired::Idle));
        let arrival = clocks.arrival.get().filter(|_| !progress.arrived.get());
        let arrival = arrival.map(|at| (at, Expired::Request));
        let end = clocks.end.get().map(|at| (at, Expired::Duration));
        let next = idle.into_iter().chain(arrival).chain(end).min_by_key(|(at, _)| *at);
        let Some((deadline, why)) = next else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(why);
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

/// A request's body on its way in.
struct Arriving {
    body: Body,
    progress: Rc<Progress>,
}

impl Layer for Arriving {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.body.background(cx)
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            self.progress.pieces.set(self.progress.pieces.get() + 1);
            let last = frame.as_ref().is_none_or(Result::is_err) || self.body.is_end_stream();
            self.progress.arrived.set(self.progress.arrived.get() || last);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body within the clocks of its stream.
struct Bounded {
    body: Body,
    clocks: Clocks,
    timer: Timer,
}

impl Bounded {
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let this = &mut *self;
        this.timer.poll(&this.clocks, cx).map(|why| {
            // Dropped at once: the upstream is told, and its connection is not used again.
            this.body = Body::empty();
            BodyError::GivenUp(why.text())
        })
    }
}

impl Layer for Bounded {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        match self.body.background(cx) {
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => self.poll_expired(cx),
        }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let progress = &self.clocks.progress;
                progress.pieces.set(progress.pieces.get() + 1);
                Poll::Ready(frame)
            }
            Poll::Pending => self.poll_expired(cx).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
