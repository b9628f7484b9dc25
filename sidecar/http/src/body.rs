//! One body type for every protocol and direction: passing a body on costs a move, not a box.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::buffer;
use crate::error::ParseError;
use crate::h1;
use crate::h2;
use crate::io::Upgraded;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer ended the connection in the middle of the body.
    #[error("body ended early")]
    Incomplete,
    /// The connection failed.
    #[error("connection failed in the middle of a body")]
    Io(#[source] std::io::Error),
    /// The body breaks its framing.
    #[error("body breaks its framing")]
    Framing(#[source] ParseError),
    /// The HTTP/2 stream was reset.
    #[error("stream was reset in the middle of a body")]
    Reset(#[source] ::h2::Error),
    /// The proxy itself gave up, for example at a timeout.
    #[error("body was given up: {0}")]
    GivenUp(&'static str),
}

/// Bytes that went through a body.
#[derive(Debug, Default, Clone)]
pub struct ByteCount(Rc<Cell<u64>>);

impl ByteCount {
    /// Bytes so far.
    pub fn total(&self) -> u64 {
        self.0.get()
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes as u64);
    }
}

/// A body of another layer.
pub trait Layer: http_body::Body<Data = Bytes, Error = BodyError> {
    /// Does what can be done without giving a frame: a response's body goes on sending its request while its reader is slow. Ready when
    /// the body is given up meanwhile. A layer around a [`Body`] passes this on.
    fn background(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        let _ = cx;
        Poll::Pending
    }
}

type DynBody = Pin<Box<dyn Layer>>;

/// The body of a request or a response.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    count: Option<ByteCount>,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Request(h1::RequestBody),
    Response(h1::ResponseBody),
    H2(Box<h2::RecvBody>),
    Upgrade(Box<Upgraded>),
    Dyn(DynBody),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Empty => "Body(empty)",
            Kind::Full(_) => "Body(full)",
            Kind::Request(_) => "Body(request)",
            Kind::Response(_) => "Body(response)",
            Kind::H2(_) => "Body(h2)",
            Kind::Upgrade(_) => "Body(upgrade)",
            Kind::Dyn(_) => "Body(dyn)",
        })
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body of known bytes.
    pub fn full(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        if data.is_empty() { Self::empty() } else { Self::of(Kind::Full(data)) }
    }

    /// A body that another layer wraps.
    pub fn wrap(body: impl Layer + 'static) -> Self {
        Self::of(Kind::Dyn(Box::pin(body)))
    }

    pub(crate) fn request(body: h1::RequestBody) -> Self {
        Self::of(Kind::Request(body))
    }

    pub(crate) fn response(body: h1::ResponseBody) -> Self {
        Self::of(Kind::Response(body))
    }

    pub(crate) fn h2(body: h2::RecvBody) -> Self {
        Self::of(Kind::H2(Box::new(body)))
    }

    pub(crate) fn upgrade(stream: Upgraded) -> Self {
        Self::of(Kind::Upgrade(Box::new(stream)))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, count: None }
    }

    /// Counts the body's bytes from here on.
    pub fn count(&mut self) -> ByteCount {
        self.count.get_or_insert_default().clone()
    }

    /// Counts the body's bytes into a counter that exists.
    pub fn count_into(&mut self, count: ByteCount) {
        self.count = Some(count);
    }

    /// Does what can be done without giving a frame; to be called while the body's reader waits for something else. Ready when the body
    /// is given up meanwhile.
    pub fn background(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        match &mut self.kind {
            Kind::Response(body) => body.background(cx),
            Kind::H2(body) => body.background(cx),
            Kind::Dyn(body) => return body.as_mut().background(cx),
            Kind::Empty | Kind::Full(_) | Kind::Request(_) | Kind::Upgrade(_) => {}
        }
        Poll::Pending
    }

    /// The stream behind a 101 response; what is left is an empty body.
    pub fn take_upgrade(&mut self) -> Option<Upgraded> {
        match std::mem::take(&mut self.kind) {
            Kind::Upgrade(stream) => Some(*stream),
            other => {
                self.kind = other;
                None
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match &mut this.kind {
            Kind::Empty | Kind::Upgrade(_) => return Poll::Ready(None),
            Kind::Full(data) => {
                let data = std::mem::replace(data, buffer::EMPTY);
                this.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Kind::Request(body) => body.poll_frame(cx),
            Kind::Response(body) => body.poll_frame(cx),
            Kind::H2(body) => body.poll_frame(cx),
            Kind::Dyn(body) => body.as_mut().poll_frame(cx),
        };
        if let (Some(count), Poll::Ready(Some(Ok(frame)))) = (&this.count, &polled)
            && let Some(data) = frame.data_ref()
        {
            count.add(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Upgrade(_) => true,
            Kind::Full(data) => data.is_empty(),
            Kind::Request(body) => body.is_end_stream(),
            Kind::Response(body) => body.is_end_stream(),
            Kind::H2(body) => body.is_end_stream(),
            Kind::Dyn(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let exact = match &self.kind {
            Kind::Empty | Kind::Upgrade(_) => Some(0),
            Kind::Full(data) => Some(data.len() as u64),
            Kind::Request(body) => body.remaining(),
            Kind::Response(body) => body.remaining(),
            Kind::H2(body) => body.remaining(),
            Kind::Dyn(body) => return body.size_hint(),
        };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
