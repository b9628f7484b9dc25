//! Paths brought into one form before anything looks at them, so that policy and upstream see the same bytes.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;
use sidecar_model::HttpConnectionManager;
use sidecar_model::hcm::EscapedSlashes;

/// What came of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Normalized {
    /// It is in that form already.
    Same,
    /// The new target.
    New(Uri),
    /// The client is sent to the new target.
    Redirect(Uri),
    /// It must not be served.
    Refused,
}

/// Applies a connection manager's rules.
pub(super) fn target(uri: &Uri, hcm: &HttpConnectionManager) -> Normalized {
    let Some(target) = uri.path_and_query() else { return Normalized::Same };
    let path = target.path();
    if !path.starts_with('/') || is_plain(path) {
        return Normalized::Same;
    }
    let mut path = Cow::Borrowed(path);
    let mut redirect = false;
    if has_escaped_slash(&path) {
        match hcm.escaped_slashes {
            EscapedSlashes::Keep => {}
            EscapedSlashes::Reject => return Normalized::Refused,
            action => {
                path = unescape_slashes(&path).into();
                redirect = action == EscapedSlashes::UnescapeAndRedirect;
            }
        }
    }
    if hcm.normalize_path {
        let Some(decoded) = decode_unreserved(&path) else { return Normalized::Refused };
        path = remove_dot_segments(&decoded).into();
    }
    if hcm.merge_slashes {
        path = merge_slashes(&path).into();
    }
    if path == target.path() {
        return Normalized::Same;
    }
    let whole = target.query().map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
    match PathAndQuery::try_from(whole) {
        Ok(new) if redirect => Normalized::Redirect(Uri::from(new)),
        Ok(new) => Normalized::New(Uri::from(new)),
        Err(_) => Normalized::Refused,
    }
}

/// Whether a path has nothing that any rule would change.
fn is_plain(path: &str) -> bool {
    let mut previous = 0;
    for byte in path.bytes() {
        if matches!(byte, b'%' | b'\\') || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        previous = byte;
    }
    true
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(|three| three[0] == b'%' && is_slash(three))
}

fn is_slash(three: &[u8]) -> bool {
    three[1..].eq_ignore_ascii_case(b"2f") || three[1..].eq_ignore_ascii_case(b"5c")
}

fn unescape_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        match rest.as_bytes().get(at..at + 3) {
            Some(three) if is_slash(three) => {
                out.push(if three[1] == b'2' { '/' } else { '\\' });
                rest = &rest[at + 3..];
            }
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

/// Decodes escapes of unreserved characters (RFC 3986, 6.2.2.2), turns `\` into `/`; none for an escaped NUL or a broken escape.
fn decode_unreserved(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let hex = bytes.get(at + 1..at + 3)?;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = u8::try_from(digit(hex[0])? * 16 + digit(hex[1])?).ok()?;
                if value == 0 {
                    return None;
                }
                if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
                    out.push(char::from(value));
                } else {
                    out.push('%');
                    out.push(char::from(hex[0].to_ascii_uppercase()));
                    out.push(char::from(hex[1].to_ascii_uppercase()));
                }
                at += 3;
            }
            b'\\' => {
                out.push('/');
                at += 1;
            }
            byte => {
                out.push(char::from(byte));
                at += 1;
            }
        }
    }
    Some(out)
}

/// RFC 3986, 5.2.4.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.iter().enumerate() {
        match *segment {
            "." if index == last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if index == last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for char in path.chars() {
        if char != '/' || !out.ends_with('/') {
            out.push(char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_brought_into_one_form() {
        for (path, want) in [
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/a/b/.", "/a/b/"),
            ("/%61%2e%2e/x", "/a../x"),
            ("/a/%2E%2e/private", "/private"),
            ("/a%2fb", "/a%2Fb"),
            ("/a\\..\\b", "/b"),
            ("/%7euser", "/~user"),
        ] {
            let decoded = decode_unreserved(path).unwrap();
            assert_eq!(remove_dot_segments(&decoded), want, "{path}");
        }
        for path in ["/%", "/%0", "/%zz", "/%00"] {
            assert_eq!(decode_unreserved(path), None, "{path}");
        }
        assert_eq!(merge_slashes("//a///b/"), "/a/b/");
        assert_eq!(unescape_slashes("/a%2Fb%5cc%20d"), "/a/b\\c%20d");
        assert!(is_plain("/a.b/c-d"));
        assert!(!is_plain("/a/.b") && !is_plain("//a") && !is_plain("/%41"));
    }
}
