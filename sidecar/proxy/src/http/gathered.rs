//! The beginning of a request's body, read before the request is forwarded, and put back before the rest of it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use sidecar_http::{Body, BodyError, Layer};

/// What was read of a body.
pub(super) struct Gathered {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    /// All of it was read.
    pub(super) whole: bool,
}

impl Gathered {
    /// Reads a body until it ends or has more than `bytes_max` bytes; what was read and the rest are in `body` again.
    ///
    /// # Errors
    /// When the client breaks it off.
    pub(super) async fn read(body: &mut Body, bytes_max: usize) -> Result<Self, BodyError> {
        let mut gathered =
            Self { pieces: VecDeque::new(), bytes: 0, trailers: None, whole: body.is_end_stream() };
        while !gathered.whole && gathered.bytes <= bytes_max {
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                None => gathered.whole = true,
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        gathered.bytes += data.len();
                        gathered.pieces.push_back(data);
                        gathered.whole = body.is_end_stream();
                    }
                    Err(frame) => {
                        gathered.trailers = frame.into_trailers().ok();
                        gathered.whole = true;
                    }
                },
            }
        }
        if gathered.bytes > 0 || gathered.trailers.is_some() {
            let again = Again {
                pieces: gathered.pieces.clone(),
                trailers: gathered.trailers.clone(),
                rest: std::mem::take(body),
            };
            *body = Body::wrap(again);
        }
        Ok(gathered)
    }

    /// Bytes that were read.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first bytes, `bytes_max` at most.
    pub(super) fn first(&self, bytes_max: usize) -> Bytes {
        let mut all = BytesMut::with_capacity(self.bytes.min(bytes_max));
        for piece in &self.pieces {
            let room = bytes_max - all.len();
            all.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        all.freeze()
    }
}

/// A body whose beginning was read already.
struct Again {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    rest: Body,
}

impl Layer for Again {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.rest.background(cx)
    }
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(left + rest),
            None => SizeHint::default(),
        }
    }
}
