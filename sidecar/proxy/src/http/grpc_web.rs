//! gRPC-Web: gRPC for clients that cannot read trailers, turned into gRPC and back.
//!
//! Source: the protocol document PROTOCOL-WEB.md of gRPC, and Envoy's `grpc_web` filter for what it leaves open. The text form is base64;
//! trailers come as a last message with the flag 0x80.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use sidecar_http::{Body, BodyError, Layer};

/// `grpc-accept-encoding`
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Flag of the message that holds the trailers.
const TRAILERS: u8 = 0x80;

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// The request comes as base64.
    text_request: bool,
    /// The response is wanted as base64.
    text_response: bool,
}

/// Makes a gRPC-Web request's head one of gRPC; none if it is something else.
pub(super) fn begin(headers: &mut HeaderMap) -> Option<Call> {
    let kind = |name: HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        let media = value.split(';').next().unwrap_or_default().trim();
        match media.to_ascii_lowercase().as_str() {
            "application/grpc-web" | "application/grpc-web+proto" => Some(false),
            "application/grpc-web-text" | "application/grpc-web-text+proto" => Some(true),
            _ => None,
        }
    };
    let text_request = kind(header::CONTENT_TYPE)?;
    let call = Call { text_request, text_response: kind(header::ACCEPT) == Some(true) };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,deflate,gzip"));
    Some(call)
}

impl Call {
    /// The request's body as gRPC has it.
    pub(super) fn request(self, body: Body) -> Body {
        if self.text_request { Body::wrap(Decoded { body, rest: BytesMut::new() }) } else { body }
    }

    /// The response as the client reads it.
    pub(super) fn response(self, response: Response<Body>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        let kind =
            if self.text_response { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        parts.headers.remove(header::TRAILER);
        // A head that is all there is carries the status itself.
        let is_all = http_body::Body::is_end_stream(&body);
        if !is_all {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        let body =
            if is_all { body } else { Body::wrap(Encoded { body, text: self.text_response, ended: false }) };
        Response::from_parts(parts, body)
    }
}

/// Base64 turned into bytes.
struct Decoded {
    body: Body,
    /// Characters of a group of four that is not complete.
    rest: BytesMut,
}

impl Decoded {
    /// Decodes the complete groups. Each may be padded: a client may encode every message by itself.
    fn decode(&mut self, data: &[u8]) -> Option<Bytes> {
        self.rest.extend_from_slice(data);
        let whole = self.rest.len() / 4 * 4;
        let groups = self.rest.split_to(whole);
        let mut out = BytesMut::with_capacity(whole / 4 * 3);
        let mut begin = 0;
        // Up to each padded group at once.
        for end in (4..=whole).step_by(4).filter(|end| groups[end - 1] == b'=' || *end == whole) {
            out.extend_from_slice(&STANDARD.decode(&groups[begin..end]).ok()?);
            begin = end;
        }
        Some(out.freeze())
    }
}

impl Layer for Decoded {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.body.background(cx)
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let bad = BodyError::GivenUp("Bad gRPC-web request, invalid base64 data.");
        loop {
            let this = &mut *self;
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
                let whole = std::mem::take(&mut this.rest).is_empty();
                return Poll::Ready((!whole).then_some(Err(bad)));
            };
            match frame?.into_data() {
                Ok(data) => match this.decode(&data) {
                    Some(data) if data.is_empty() => {}
                    Some(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    None => return Poll::Ready(Some(Err(bad))),
                },
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

/// A response whose trailers become its last message, in base64 if the client wants that.
struct Encoded {
    body: Body,
    text: bool,
    ended: bool,
}

impl Encoded {
    fn encode(&self, data: Bytes) -> Bytes {
        if self.text { STANDARD.encode(data).into() } else { data }
    }
}

impl Layer for Encoded {
    fn background(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BodyError> {
        self.body.background(cx)
    }
}

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => {
                this.ended = true;
                frame.into_trailers().map_or_else(|_| Bytes::new(), |trailers| trailers_message(&trailers))
            }
        };
        Poll::Ready(Some(Ok(Frame::data(this.encode(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}

fn trailers_message(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    let mut message = BytesMut::with_capacity(lines.len() + 5);
    message.put_u8(TRAILERS);
    message.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    message.extend_from_slice(&lines);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_its_own_content_types_are_touched() {
        for other in ["application/grpc", "application/json", "application/grpc-web2", "text/grpc-web"] {
            let before = headers(&[("content-type", other)]);
            let mut after = before.clone();
            assert_eq!(begin(&mut after), None);
            assert_eq!(before, after);
        }
        let mut text = headers(&[
            ("content-type", "application/grpc-web-text; charset=utf-8"),
            ("accept", "application/grpc-web-text"),
            ("content-length", "8"),
        ]);
        assert_eq!(begin(&mut text), Some(Call { text_request: true, text_response: true }));
        assert_eq!(text["content-type"], "application/grpc");
        assert_eq!(text["te"], "trailers");
        assert!(!text.contains_key("content-length"));
        let mut binary = headers(&[("content-type", "application/grpc-web+proto"), ("accept", "*/*")]);
        assert_eq!(begin(&mut binary), Some(Call { text_request: false, text_response: false }));
    }

    #[test]
    fn base64_is_decoded_however_it_is_cut_and_padded() {
        // Two messages, each encoded by itself and padded.
        let (one, two) = (&b"\0\0\0\0\x01a"[..], &b"\0\0\0\0\x02bc"[..]);
        let encoded = [STANDARD.encode(one), STANDARD.encode(two)].concat();
        for size in 1..encoded.len() {
            let mut decoded = Decoded { body: Body::empty(), rest: BytesMut::new() };
            let out: Vec<u8> =
                encoded.as_bytes().chunks(size).flat_map(|part| decoded.decode(part).unwrap()).collect();
            assert_eq!(out, [one, two].concat());
            assert!(decoded.rest.is_empty());
        }
        for bad in ["AA=A", "A===", "A\u{7f}AA", "AAAA=AAA"] {
            let mut decoded = Decoded { body: Body::empty(), rest: BytesMut::new() };
            assert_eq!(decoded.decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
