//! Reading bodies: the part that requests and responses share, and a request's body at the server.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::Framing;
use super::chunk::{Chunk, ChunkDecoder};
use super::transport::Transport;
use crate::body::BodyError;
use crate::limits::Limits;

/// How far the body that is being read has come.
#[derive(Debug)]
pub(crate) enum Reading {
    Length(u64),
    Chunked(Box<ChunkDecoder>),
    UntilClose,
    Done,
    Failed,
}

impl Reading {
    pub(crate) fn new(framing: Framing, limits: &Limits) -> Self {
        match framing {
            Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(ChunkDecoder::new(limits))),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Done => Some(0),
            _ => None,
        }
    }

    /// The next piece of the body.
    pub(crate) fn poll_frame(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_piece(transport, cx);
        if let Poll::Ready(Some(Err(_))) = polled {
            *self = Self::Failed;
        }
        polled
    }

    fn poll_piece(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self {
                Self::Done => return Poll::Ready(None),
                Self::Failed => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                Self::Length(left) if !transport.input.is_empty() => {
                    let input = &mut transport.input;
                    let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                    *left -= take as u64;
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(input.split_to(take).freeze()))));
                }
                Self::UntilClose if !transport.input.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(transport.input.split().freeze()))));
                }
                Self::Chunked(decoder) => match decoder.decode(&mut transport.input) {
                    Err(error) => return Poll::Ready(Some(Err(BodyError::Framing(error)))),
                    Ok(Chunk::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Chunk::End(trailers)) => {
                        *self = Self::Done;
                        return Poll::Ready(trailers.map(|map| Ok(Frame::trailers(map))));
                    }
                    Ok(Chunk::More) => {}
                },
                Self::Length(_) | Self::UntilClose => {}
            }
            match ready!(transport.poll_fill(cx)) {
                Ok(0) if matches!(self, Self::UntilClose) => *self = Self::Done,
                Ok(0) => return Poll::Ready(Some(Err(BodyError::Incomplete))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
    }
}

/// A server connection as its task and the body of the current request see it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) transport: Transport,
    pub(crate) reading: Reading,
    /// The client waits for `100 Continue`; it is sent when the body is first asked for.
    pub(crate) continue_due: bool,
    /// The request's body was dropped before its end.
    pub(crate) abandoned: bool,
}

/// The body of a request, read from the connection when it is asked for.
#[derive(Debug)]
pub(crate) struct RequestBody {
    shared: Rc<RefCell<Shared>>,
}

impl RequestBody {
    pub(crate) fn new(shared: Rc<RefCell<Shared>>) -> Self {
        Self { shared }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &mut *self.shared.borrow_mut();
        if shared.continue_due {
            shared.continue_due = false;
            shared.transport.output.flat().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !shared.transport.output.is_empty()
            && let Poll::Ready(Err(error)) = shared.transport.poll_flush(cx)
        {
            return Poll::Ready(Some(Err(BodyError::Io(error))));
        }
        shared.reading.poll_frame(&mut shared.transport, cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.shared.borrow().reading.is_done()
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        self.shared.borrow().reading.remaining()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // Not while the connection itself is being polled: a body is never dropped under its borrow.
        if let Ok(mut shared) = self.shared.try_borrow_mut() {
            shared.abandoned = !shared.reading.is_done();
        }
    }
}
