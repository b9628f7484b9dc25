//! Request heads: RFC 9112 without its leniencies.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

use super::Framing;
use super::scan::{is_token, line, split_header};
use crate::buffer;
use crate::error::ParseError;
use crate::headers::{self, parse_length, tokens};
use crate::names;

/// A parsed request head. Hop-by-hop headers are not in the map: what they say is in the fields.
#[derive(Debug)]
pub(crate) struct RequestHead {
    /// Method, target (a path, `*`, or an authority for CONNECT), version, headers with exactly one `host` on 1.1.
    pub(crate) parts: Parts,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) expect_continue: bool,
}

/// What the headers say about the message itself.
#[derive(Debug, Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    expect_continue: bool,
    upgrade_to: Option<HeaderValue>,
    nominations: Vec<HeaderValue>,
}

/// Parses a whole head, its empty line included.
pub(crate) fn parse(head: &Bytes) -> Result<RequestHead, ParseError> {
    let (first, mut at) = line(head, 0).ok_or(ParseError::RequestLine)?;
    let (method, target, version) = request_line(first)?;
    let mut parts = Request::new(()).into_parts().0;
    parts.headers = buffer::take_map();
    parts.version = version;
    let target_at = method.len() + 1;
    parts.method = Method::from_bytes(method).map_err(|_| ParseError::Method)?;
    let authority = set_target(&mut parts, &head.slice(target_at..target_at + target.len()))?;
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
    finish(parts, facts, authority)
}

fn finish(mut parts: Parts, facts: Facts, authority: Option<HeaderValue>) -> Result<RequestHead, ParseError> {
    if facts.chunked && facts.length.is_some() {
        return Err(ParseError::ConflictingLength);
    }
    if facts.chunked && parts.version == Version::HTTP_10 {
        return Err(ParseError::TransferEncoding);
    }
    match (parts.headers.get(header::HOST), parts.version) {
        (None, Version::HTTP_10) => {}
        (None, _) => return Err(ParseError::Host),
        (Some(host), _) if !valid_host(host.as_bytes()) => return Err(ParseError::Host),
        (Some(_), _) => {}
    }
    if let Some(authority) = authority {
        // RFC 9112, 3.2.2: the target's authority replaces whatever Host says.
        parts.headers.insert(header::HOST, authority);
    }
    if !facts.nominations.is_empty() {
        headers::strip_nominated(&mut parts.headers, &facts.nominations);
    }
    if let (true, Some(protocol), Version::HTTP_11) = (facts.upgrade, facts.upgrade_to, parts.version)
        && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")
    {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    let framing = if facts.chunked { Framing::Chunked } else { Framing::Length(facts.length.unwrap_or(0)) };
    let keep_alive = match parts.version {
        Version::HTTP_11 => !facts.close,
        _ => facts.keep_alive && !facts.close,
    };
    let expect_continue =
        facts.expect_continue && parts.version == Version::HTTP_11 && framing != Framing::Length(0);
    Ok(RequestHead { parts, framing, keep_alive, expect_continue })
}

/// Method, target, version: exactly two single spaces.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), ParseError> {
    let method_end = line.iter().position(|byte| !is_token(*byte)).ok_or(ParseError::RequestLine)?;
    if method_end == 0 || line[method_end] != b' ' {
        return Err(ParseError::Method);
    }
    let rest = &line[method_end + 1..];
    let target_end =
        rest.iter().position(|byte| !matches!(byte, 0x21..=0x7e)).ok_or(ParseError::RequestLine)?;
    if target_end == 0 || rest[target_end] != b' ' {
        return Err(ParseError::Target);
    }
    let version = match &rest[target_end + 1..] {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(ParseError::Version);
        }
        _ => return Err(ParseError::RequestLine),
    };
    Ok((&line[..method_end], &rest[..target_end], version))
}

/// Stores the target; returns the authority of an absolute target, which overrides Host.
fn set_target(parts: &mut Parts, target: &Bytes) -> Result<Option<HeaderValue>, ParseError> {
    let connect = parts.method == Method::CONNECT;
    if target.contains(&b'#') || target.contains(&b'\\') {
        return Err(ParseError::Target);
    }
    match target[0] {
        b'/' if !connect => {
            parts.uri = Uri::from_maybe_shared(target.clone()).map_err(|_| ParseError::Target)?;
            Ok(None)
        }
        b'*' if target.len() == 1 && parts.method == Method::OPTIONS => {
            parts.uri = Uri::from_static("*");
            Ok(None)
        }
        _ if connect => {
            let colon = target.iter().rposition(|byte| *byte == b':').ok_or(ParseError::Target)?;
            if colon == 0 || colon + 1 == target.len() || !valid_host(target) {
                return Err(ParseError::Target);
            }
            parts.uri = Uri::from_maybe_shared(target.clone()).map_err(|_| ParseError::Target)?;
            Ok(Some(HeaderValue::from_maybe_shared(target.clone()).map_err(|_| ParseError::Target)?))
        }
        _ => absolute(parts, target).map(Some),
    }
}

