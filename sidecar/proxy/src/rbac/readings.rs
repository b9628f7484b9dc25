//! What a path can mean to those who read it after us. Servers differ in whether they decode `%2F`, drop `;parameters`, or merge slashes:
//! a policy that looked at one reading alone could be got round through another. The bytes that are forwarded stay as they are.

use std::borrow::Cow;

/// Rounds of decoding: what is escaped more often reaches nobody as anything but text.
const DECODINGS_MAX: usize = 3;

/// A path in all its readings.
#[derive(Debug)]
pub(crate) struct Readings<'a> {
    /// As it is forwarded, without the query.
    raw: &'a str,
    /// Otherwise, for a path that can be read otherwise.
    others: Vec<String>,
}

impl<'a> Readings<'a> {
    pub(crate) fn of(raw: &'a str) -> Self {
        let mut others: Vec<String> = Vec::new();
        if !is_plain(raw) {
            let mut add = |reading: String| {
                if reading != raw && !others.contains(&reading) {
                    others.push(reading);
                }
            };
            let mut decoded = Cow::Borrowed(raw);
            for _ in 0..=DECODINGS_MAX {
                let slashed = decoded.replace('\\', "/");
                add(merged(&resolved(&slashed)));
                add(merged(&resolved(&without_parameters(&slashed))));
                // What follows an escaped end of the path is not part of it to whoever decodes first.
                let end = slashed.find(['\0', '?', '#']).unwrap_or(slashed.len());
                add(merged(&resolved(&without_parameters(&slashed[..end]))));
                match decode(&decoded) {
                    Some(next) => decoded = Cow::Owned(next),
                    None => break,
                }
            }
        }
        Self { raw, others }
    }

    /// Whether a policy's pattern holds. One that refuses holds when it does for any reading (`any`), one that lets in only when it does
    /// for all. A pattern that is itself written with what readings do away with means the path as it stands.
    pub(crate) fn hold(&self, any: bool, literal: bool, matches: impl Fn(&str) -> bool) -> bool {
        let raw = matches(self.raw);
        if literal || self.others.is_empty() {
            return raw;
        }
        let mut others = self.others.iter().map(|reading| matches(reading));
        if any { raw || others.any(|it| it) } else { raw && others.all(|it| it) }
    }
}

/// Whether a pattern is written with what readings do away with.
pub(crate) fn is_literal(pattern: &str) -> bool {
    pattern.contains(['%', ';', '\\']) || pattern.contains("//")
}

/// Whether there is only one reading.
fn is_plain(path: &str) -> bool {
    let mut previous = 0;
    for byte in path.bytes() {
        if matches!(byte, b'%' | b';' | b'\\') || (previous == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        previous = byte;
    }
    true
}

/// One round of decoding; none when nothing is escaped.
fn decode(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let mut found = false;
    while at < bytes.len() {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                found = true;
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    found.then(|| String::from_utf8_lossy(&out).into_owned())
}

/// Every segment up to its first `;`.
fn without_parameters(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/")
}

/// Without `.` and `..` segments (RFC 3986, 5.2.4), empty ones kept.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let last = segments.len() - 1;
    for (index, segment) in segments.iter().enumerate() {
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    // Empty segments are nothing to go up from, for those who merge slashes.
                    while kept.pop().is_some_and(str::is_empty) {}
                }
                if index == last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

fn merged(path: &str) -> String {
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

    fn refused(path: &str) -> bool {
        let private = |path: &str| path == "/private" || path.starts_with("/private/");
        Readings::of(path).hold(true, false, private)
    }

    #[test]
    fn what_anyone_could_read_as_private_is_private() {
        for path in [
            "/private",
            "/private/x",
            "//private",
            "///private//x",
            "/%70rivate",
            "/%2570rivate",
            "/a/..%2fprivate",
            "/a/%2e%2e%2fprivate",
            "/a%2f..%2fprivate",
            "/a/..;/private",
            "/a/..;x=y/private",
            "/private;x=y",
            "/;a/private",
            "/private%3bx",
            "/private%00.html",
            "/private%3fx",
            "/private%23x",
            "/a\\..\\private",
            "/a%5c..%5cprivate",
            "/%252e%252e%252fprivate",
            "/a/.//..//private",
            "/./private",
            "/private%2f",
            "/private/%2e",
            "%2fprivate",
        ] {
            assert!(refused(path), "{path}");
        }
        for path in
            ["/privat", "/public/private", "/privately", "/public;private", "/public?/private", "/%70ublic"]
        {
            assert!(!refused(path), "{path}");
        }
    }

    #[test]
    fn what_someone_could_read_as_elsewhere_is_not_let_in() {
        let public = |path: &str| path == "/public" || path.starts_with("/public/");
        let may = |path: &str| Readings::of(path).hold(false, false, public);
        for path in ["/public/a", "/public/a;b=c", "/public/%41", "/public//a", "/public/a%20b"] {
            assert!(may(path), "{path}");
        }
        for path in
            ["/public/..%2fprivate", "/public/..;/private", "/public/%2e%2e/private", "/public\\..\\private"]
        {
            assert!(!may(path), "{path}");
        }
    }

    #[test]
    fn a_pattern_with_escapes_means_the_path_as_it_stands() {
        assert!(is_literal("/a;b") && is_literal("/a%2Fb") && is_literal("//a") && !is_literal("/a/b"));
        assert!(Readings::of("/a;b").hold(false, true, |path| path == "/a;b"));
        assert!(Readings::of("/a/b").others.is_empty(), "a plain path has one reading");
    }
}
