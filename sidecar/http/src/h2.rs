//! HTTP/2 by the `h2` crate, in the terms of this crate: the same requests, bodies and errors as HTTP/1.1.

mod body;
mod client;
mod flood;
mod server;

pub use client::Client;
pub use server::serve;

pub(crate) use body::RecvBody;

use http::header::{self, HeaderMap, HeaderValue};

/// The bytes every HTTP/2 client sends first (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Removes what must not be said in HTTP/2 (RFC 9113, 8.2.2).
fn strip_connection_headers(headers: &mut HeaderMap) {
    headers.remove(header::UPGRADE);
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
}

/// Joins cookie crumbs to one header (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, value);
    }
}

#[cfg(test)]
mod tests;
