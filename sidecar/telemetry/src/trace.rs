//! Request identifiers and the trace context that requests carry.

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

/// `x-request-id`
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent` of W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `x-b3-traceid` of Zipkin.
pub const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
/// `b3`, Zipkin's single header.
pub const B3: HeaderName = HeaderName::from_static("b3");

/// A new request identifier: a random UUID.
pub fn new_request_id(rng: &mut impl Rng) -> HeaderValue {
    let mut bytes: [u8; 16] = rng.random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [0u8; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text[at] = b'-';
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The trace that a request belongs to, from W3C or B3 headers.
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let w3c = text(&TRACEPARENT).and_then(|value| value.split('-').nth(1)).filter(|id| is_id(id, &[32]));
    w3c.or_else(|| text(&B3_TRACE_ID).filter(|id| is_id(id, &[16, 32])))
        .or_else(|| text(&B3).and_then(|value| value.split('-').next()).filter(|id| is_id(id, &[16, 32])))
}

fn is_id(id: &str, lengths: &[usize]) -> bool {
    lengths.contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && id.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let mut rng = rand::rng();
        let (one, two) = (new_request_id(&mut rng), new_request_id(&mut rng));
        assert_ne!(one, two);
        let text = one.to_str().unwrap();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }

    #[test]
    fn trace_ids_are_found_in_either_form() {
        let mut headers = HeaderMap::new();
        assert_eq!(trace_id(&headers), None);
        headers.insert(B3, HeaderValue::from_static("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"));
        assert_eq!(trace_id(&headers), Some("80f198ee56343ba864fe8b2a57d3eff7"));
        headers.insert(
            TRACEPARENT,
            HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        );
        assert_eq!(trace_id(&headers), Some("0af7651916cd43dd8448eb211c80319c"));
        headers.insert(
            TRACEPARENT,
            HeaderValue::from_static("00-00000000000000000000000000000000-b7ad6b7169203331-01"),
        );
        assert_eq!(trace_id(&headers), Some("80f198ee56343ba864fe8b2a57d3eff7"));
    }
}
