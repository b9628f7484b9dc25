//! One gRPC call with one message each way (gRPC over HTTP/2, "Requests" and "Responses").

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use prost::Message;
use sidecar_model::ext_authz::GrpcService;

use crate::AnswerError;

const PREFIX_BYTES: usize = 5;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The head of a call of `path`, such as `/package.Service/Method`.
#[must_use]
pub fn head(service: &GrpcService, path: &'static str) -> Parts {
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::POST;
    parts.version = Version::HTTP_2;
    parts.uri = Uri::from_static(path);
    let headers = &mut parts.headers;
    if let Ok(authority) = HeaderValue::from_str(&service.authority) {
        headers.insert(HOST, authority);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    // At most eight digits; a longer time is as good as none.
    let milliseconds = service.timeout.as_millis();
    if milliseconds < 100_000_000
        && let Ok(value) = HeaderValue::try_from(format!("{milliseconds}m"))
    {
        headers.insert(GRPC_TIMEOUT, value);
    }
    for (name, value) in &service.metadata {
        headers.append(name, value.clone());
    }
    parts
}

/// A message as the body of a call.
#[must_use]
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // Encoding fails only for want of room, and BytesMut grows.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

/// The only message of an answer.
///
/// # Errors
/// When it is compressed, cut, more than one, or cannot be decoded.
pub fn unframe<M: Message + Default>(body: &[u8]) -> Result<M, AnswerError> {
    let (prefix, message) = body.split_at_checked(PREFIX_BYTES).ok_or(AnswerError::Framing)?;
    let [compressed, length @ ..] = prefix else { return Err(AnswerError::Framing) };
    if *compressed != 0 {
        return Err(AnswerError::Compressed);
    }
    let length = <[u8; 4]>::try_from(length).map(u32::from_be_bytes).map_err(|_| AnswerError::Framing)?;
    if message.len() as u64 != u64::from(length) {
        return Err(AnswerError::Framing);
    }
    M::decode(message).map_err(|error| AnswerError::Message(error.to_string()))
}

/// The status of a call: in its trailers, or in its headers when there is nothing else. None at all is a failed call.
#[must_use]
pub fn status(headers: &HeaderMap, trailers: Option<&HeaderMap>) -> Option<u16> {
    let status = trailers.and_then(|trailers| trailers.get(GRPC_STATUS)).or_else(|| headers.get(GRPC_STATUS));
    status?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies_xds::auth_service::{CheckRequest, CheckResponse};

    #[test]
    fn one_whole_message_is_read_and_nothing_else() {
        assert_eq!(unframe::<CheckRequest>(&frame(&CheckRequest::default())), Ok(CheckRequest::default()));
        for (body, error) in [
            (&b""[..], AnswerError::Framing),
            (b"\0\0\0\0", AnswerError::Framing),
            (b"\x01\0\0\0\0", AnswerError::Compressed),
            (b"\0\0\0\0\x05ab", AnswerError::Framing),
            (b"\0\0\0\0\0\0\0\0\0\0", AnswerError::Framing),
            (b"\0\xff\xff\xff\xff", AnswerError::Framing),
        ] {
            assert_eq!(unframe::<CheckResponse>(body), Err(error), "{body:?}");
        }
        assert!(matches!(unframe::<CheckResponse>(b"\0\0\0\0\x02\x0a\x7f"), Err(AnswerError::Message(_))));
    }
}
