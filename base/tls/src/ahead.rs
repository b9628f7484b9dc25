//! Reads from a socket in larger pieces than TLS asks for: rustls reads 4 KiB at a time, four system calls for one full record.
//!
//! A stream of small messages never gets a buffer: only when a read came back full is more likely to be there.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once: four records with their overhead.
const AHEAD_BYTES: usize = 68 * 1024;
/// Buffers that one thread keeps.
const KEPT: usize = 2;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A stream that reads ahead while much comes.
pub(crate) struct ReadAhead<IO> {
    io: IO,
    /// Empty unless bytes are in it.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read filled what it was given.
    full: bool,
}

impl<IO> ReadAhead<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, buffer: Box::default(), start: 0, end: 0, full: false }
    }

    pub(crate) fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Gives the buffer back, which holds nothing any more.
    fn release(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        (self.start, self.end) = (0, 0);
        if !buffer.is_empty() {
            // A thread that is ending has none to keep.
            let _ = BUFFERS.try_with(|kept| {
                let mut kept = kept.borrow_mut();
                if kept.len() < KEPT {
                    kept.push(buffer);
                }
            });
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start == this.end {
            if !this.full {
                let before = out.filled().len();
                ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
                this.full = out.remaining() == 0 && out.filled().len() > before;
                return Poll::Ready(Ok(()));
            }
            if this.buffer.is_empty() {
                let kept = BUFFERS.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
                this.buffer = kept.unwrap_or_else(|| vec![0; AHEAD_BYTES].into_boxed_slice());
            }
            let mut ahead = ReadBuf::new(&mut this.buffer);
            let polled = Pin::new(&mut this.io).poll_read(cx, &mut ahead);
            let read = ahead.filled().len();
            if !matches!(polled, Poll::Ready(Ok(()))) || read == 0 {
                this.full = false;
                this.release();
                return polled;
            }
            (this.start, this.end) = (0, read);
            this.full = read == AHEAD_BYTES;
        }
        let take = out.remaining().min(this.end - this.start);
        out.put_slice(&this.buffer[this.start..this.start + take]);
        this.start += take;
        if this.start == this.end && !this.full {
            this.release();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn everything_arrives_in_order_and_nothing_is_kept_at_rest() {
        let (mut near, far) = tokio::io::duplex(256 * 1024);
        let sent: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
        near.write_all(&sent).await.unwrap();
        let mut ahead = ReadAhead::new(far);
        let mut received = Vec::new();
        let (mut piece, mut most) = ([0; 4096], 0);
        while received.len() < sent.len() {
            let read = ahead.read(&mut piece).await.unwrap();
            received.extend_from_slice(&piece[..read]);
            most = most.max(ahead.end - ahead.start);
        }
        assert!(received == sent, "bytes differ");
        assert!(most > 32 * 1024, "it never read ahead: {most}");
        near.write_all(b"small").await.unwrap();
        assert_eq!(ahead.read(&mut piece).await.unwrap(), 5);
        assert!(ahead.buffer.is_empty(), "a resting stream holds a buffer");
        near.shutdown().await.unwrap();
        assert_eq!(ahead.read(&mut piece).await.unwrap(), 0);
    }
}
