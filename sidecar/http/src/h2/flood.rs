//! Watches what an HTTP/2 peer sends: many control frames without any request or data are an attack.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::io::{BoxIo, Prefixed};

/// Control frames within a second, without progress, after which the connection is closed.
const CONTROL_FRAMES_MAX: u64 = 1000;
/// A peer that receives may send one control frame more for so many bytes: it must open its window again and again.
const BYTES_A_FRAME: u64 = 1024;
/// Heads that are read before those that were read are looked at. A head of a few bytes may stand for many kilobytes.
const HEADS_AHEAD: u32 = 16;
/// Bytes of a frame header (RFC 9113, 4.1).
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// What a server and the stream it reads from tell each other. Neither wakes the other: both are polled by the same task.
#[derive(Default)]
pub(crate) struct Watch {
    flooded: Cell<bool>,
    heads: Cell<u32>,
    paused: Cell<bool>,
}

impl Watch {
    /// Whether nothing more is read because the client floods.
    pub(crate) fn flooded(&self) -> bool {
        self.flooded.get()
    }

    /// Ends a pause; whether there was one, so that reading must be tried again.
    pub(crate) fn resume(&self) -> bool {
        self.heads.set(0);
        self.paused.take()
    }

    fn stops(&self) -> bool {
        if self.heads.get() >= HEADS_AHEAD {
            self.paused.set(true);
        }
        self.flooded.get() || self.paused.get()
    }
}

/// A stream that follows frame boundaries in what it reads.
pub(crate) struct Watched {
    io: Prefixed<BoxIo>,
    preface_left: usize,
    header: [u8; HEADER_BYTES],
    header_length: usize,
    payload_left: usize,
    control: u32,
    written: u64,
    since: Option<Instant>,
    watch: Option<Rc<Watch>>,
}

impl Watched {
    /// Follows a peer that sends `preface` bytes before its first frame.
    pub(crate) fn new(io: Prefixed<BoxIo>, preface: usize) -> Self {
        let header = [0; HEADER_BYTES];
        Self {
            io,
            preface_left: preface,
            header,
            header_length: 0,
            payload_left: 0,
            control: 0,
            written: 0,
            since: None,
            watch: None,
        }
    }

    /// What a server sees of its client. With it a flood is no error of the stream, so that the server can still say why it ends.
    pub(crate) fn watch(&mut self) -> Rc<Watch> {
        Rc::clone(self.watch.get_or_insert_default())
    }

    /// Whether these bytes keep within the bound.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let skip = self.preface_left.min(bytes.len());
        self.preface_left -= skip;
        bytes = &bytes[skip..];
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skip = self.payload_left.min(bytes.len());
                self.payload_left -= skip;
                bytes = &bytes[skip..];
                continue;
            }
            let take = (HEADER_BYTES - self.header_length).min(bytes.len());
            self.header[self.header_length..self.header_length + take].copy_from_slice(&bytes[..take]);
            self.header_length += take;
            bytes = &bytes[take..];
            if self.header_length == HEADER_BYTES {
                self.header_length = 0;
                let [a, b, c, kind, ..] = self.header;
                self.payload_left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if !self.count(kind) {
                    return false;
                }
            }
        }
        true
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.written += *bytes as u64;
        }
    }

    fn count(&mut self, kind: u8) -> bool {
        if kind == HEADERS
            && let Some(watch) = &self.watch
        {
            watch.heads.set(watch.heads.get() + 1);
        }
        if kind == HEADERS || (kind == DATA && self.payload_left > 0) {
            self.control = 0;
            self.written = 0;
            self.since = None;
            return true;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since).as_secs() >= 1 {
            self.since = Some(now);
            self.control = 0;
            self.written = 0;
        }
        self.control += 1;
        u64::from(self.control) <= CONTROL_FRAMES_MAX + self.written / BYTES_A_FRAME
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watch.as_ref().is_some_and(|watch| watch.stops()) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled
            && !self.follow(&buf.filled()[before..])
        {
            let Some(watch) = &self.watch else {
                return Poll::Ready(Err(io::Error::other("too many control frames")));
            };
            watch.flooded.set(true);
            buf.set_filled(before);
            return Poll::Pending;
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(&polled);
        polled
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
