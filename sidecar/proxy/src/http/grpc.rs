//! What is particular to gRPC: its content type, timeouts, messages and status.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Frame, SizeHint};
use sidecar_http::{Body, BodyError, Layer};

use super::reply::GRPC_STATUS;

/// `grpc-timeout`
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a content type is gRPC's.
pub(super) fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The status in headers or trailers.
pub(super) fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// A `grpc-timeout`: at most eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Counts the length-prefixed messages in a stream of bytes.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    prefix_length: usize,
    left: u64,
}

impl Messages {
    /// Messages that begin in these bytes.
    fn follow(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let skip = usize::try_from(self.left).map_or(data.len(), |left| left.min(data.len()));
                self.left -= skip as u64;
                data = &data[skip..];
                continue;
            }
            let take = (self.prefix.len() - self.prefix_length).min(data.len());
            self.prefix[self.prefix_length..self.prefix_length + take].copy_from_slice(&data[..take]);
            self.prefix_length += take;
            data = &data[take..];
            if self.prefix_length == self.prefix.len() {
                let [_, a, b, c, d] = self.prefix;
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.prefix_length = 0;
                begun += 1;
            }
        }
        begun
    }
}

/// A body whose messages are counted, and whose trailers tell the status.
pub(super) struct Counted {
    body: Body,
    messages: Messages,
    count: Rc<Cell<u64>>,
    status: Option<Rc<Cell<Option<u16>>>>,
}

impl Counted {
    pub(super) fn new(body: Body, count: &Rc<Cell<u64>>, status: Option<&Rc<Cell<Option<u16>>>>) -> Self {
        Self { body, messages: Messages::default(), count: Rc::clone(count), status: status.cloned() }
    }
}

impl Layer for Counted {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.body.background(cx)
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(data) = frame.data_ref() {
                this.count.set(this.count.get() + this.messages.follow(data));
            } else if let (Some(trailers), Some(cell)) = (frame.trailers_ref(), &this.status)
                && let Some(status) = status(trailers)
            {
                cell.set(Some(status));
            }
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [0u32, 3, 300] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(vec![7; length as usize]);
        }
        for size in 1..20 {
            let mut messages = Messages::default();
            assert_eq!(stream.chunks(size).map(|part| messages.follow(part)).sum::<u64>(), 3);
        }
    }

    #[test]
    fn timeouts_are_read_strictly() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(text));
            timeout(&headers)
        };
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "100", "-1S", "123456789S", "1.5S", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!(
            is_grpc(b"application/grpc")
                && is_grpc(b"application/grpc+proto")
                && !is_grpc(b"application/grpc-web")
        );
    }
}
