//! A request body that can be sent more than once, as long as it is small: to a second endpoint, or to a mirror.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use sidecar_http::{Body, BodyError, Layer};

use crate::overload::Level;
use crate::worker::Worker;

/// Bytes of a request body that are kept for sending it again.
const KEPT_MAX: usize = 256 * 1024;

/// The same for all requests of a worker together.
const KEPT_WORKER_MAX: usize = 8 * 1024 * 1024;

/// The body, and what was read of it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Replay {
    state: Rc<RefCell<State>>,
}

struct State {
    source: Body,
    /// Pieces read so far, unless there were too many bytes.
    kept: Vec<Bytes>,
    /// How many pieces were read, kept or not.
    pieces: usize,
    kept_bytes: usize,
    /// More than the bound was read: only a reader that has sent all of it may go on.
    lost: bool,
    worker: Option<Rc<Worker>>,
    ended: bool,
    failed: bool,
    trailers: Option<HeaderMap>,
    length: Option<u64>,
    readers: Vec<Waker>,
}

/// One sending of the body.
pub(super) struct Reader {
    state: Rc<RefCell<State>>,
    next: usize,
    trailers_sent: bool,
    /// It only takes what another sending has read: a mirror must never take a piece away from the request itself.
    follows: bool,
}

impl Replay {
    /// Wraps a body. Nothing is kept of it for another attempt while `worker` is short of memory.
    pub(super) fn new(source: Body, worker: Option<Rc<Worker>>) -> Self {
        let length = source.size_hint().exact();
        let state = State {
            source,
            kept: Vec::new(),
            pieces: 0,
            kept_bytes: 0,
            lost: false,
            worker,
            ended: false,
            failed: false,
            trailers: None,
            length,
            readers: Vec::new(),
        };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Whether the body can still be sent from its beginning.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.state.borrow();
        !state.lost && !state.failed
    }

    /// Whether all of it was read from the client.
    pub(super) fn is_ended(&self) -> bool {
        self.state.borrow().ended
    }

    /// How many pieces were read from the client.
    pub(super) fn pieces(&self) -> usize {
        self.state.borrow().pieces
    }

    /// Keeps nothing any more: the body will not be sent again.
    pub(super) fn release(&self) {
        self.state.borrow_mut().lose();
    }

    /// Sends the body from its beginning.
    pub(super) fn reader(&self) -> Body {
        self.sending(false)
    }

    /// Sends a copy of what another sending reads; fails when that is too much to be kept.
    pub(super) fn copy(&self) -> Body {
        self.sending(true)
    }

    fn sending(&self, follows: bool) -> Body {
        Body::wrap(Reader { state: Rc::clone(&self.state), next: 0, trailers_sent: false, follows })
    }
}

impl State {
    /// Reads a piece from the client for the reader that has sent everything before it.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    self.end();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.failed = true;
                    self.wake();
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.keep(&data);
                        if self.source.is_end_stream() {
                            self.end();
                        }
                        return Poll::Ready(Some(Ok(data)));
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.end();
                        return Poll::Ready(None);
                    }
                },
            }
        }
    }

    fn keep(&mut self, data: &Bytes) {
        self.pieces += 1;
        self.kept_bytes += data.len();
        let short = |worker: &Rc<Worker>| {
            worker.kept.get() > KEPT_WORKER_MAX || worker.shared.overload.level() != Level::Calm
        };
        if !self.lost && (self.kept_bytes > KEPT_MAX || self.worker.as_ref().is_some_and(short)) {
            self.lose();
        }
        if !self.lost {
            self.kept.push(data.clone());
            self.count(data.len(), true);
        }
        self.wake();
    }

    /// Keeps nothing any more.
    fn lose(&mut self) {
        self.lost = true;
        let freed = self.kept.drain(..).map(|piece| piece.len()).sum();
        self.kept = Vec::new();
        self.count(freed, false);
    }

    fn count(&self, bytes: usize, more: bool) {
        if let Some(worker) = &self.worker {
            let kept = worker.kept.get();
            worker.kept.set(if more { kept + bytes } else { kept.saturating_sub(bytes) });
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        self.readers.drain(..).for_each(Waker::wake);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.lose();
    }
}

impl Layer for Reader {}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let state = &mut *this.state.borrow_mut();
        if state.failed {
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        if this.next < state.pieces {
            let Some(data) = state.kept.get(this.next).cloned() else {
                return Poll::Ready(Some(Err(BodyError::GivenUp("too long to be sent again"))));
            };
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !state.ended {
            if this.follows {
                if !state.readers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.readers.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
            match state.poll_source(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    this.next += 1;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        match state.trailers.clone().filter(|_| !this.trailers_sent) {
            Some(trailers) => {
                this.trailers_sent = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.ended && self.next >= state.pieces && (state.trailers.is_none() || self.trailers_sent)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let read = state.kept.iter().take(self.next).map(|piece| piece.len() as u64).sum::<u64>();
        let length = state
            .length
            .filter(|_| !state.lost)
            .or((state.ended && !state.lost).then_some(state.kept_bytes as u64));
        length
            .and_then(|length| length.checked_sub(read))
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests;
