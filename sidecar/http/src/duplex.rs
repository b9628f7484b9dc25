//! A byte stream over the two bodies of one exchange, as CONNECT on HTTP/2 has it (RFC 9113, 8.5; RFC 8441).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{Body, BodyError, Layer};
use crate::io::{Prefixed, Upgraded};

/// Bytes written and not yet taken by the response; the writer waits above that.
const PENDING_MAX: usize = 64 * 1024;

/// Bytes on their way from the stream's writer to the response.
#[derive(Debug, Default)]
struct Pipe {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// The writer has closed its side in order.
    closed: bool,
    /// One end is gone: nothing more will come, or nothing more is wanted.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// The stream whose reads are the bytes of `request`, and the body that carries its writes.
pub(crate) fn over_bodies(request: Body) -> (Upgraded, Body) {
    let pipe = Rc::new(RefCell::new(Pipe::default()));
    let stream = Stream { request, rest: Bytes::new(), pipe: Rc::clone(&pipe) };
    (Prefixed::new(BytesMut::new(), Box::new(stream)), Body::wrap(Written(pipe)))
}

struct Stream {
    request: Body,
    rest: Bytes,
    pipe: Rc<RefCell<Pipe>>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.request).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(_trailers) => return Poll::Ready(Ok(())),
                },
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.broken || pipe.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.bytes >= PENDING_MAX {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = buf.len().min(PENDING_MAX - pipe.bytes);
        pipe.chunks.push_back(Bytes::copy_from_slice(&buf[..length]));
        pipe.bytes += length;
        pipe.wake_reader();
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.borrow_mut();
        pipe.closed = true;
        pipe.wake_reader();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.broken = true;
        pipe.wake_reader();
    }
}

/// What the stream's writer wrote.
struct Written(Rc<RefCell<Pipe>>);

impl Layer for Written {}

impl http_body::Body for Written {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut pipe = self.0.borrow_mut();
        if let Some(chunk) = pipe.chunks.pop_front() {
            pipe.bytes -= chunk.len();
            pipe.wake_writer();
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if pipe.closed {
            return Poll::Ready(None);
        }
        if pipe.broken {
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        pipe.broken = true;
        pipe.wake_writer();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn bytes_go_both_ways_and_ends_are_passed_on() {
        let (mut stream, body) = over_bodies(Body::full("hello"));
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
        stream.write_all(b"good").await.unwrap();
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "goodbye");
        assert!(stream.write_all(b"!").await.is_err());
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_holds_the_writer() {
        let (mut stream, mut body) = over_bodies(Body::empty());
        let mut written = 0;
        let mut fill = || {
            let buffer = [7; 10_000];
            let waker = Waker::noop();
            match Pin::new(&mut stream).poll_write(&mut Context::from_waker(waker), &buffer) {
                Poll::Ready(Ok(length)) => {
                    written += length;
                    true
                }
                other => {
                    assert!(other.is_pending());
                    false
                }
            }
        };
        while fill() {}
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
        let taken = frame.into_data().unwrap().len();
        assert!(fill());
        assert_eq!(written, PENDING_MAX + taken);
    }

    #[tokio::test]
    async fn an_end_without_a_word_is_an_error() {
        let (stream, body) = over_bodies(Body::empty());
        drop(stream);
        assert!(matches!(body.collect().await, Err(BodyError::Incomplete)));
        let (mut stream, body) = over_bodies(Body::empty());
        drop(body);
        assert!(stream.write_all(b"x").await.is_err());
    }
}