/// `http://host/path`: the path becomes the target, the host is returned.
fn absolute(parts: &mut Parts, target: &Bytes) -> Result<HeaderValue, ParseError> {
    let scheme_end = target.windows(3).position(|bytes| bytes == b"://").ok_or(ParseError::Target)?;
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(ParseError::Target);
    }
    let start = scheme_end + 3;
    let end = target[start..]
        .iter()
        .position(|byte| *byte == b'/' || *byte == b'?')
        .map_or(target.len(), |at| start + at);
    let authority = target.slice(start..end);
    if !valid_host(&authority) {
        return Err(ParseError::Target);
    }
    let path = match target.get(end) {
        None => Bytes::from_static(b"/"),
        Some(b'/') => target.slice(end..),
        Some(_) => [b"/", &target[end..]].concat().into(),
    };
    parts.uri = Uri::from_maybe_shared(path).map_err(|_| ParseError::Target)?;
    HeaderValue::from_maybe_shared(authority).map_err(|_| ParseError::Target)
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
        header::HOST if parts.headers.contains_key(header::HOST) => return Err(ParseError::Host),
        header::CONTENT_LENGTH => {
            let length = parse_length(bytes).ok_or(ParseError::ContentLength)?;
            if facts.length.replace(length).is_some() {
                return Err(ParseError::ContentLength);
            }
        }
        header::TRANSFER_ENCODING => {
            if facts.chunked || bytes.is_empty() {
                return Err(ParseError::TransferEncoding);
            }
            if !bytes.eq_ignore_ascii_case(b"chunked") {
                return Err(transfer_coding_error(bytes));
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
                } else if token.eq_ignore_ascii_case(b"upgrade") {
                    facts.upgrade = true;
                } else if facts.nominations.last() != Some(&value) {
                    facts.nominations.push(value.clone());
                }
            }
            return Ok(());
        }
        header::UPGRADE => {
            facts.upgrade_to = Some(value);
            return Ok(());
        }
        header::TE if !tokens(bytes).any(|token| token.eq_ignore_ascii_case(b"trailers")) => return Ok(()),
        header::TE => {
            parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
            return Ok(());
        }
        header::EXPECT => {
            if !bytes.eq_ignore_ascii_case(b"100-continue") {
                return Err(ParseError::Expect);
            }
            facts.expect_continue = true;
            return Ok(());
        }
        _ if name == headers::PROXY_CONNECTION
            || name == headers::KEEP_ALIVE
            || name == headers::HTTP2_SETTINGS =>
        {
            return Ok(());
        }
        _ => {}
    }
    parts.headers.append(name, value);
    Ok(())
}

/// A coding that is a token is unknown; anything else, `chunked` in a list included, is malformed.
fn transfer_coding_error(value: &[u8]) -> ParseError {
    let known = tokens(value).any(|token| token.eq_ignore_ascii_case(b"chunked"));
    if !known && value.iter().all(|byte| is_token(*byte)) && !value.eq_ignore_ascii_case(b"identity") {
        ParseError::TransferCoding
    } else {
        ParseError::TransferEncoding
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port` (RFC 9110, 4.2.1), without user information.
pub(crate) fn valid_host(host: &[u8]) -> bool {
    let (name_ok, port) = if let Some(rest) = host.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
        let inside = &rest[..end];
        let ok = !inside.is_empty()
            && inside.iter().all(|byte| {
                byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'v' | b'%' | b'-' | b'_')
            });
        (ok, &rest[end + 1..])
    } else {
        let end = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
        let name = &host[..end];
        (!name.is_empty() && name.iter().all(|byte| HOST[*byte as usize]), &host[end..])
    };
    name_ok
        && match port {
            [] => true,
            [b':', digits @ ..] => {
                !digits.is_empty()
                    && digits.len() <= 5
                    && parse_length(digits).is_some_and(|port| port <= 65535)
            }
            _ => false,
        }
}

/// Bytes of a registered name: unreserved, sub-delimiters and percent-encoding (RFC 3986, 3.2.2).
const HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+;=%";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};
