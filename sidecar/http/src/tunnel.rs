//! Two streams joined: bytes both ways, half-closes passed on, an idle limit, buffers only while bytes move.

use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::io::poll_read_buf;

use crate::body::ByteCount;
use crate::buffer;

/// Why a tunnel ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides have closed in order.
    Closed,
    /// Nothing moved for the idle limit.
    Idle,
    /// Reading from or writing to the client failed.
    Downstream(io::Error),
    /// Reading from or writing to the upstream failed.
    Upstream(io::Error),
}

/// Copies between `down` and `up` until both directions have ended. `sent` counts bytes towards the upstream, `received` those
/// towards the client, so that a report can be made while the tunnel runs. Dropping the future closes both.
pub async fn join<D, U>(
    mut down: D,
    mut up: U,
    idle: Duration,
    sent: &ByteCount,
    received: &ByteCount,
) -> Ended
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = Direction::default();
    let mut back = Direction::default();
    let mut clock = Clock { idle, last: Instant::now(), timer: None };
    poll_fn(|cx| {
        let before = sent.total() + received.total();
        let first = out.poll(cx, &mut down, &mut up, sent);
        let second = back.poll(cx, &mut up, &mut down, received);
        for polled in [first.map_err(Fault::into_forward), second.map_err(Fault::into_backward)] {
            if let Poll::Ready(Err(ended)) = polled {
                return Poll::Ready(ended);
            }
        }
        if out.done() && back.done() {
            return Poll::Ready(Ended::Closed);
        }
        clock.poll(cx, sent.total() + received.total() != before).map(|()| Ended::Idle)
    })
    .await
}

struct Clock {
    idle: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn poll(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<()> {
        if self.idle.is_zero() {
            return Poll::Pending;
        }
        if moved {
            self.last = Instant::now();
        }
        let deadline = self.last + self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

impl Fault {
    fn into_forward(self) -> Ended {
        match self {
            Self::Read(error) => Ended::Downstream(error),
            Self::Write(error) => Ended::Upstream(error),
        }
    }

    fn into_backward(self) -> Ended {
        match self {
            Self::Read(error) => Ended::Upstream(error),
            Self::Write(error) => Ended::Downstream(error),
        }
    }
}

#[derive(Default)]
struct Direction {
    pending: BytesMut,
    read_end: bool,
    unflushed: bool,
    shut: bool,
    /// The last fill left no room: a larger buffer saves system calls.
    much: bool,
    /// Why reading failed, until what was read before is written.
    failed: Option<io::Error>,
}

impl Direction {
    fn done(&self) -> bool {
        self.shut
    }

    /// An empty buffer of the size that suits what moves.
    fn make_room(&mut self) {
        if self.much {
            if self.pending.capacity() < buffer::LARGE_BYTES && !self.pending.try_reclaim(buffer::LARGE_BYTES)
            {
                buffer::give(mem::replace(&mut self.pending, buffer::take_large()));
            }
        } else if self.pending.capacity() < buffer::BUFFER_BYTES && !buffer::reclaim(&mut self.pending) {
            self.pending = buffer::take();
        }
    }

    /// Reads until the buffer is full, nothing more is there, or the side has ended; false when nothing at all came.
    fn fill<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, from: &mut R) -> io::Result<bool> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while self.pending.len() < self.pending.capacity() {
            match poll_read_buf(Pin::new(&mut *from), cx, &mut self.pending) {
                Poll::Ready(Ok(0)) => {
                    self.read_end = true;
                    return Ok(true);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) if self.pending.is_empty() => return Err(error),
                Poll::Ready(Err(error)) => {
                    // What came before is passed on first.
                    self.failed = Some(error);
                    return Ok(true);
                }
                Poll::Pending => {
                    self.much = false;
                    return Ok(!self.pending.is_empty());
                }
            }
        }
        self.much = true;
        Ok(true)
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &ByteCount,
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.pending.is_empty() {
                let written =
                    ready!(Pin::new(&mut *to).poll_write(cx, &self.pending)).map_err(Fault::Write)?;
                if written == 0 {
                    return Poll::Ready(Err(Fault::Write(io::ErrorKind::WriteZero.into())));
                }
                count.add(written);
                self.pending.advance(written);
                self.unflushed = true;
            }
            if self.read_end {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Fault::Write)?;
                self.shut = true;
                return Poll::Ready(Ok(()));
            }
            self.make_room();
            if self.fill(cx, from).map_err(Fault::Read)? {
                continue;
            }
            // Nothing came.
            buffer::give(mem::take(&mut self.pending));
            self.much = false;
            if self.unflushed {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Fault::Write)?;
                self.unflushed = false;
            }
            return Poll::Pending;
        }
    }
}
