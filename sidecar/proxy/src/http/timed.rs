//! A body that must end in time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use sidecar_http::{Body, BodyError, Layer};
use tokio::time::Sleep;

/// Why such a body was given up.
pub(super) const TIMEOUT: &str = "response timeout";

/// A body with a deadline.
pub(super) struct Timed {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl Timed {
    pub(super) fn new(body: Body, deadline: Pin<Box<Sleep>>) -> Self {
        Self { body, deadline }
    }
}

impl Layer for Timed {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.body.background(cx)
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() && self.deadline.as_mut().poll(cx).is_ready() {
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
