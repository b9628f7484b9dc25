//! Replies: bytes, JSON, streams, errors.

use std::{io, pin::Pin};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::Value;

use crate::error::ApiError;

/// The body of every reply.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A reply being made.
#[derive(Debug)]
pub(crate) struct Reply(Response<Body>);

// === impl Reply ===

impl Reply {
    fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        Self(response)
    }

    pub(crate) fn bytes(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Self {
        Self::with_body(status, content_type, Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
    }

    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::bytes(status, "text/plain; charset=utf-8", Bytes::from(text.into()))
    }

    pub(crate) fn json(status: StatusCode, value: &Value) -> Self {
        let mut text = value.to_string();
        text.push('\n');
        Self::bytes(status, "application/json", Bytes::from(text))
    }

    /// A body that goes on until the stream ends.
    pub(crate) fn stream(
        content_type: &'static str,
        frames: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Self {
        let frames: Pin<Box<dyn Stream<Item = Bytes> + Send>> = Box::pin(frames);
        let body = StreamBody::new(frames.map(|bytes| Ok(Frame::data(bytes))));
        Self::with_body(StatusCode::OK, content_type, body.boxed_unsync())
    }

    /// A response that somebody else made.
    pub(crate) fn raw(response: Response<Body>) -> Self {
        Self(response)
    }

    pub(crate) fn from_error(error: &ApiError) -> Self {
        let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = Self::json(status, &error.status());
        if let Some(seconds) = error.retry_after_seconds() {
            reply = reply.header(header::RETRY_AFTER, &seconds.to_string());
        }
        reply
    }

    /// Sets a header; an invalid value is left out.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers_mut().insert(name, value);
        }
        self
    }

    /// Adds a `Warning` header.
    pub(crate) fn warn(&mut self, text: &str) {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1024).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            self.0.headers_mut().append(header::WARNING, value);
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status()
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        self.0
    }
}
