//! Response heads, as strict as request heads: an upstream may be hostile.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::response::Parts;
use http::{Method, Response, StatusCode, Version};

use super::Framing;
use super::scan::{line, split_header};
use crate::buffer;
use crate::error::ParseError;
use crate::headers::{self, parse_length, tokens};
use crate::names;

/// A parsed response head, without hop-by-hop headers.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) parts: Parts,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    /// How long the server says it keeps an idle connection (`keep-alive: timeout=N`).
    pub(crate) idle_limit: Option<Duration>,
}

/// What was asked: it decides what the response may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) head: bool,
    pub(crate) upgrade: bool,
    pub(crate) connect: bool,
}

impl Asked {
    pub(crate) fn new(method: &Method, upgrade: bool) -> Self {
        Self { head: *method == Method::HEAD, upgrade, connect: *method == Method::CONNECT }
    }
}

#[derive(Debug, Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    idle_limit: Option<Duration>,
    upgrade_to: Option<HeaderValue>,
    nominations: Vec<HeaderValue>,
}

/// Parses a whole head, its empty line included.
pub(crate) fn parse(head: &Bytes, asked: Asked) -> Result<ResponseHead, ParseError> {
    let (first, mut at) = line(head, 0).ok_or(ParseError::StatusLine)?;
    let (version, status) = status_line(first)?;
    let mut parts = Response::new(()).into_parts().0;
    parts.headers = buffer::take_map();
    parts.version = version;
    parts.status = status;
    let mut facts = Facts::default();
    while let Some((text, next)) = line(head, at) {
        if text.is_empty() {
            break;
        }
        let (name_end, start, end) = split_header(text)?;
        let value = HeaderValue::from_maybe_shared(head.slice(at + start..at + end))
            .map_err(|_| ParseError::HeaderValue)?;
        header_line(&mut parts, &mut facts, &text[..name_end], value)?;
        at = next;
    }
    finish(parts, facts, asked)
}

fn finish(mut parts: Parts, facts: Facts, asked: Asked) -> Result<ResponseHead, ParseError> {
    if facts.chunked && (facts.length.is_some() || parts.version == Version::HTTP_10) {
        return Err(ParseError::ConflictingLength);
    }
    if parts.status == StatusCode::SWITCHING_PROTOCOLS && !(asked.upgrade && facts.upgrade_to.is_some()) {
        return Err(ParseError::UnexpectedResponse);
    }
    if !facts.nominations.is_empty() {
        headers::strip_nominated(&mut parts.headers, &facts.nominations);
    }
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(protocol)) = (parts.status, facts.upgrade_to) {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    let no_body = asked.head
        || parts.status.is_informational()
        || parts.status == StatusCode::NO_CONTENT
        || parts.status == StatusCode::NOT_MODIFIED
        || (asked.connect && parts.status.is_success());
    if no_body && !asked.head && parts.status != StatusCode::NOT_MODIFIED {
        if facts.chunked || facts.length.is_some_and(|length| length > 0) {
            return Err(ParseError::UnexpectedResponse);
        }
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let framing = match (no_body, facts.chunked, facts.length) {
        (true, ..) => Framing::Length(0),
        (_, true, _) => Framing::Chunked,
        (_, _, Some(length)) => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    let persistent = match parts.version {
        Version::HTTP_11 => !facts.close,
        _ => facts.keep_alive && !facts.close,
    };
    let keep_alive = persistent && framing != Framing::UntilClose;
    Ok(ResponseHead { parts, framing, keep_alive, idle_limit: facts.idle_limit })
}

/// `HTTP/1.x SP 3DIGIT [SP reason]`.
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), ParseError> {
    let (version, rest) = match line.split_at_checked(9) {
        Some((b"HTTP/1.1 ", rest)) => (Version::HTTP_11, rest),
        Some((b"HTTP/1.0 ", rest)) => (Version::HTTP_10, rest),
        _ => return Err(ParseError::StatusLine),
    };
    let (code, reason) = rest.split_at_checked(3).ok_or(ParseError::StatusLine)?;
    let reason_ok = match reason {
        [] => true,
        [b' ', text @ ..] => text.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)),
        _ => false,
    };
    let status = StatusCode::from_bytes(code).map_err(|_| ParseError::StatusLine)?;
    if !reason_ok || status.as_u16() > 599 {
        return Err(ParseError::StatusLine);
    }
    Ok((version, status))
}

fn header_line(
    parts: &mut Parts,
    facts: &mut Facts,
    name: &[u8],
    value: HeaderValue,
) -> Result<(), ParseError> {
    let name = names::header_name(name).ok_or(ParseError::HeaderName)?;
    let bytes = value.as_bytes();
    match name {
        header::CONTENT_LENGTH => {
            let length = parse_length(bytes).ok_or(ParseError::ContentLength)?;
            match facts.length.replace(length) {
                None => {}
                Some(_) => return Err(ParseError::ContentLength),
            }
        }
        header::TRANSFER_ENCODING => {
            if facts.chunked || !bytes.eq_ignore_ascii_case(b"chunked") {
                return Err(ParseError::TransferEncoding);
            }
            facts.chunked = true;
            return Ok(());
        }
        header::CONNECTION => {
            for token in tokens(bytes) {
                if token.eq_ignore_ascii_case(b"close") {
                    facts.close = true;
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    facts.keep_alive = true;
                } else if !token.eq_ignore_ascii_case(b"upgrade") && facts.nominations.last() != Some(&value)
                {
                    facts.nominations.push(value.clone());
                }
            }
            return Ok(());
        }
        header::UPGRADE => {
            facts.upgrade_to = Some(value);
            return Ok(());
        }
        _ if name == headers::KEEP_ALIVE => {
            facts.idle_limit = idle_limit(bytes);
            return Ok(());
        }
        _ if name == headers::PROXY_CONNECTION => return Ok(()),
        _ => {}
    }
    parts.headers.append(name, value);
    Ok(())
}

/// `timeout=N` in a `keep-alive` header (RFC 2068, 19.7.1.1): seconds.
fn idle_limit(value: &[u8]) -> Option<Duration> {
    let seconds = tokens(value).find_map(|token| token.strip_prefix(b"timeout="))?;
    parse_length(seconds).map(Duration::from_secs)
}
