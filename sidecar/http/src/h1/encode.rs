//! Writing heads and body pieces.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Uri, Version, request, response};
use http_body::Body as _;

use super::Framing;
use super::transport::Output;
use crate::body::Body;
use crate::date;

/// The framing a request is written with, from its body: the header map is not believed.
pub(crate) fn request_framing(body: &Body) -> Framing {
    if body.is_end_stream() {
        return Framing::Length(0);
    }
    body.size_hint().exact().map_or(Framing::Chunked, Framing::Length)
}

/// Writes a request head.
pub(crate) fn request(parts: &request::Parts, framing: Framing, out: &mut BytesMut) {
    put(out, parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    if parts.method == Method::CONNECT
        && let Some(authority) = parts.uri.authority()
    {
        put(out, authority.as_str().as_bytes());
    } else {
        put(out, target(&parts.uri).as_bytes());
    }
    put(out, b" HTTP/1.1\r\n");
    if let Some(host) = parts.headers.get(header::HOST) {
        field(out, b"host", host.as_bytes());
    }
    for (name, value) in &parts.headers {
        if !matches!(
            *name,
            header::HOST | header::CONTENT_LENGTH | header::CONNECTION | header::TRANSFER_ENCODING
        ) {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    match framing {
        Framing::Chunked => put(out, b"transfer-encoding: chunked\r\n"),
        Framing::Length(0) => {
            let bodyless = matches!(
                parts.method,
                Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
            ) && !parts.headers.contains_key(header::CONTENT_LENGTH);
            if !bodyless && !parts.headers.contains_key(header::UPGRADE) {
                put(out, b"content-length: 0\r\n");
            }
        }
        Framing::Length(length) => length_field(out, length),
        Framing::UntilClose => {}
    }
    if parts.headers.contains_key(header::UPGRADE) {
        put(out, b"connection: Upgrade\r\n");
    }
    put(out, b"\r\n");
}

/// What the request says about how its response must be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseTo {
    pub(crate) version: Version,
    pub(crate) head: bool,
    pub(crate) connect: bool,
    pub(crate) keep_alive: bool,
}

/// Writes a response head; returns the framing of its body and whether the connection persists.
pub(crate) fn response(
    parts: &response::Parts,
    body: &Body,
    to: ResponseTo,
    out: &mut BytesMut,
) -> (Framing, bool) {
    let status = parts.status;
    let upgraded = status == StatusCode::SWITCHING_PROTOCOLS || (to.connect && status.is_success());
    let never = upgraded || status.is_informational() || status == StatusCode::NO_CONTENT;
    let no_body = never || to.head || status == StatusCode::NOT_MODIFIED;
    let framing = match (no_body || body.is_end_stream(), body.size_hint().exact(), to.version) {
        (true, ..) => Framing::Length(0),
        (_, Some(length), _) => Framing::Length(length),
        (_, None, Version::HTTP_10) => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let keep_alive = to.keep_alive && framing != Framing::UntilClose && !upgraded;
    status_line(out, status);
    for (name, value) in &parts.headers {
        if !matches!(*name, header::CONTENT_LENGTH | header::CONNECTION | header::TRANSFER_ENCODING) {
            field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !parts.headers.contains_key(header::DATE) && !status.is_informational() {
        field(out, b"date", date::now().as_bytes());
    }
    match framing {
        _ if never => {}
        Framing::Length(_) if no_body => described_length(out, &parts.headers, body, to.head),
        Framing::Length(length) => length_field(out, length),
        Framing::Chunked => put(out, b"transfer-encoding: chunked\r\n"),
        Framing::UntilClose => {}
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        put(out, b"connection: Upgrade\r\n");
    } else if upgraded {
        // What follows is not HTTP.
    } else if !keep_alive {
        put(out, b"connection: close\r\n");
    } else if to.version == Version::HTTP_10 {
        put(out, b"connection: keep-alive\r\n");
    }
    put(out, b"\r\n");
    (framing, keep_alive)
}

/// The length of the body that a HEAD or 304 response only describes.
fn described_length(out: &mut BytesMut, headers: &HeaderMap, body: &Body, head: bool) {
    if let Some(length) = crate::headers::content_length(headers) {
        length_field(out, length);
    } else if head
        && !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        length_field(out, length);
    }
}

/// Adds a piece of a body in the given framing. An empty piece adds nothing: an empty chunk would end the body.
pub(crate) fn data(framing: Framing, data: Bytes, out: &mut Output) {
    if data.is_empty() {
        return;
    }
    match framing {
        Framing::Chunked => {
            chunk_size(out.flat(), data.len());
            out.push(data, b"\r\n");
        }
        _ => out.push(data, b""),
    }
}

/// Ends a body in the given framing.
pub(crate) fn end(framing: Framing, trailers: Option<&HeaderMap>, out: &mut Output) {
    if framing != Framing::Chunked {
        return;
    }
    let flat = out.flat();
    put(flat, b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        field(flat, name.as_str().as_bytes(), value.as_bytes());
    }
    put(flat, b"\r\n");
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

fn status_line(out: &mut BytesMut, status: StatusCode) {
    if status == StatusCode::OK {
        put(out, b"HTTP/1.1 200 OK\r\n");
        return;
    }
    put(out, b"HTTP/1.1 ");
    put(out, status.as_str().as_bytes());
    out.put_u8(b' ');
    put(out, status.canonical_reason().unwrap_or("").as_bytes());
    put(out, b"\r\n");
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    put(out, name);
    put(out, b": ");
    put(out, value);
    put(out, b"\r\n");
}

fn length_field(out: &mut BytesMut, length: u64) {
    put(out, b"content-length: ");
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put(out, &digits[at..]);
    put(out, b"\r\n");
}

fn chunk_size(out: &mut BytesMut, size: usize) {
    let mut started = false;
    for shift in (0..16).rev() {
        let digit = (size >> (shift * 4)) & 0xf;
        if digit != 0 || started || shift == 0 {
            started = true;
            out.put_u8(b"0123456789abcdef"[digit]);
        }
    }
    put(out, b"\r\n");
}
