//! Answers that are made here.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use sidecar_http::Body;

use super::failure::{Failure, grpc_status};
use super::record::Record;

/// `x-envoy-overloaded`
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
/// `x-envoy-local-overloaded`
const LOCAL_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-local-overloaded");
/// How the answer to a request whose upstream was lost begins.
const RESET: &str = "upstream connect error or disconnect/reset before headers";
/// `grpc-status`
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// `grpc-message`
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The answer to a request that failed, with what is reported of it.
pub(super) fn failed(failure: &Failure, record: &mut Record) -> Response<Body> {
    let mut meaning = failure.meaning();
    if record.attempts > 1 && meaning.body.starts_with(RESET) {
        meaning.body = meaning.body.replacen(". reset", ". retried and the latest reset", 1).into();
    }
    if let Some(flag) = meaning.flag {
        record.flags.insert(flag);
    }
    if !meaning.transport.is_empty() {
        record.transport_failure = meaning.transport;
    }
    record.details = meaning.details;
    let mut response = if record.grpc || matches!(failure, Failure::FaultGrpc(_)) {
        let status = meaning.grpc_status.unwrap_or_else(|| grpc_status(meaning.status));
        grpc(status, &meaning.body, record)
    } else {
        text(meaning.status, meaning.body.into_owned().into_bytes())
    };
    if *failure == Failure::Overloaded {
        response.headers_mut().insert(LOCAL_OVERLOADED, HeaderValue::from_static("true"));
    }
    if meaning.overloaded {
        response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    response
}

/// What a route answers itself, in the form that the client understands.
pub(super) fn local(status: StatusCode, body: &[u8], record: &mut Record) -> Response<Body> {
    if record.grpc {
        return grpc(grpc_status(status), &String::from_utf8_lossy(body), record);
    }
    text(status, bytes::Bytes::copy_from_slice(body))
}

/// An answer with a plain text.
pub(super) fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let body = body.into();
    let mut headers = HeaderMap::new();
    if !body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An answer that a gRPC client understands: status and message in headers alone.
fn grpc(status: u16, message: &str, record: &mut Record) -> Response<Body> {
    record.grpc_status.set(Some(status));
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    if !message.is_empty() {
        let mut encoded = String::with_capacity(message.len());
        for byte in message.bytes() {
            // gRPC over HTTP/2, "Responses": printable ASCII but `%` stands for itself.
            if matches!(byte, 0x20..=0x7e) && byte != b'%' {
                encoded.push(char::from(byte));
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
        }
        if let Ok(value) = HeaderValue::try_from(encoded) {
            headers.insert(GRPC_MESSAGE, value);
        }
    }
    response
}
