//! A connection's stream with what was read and not yet parsed, and what was encoded and not yet written.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use crate::buffer;
use crate::io::{BoxIo, Upgraded};

/// Below this much room a read gets a fresh buffer.
const ROOM_MIN: usize = 2048;
/// Body bytes up to this length are copied behind the head rather than written as a piece of their own.
const COPY_MAX: usize = 2048;
/// Encoded bytes above which no further piece is accepted before a write.
const FLAT_MAX: usize = 16 * 1024;

/// The stream and its buffers.
pub(crate) struct Transport {
    io: BoxIo,
    /// Bytes read and not yet consumed.
    pub(crate) input: BytesMut,
    /// Bytes encoded and not yet written.
    pub(crate) output: Output,
    ended: bool,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("input", &self.input.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Transport {
    pub(crate) fn new(io: BoxIo, input: BytesMut) -> Self {
        Self { io, input, output: Output::default(), ended: false }
    }

    /// Reads once; zero is the end of the stream. While nothing comes, no buffer is held.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.input.capacity() - self.input.len() < ROOM_MIN {
            if self.input.is_empty() {
                if !buffer::reclaim(&mut self.input) {
                    self.input = buffer::take();
                }
            } else {
                self.input.reserve(buffer::BUFFER_BYTES);
            }
        }
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input) {
            Poll::Pending => {
                self.park();
                Poll::Pending
            }
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                Poll::Ready(Ok(0))
            }
            other => other,
        }
    }

    /// Gives the read buffer back if it is empty and nothing refers to it.
    fn park(&mut self) {
        if self.input.is_empty() && buffer::reclaim(&mut self.input) {
            buffer::give(mem::take(&mut self.input));
        }
    }

    /// Whether the peer has ended its side.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Writes everything that is encoded.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.output.poll_write(&mut self.io, cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Ends this side of the stream.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// The bare stream, with the bytes that came early.
    pub(crate) fn into_upgraded(mut self) -> Upgraded {
        let input = mem::take(&mut self.input);
        // A stream of its own memory: the pooled buffer's lifetime would be the tunnel's.
        Upgraded::new(if input.is_empty() { BytesMut::new() } else { input }, self.io)
    }
}

/// Encoded output: small pieces in one buffer, then at most one large piece with its static tail.
#[derive(Debug, Default)]
pub(crate) struct Output {
    flat: BytesMut,
    data: Bytes,
    tail: &'static [u8],
}

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.flat.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether another piece may be added before a write.
    pub(crate) fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.flat.len() < FLAT_MAX
    }

    /// The buffer small pieces are encoded into; only while [`Self::has_room`].
    pub(crate) fn flat(&mut self) -> &mut BytesMut {
        if self.flat.capacity() == 0 {
            self.flat = buffer::take();
        }
        &mut self.flat
    }

    /// Adds body bytes followed by `tail`; only while [`Self::has_room`].
    pub(crate) fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPY_MAX {
            let flat = self.flat();
            flat.extend_from_slice(&data);
            flat.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    fn poll_write(&mut self, io: &mut BoxIo, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let pieces = [IoSlice::new(&self.flat), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            let first = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or(0);
            let single = pieces[first + 1..].iter().all(|piece| piece.is_empty());
            let written = if single || !io.is_write_vectored() {
                ready!(Pin::new(&mut *io).poll_write(cx, &pieces[first]))?
            } else {
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &pieces[first..]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        if self.flat.capacity() > 0 {
            buffer::give(mem::take(&mut self.flat));
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let flat = written.min(self.flat.len());
        self.flat.advance(flat);
        written -= flat;
        let data = written.min(self.data.len());
        self.data.advance(data);
        written -= data;
        if self.data.is_empty() {
            self.data = buffer::EMPTY;
        }
        self.tail = &self.tail[written.min(self.tail.len())..];
    }
}
