//! Limits of stillness: an attempt, and then its response, must not be without progress for too long.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use sidecar_http::{Body, BodyError, Layer};
use tokio::time::{Instant, Sleep, sleep};

use super::replay::Replay;
use super::timed::TIMEOUT;

/// Measures how long nothing has moved.
struct Alarm {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new(limit: Duration) -> Self {
        Self { limit, sleep: Box::pin(sleep(limit)) }
    }

    fn restart(&mut self) {
        self.sleep.as_mut().reset(Instant::now() + self.limit);
    }
}

/// The wait for a response: only pieces of the request's body that are taken from the client count as progress.
pub(super) struct Stillness {
    alarm: Alarm,
    body: Option<Replay>,
    pieces: usize,
}

impl Stillness {
    pub(super) fn new(limit: Duration, body: Option<Replay>) -> Self {
        let pieces = body.as_ref().map_or(0, Replay::pieces);
        Self { alarm: Alarm::new(limit), body, pieces }
    }

    /// Ready once nothing has moved for the whole limit.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.sleep.as_mut().poll(cx));
            let pieces = self.body.as_ref().map_or(0, Replay::pieces);
            if pieces == self.pieces {
                return Poll::Ready(());
            }
            self.pieces = pieces;
            self.alarm.restart();
        }
    }
}

/// A body that fails when no piece of it comes for too long.
pub(super) struct Lively {
    body: Body,
    alarm: Alarm,
}

impl Lively {
    pub(super) fn new(body: Body, limit: Duration) -> Self {
        Self { body, alarm: Alarm::new(limit) }
    }
}

impl Layer for Lively {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.body.background(cx)
    }
}

impl http_body::Body for Lively {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.alarm.restart();
        } else if self.alarm.sleep.as_mut().poll(cx).is_ready() {
            // Dropped at once: the upstream is told, and its connection is not used again.
            self.body = Body::empty();
            return Poll::Ready(Some(Err(BodyError::GivenUp(TIMEOUT))));
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
