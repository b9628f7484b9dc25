//! Hop-by-hop headers, and the small questions both codecs ask of a header map.

use std::cell::RefCell;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// `proxy-connection`, a header no standard knows and many clients send.
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// `keep-alive`.
pub const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// `http2-settings`, part of the upgrade to h2c that is not offered.
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A whole number as a header's value. Small ones and the one asked for last cost no memory.
pub fn number(number: u64) -> HeaderValue {
    const SMALL: [&str; 16] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
    }
    if let Some(text) = usize::try_from(number).ok().and_then(|index| SMALL.get(index)) {
        return HeaderValue::from_static(text);
    }
    LAST.with(|last| {
        let mut last = last.borrow_mut();
        if last.0 != number {
            *last = (number, HeaderValue::from(number));
        }
        last.1.clone()
    })
}

/// Whether a request asks for, or a response grants, another protocol. The codecs keep `upgrade` only then.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// Names that `connection` may nominate without their being removed: the mesh relies on them.
fn protected(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length"
            | "transfer-encoding"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "content-type"
            | "x-request-id"
            | "traceparent"
            | "tracestate"
            | "b3"
            | "te"
            | "upgrade"
            | "cache-control"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
        || name.starts_with("x-b3-")
}

/// Removes the headers that `connection` lines nominate; the standard ones the codec never stores.
pub(crate) fn strip_nominated(headers: &mut HeaderMap, nominations: &[HeaderValue]) {
    for value in nominations {
        for token in tokens(value.as_bytes()) {
            if let Some(name) = crate::names::header_name(token)
                && !protected(name.as_str())
            {
                headers.remove(name);
            }
        }
    }
}

/// The elements of a comma-separated list, trimmed; empty ones are left out.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// The declared length of a body, if there is exactly one well-formed `content-length`.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return None;
    }
    parse_length(first.as_bytes())
}

/// A `content-length` value: digits only, without sign, list or overflow.
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| length * 10 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_digits() {
        for value in [0, 7, 15, 16, 15_000, 16, 15_000, u64::MAX] {
            assert_eq!(number(value), HeaderValue::from(value));
        }
    }
}
