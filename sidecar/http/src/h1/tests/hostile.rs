//! Every request of the table must be refused, however its bytes arrive.

use super::{Echo, run, talk};
use crate::error::ParseError;

/// Requests that must be refused, with the status they get.
const REFUSED: &[(&str, &[u8], u16)] = &[
    ("length and coding", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("coding and length", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("two lengths that differ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    ("two lengths that agree", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("length as list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
    ("length with sign", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400),
    ("length negative", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", 400),
    ("length hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    ("length empty", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", 400),
    ("length overflows", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    ("length with a space inside", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n", 400),
    ("coding twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("two coding lines", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("identity then chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("coding list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
    ("chunked not last", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    ("coding unknown", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ("coding with x", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
    ("coding quoted", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 400),
    ("coding with vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("coding empty", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
    ("coding on 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("coding folded", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("space before colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("tab before colon", b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", 400),
    ("space before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("folded value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("header without colon", b"GET / HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n", 400),
    ("empty header name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("header name with space", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", 400),
    ("header name with NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX\0Y: b\r\n\r\n", 400),
    ("header name with parenthesis", b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n", 400),
    ("header name beyond ASCII", b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: b\r\n\r\n", 400),
    ("value with NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
    ("value with bare CR", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    ("value with DEL", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n", 400),
    ("bare line feeds", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare line feed after a header", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("bare line feed at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("no host", b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("two equal hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("host with path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("host with space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("host list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("host with user", b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
    ("host with port beyond range", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("host with empty port", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400),
    ("host with port that is none", b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400),
    ("host with open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("two spaces after the method", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("tab in the request line", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target without slash", b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target with fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target with NUL", b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target with bare CR", b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target beyond ASCII", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target with backslash", b"GET /a\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target with another scheme", b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target with user", b"GET http://user@a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("asterisk with GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("connect with path", b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("connect without port", b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("method with bracket", b"G[T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no version", b"GET /\r\nHost: a\r\n\r\n", 400),
    ("version lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("version 1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("version 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("version 1.10", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    ("version with leading zero", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
    ("expectation unknown", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", 417),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("empty lines only", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no headers at all", b"GET / HTTP/1.1\r\n\r\n", 400),
];

/// Bodies that must fail: the request may have begun, its end must not be believed.
const BROKEN_BODIES: &[(&str, &[u8])] = &[
    ("chunk size empty", b"\r\nhello\r\n0\r\n\r\n"),
    ("chunk size not hexadecimal", b"g\r\nhello\r\n0\r\n\r\n"),
    ("chunk size negative", b"-5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size with sign", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size overflows", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("chunk size with space", b"5 \r\nhello\r\n0\r\n\r\n"),
    ("space before chunk size", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("bare line feed after size", b"5\nhello\r\n0\r\n\r\n"),
    ("bare line feed after data", b"5\r\nhello\n0\r\n\r\n"),
    ("data longer than size", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("bare line feed in extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("bare CR in extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("NUL in extension", b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
    ("bare line feed at the end", b"5\r\nhello\r\n0\r\n\n"),
    ("trailer with length", b"5\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n"),
    ("trailer with coding", b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("trailer malformed", b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n"),
];

#[test]
fn hostile_requests_are_refused() {
    assert!(REFUSED.len() + BROKEN_BODIES.len() >= 56);
    for (name, request, status) in REFUSED {
        let echo = Echo::default();
        let (answer, _) = run(talk(&[request], &echo));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer:?}");
        assert!(answer.contains("connection: close\r\n"), "{name}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}: {answer:?}");
        assert!(echo.requests.borrow().is_empty(), "{name} reached the handler");
        assert_eq!(echo.refused.borrow().len(), 1, "{name}");
    }
}

#[test]
fn hostile_requests_are_refused_byte_by_byte() {
    for (name, request, status) in REFUSED {
        let echo = Echo::default();
        let pieces: Vec<&[u8]> = request.chunks(1).collect();
        let (answer, _) = run(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let handler = echo.clone();
            let task = tokio::task::spawn_local(super::serve_one(server, handler));
            for piece in &pieces {
                if tokio::io::AsyncWriteExt::write_all(&mut client, piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let mut answer = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer).await.unwrap();
            (String::from_utf8(answer).unwrap(), task.await.unwrap())
        });
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer:?}");
        assert!(echo.requests.borrow().is_empty(), "{name} reached the handler");
    }
}

#[test]
fn broken_chunks_fail_the_body_and_close_the_connection() {
    for (name, body) in BROKEN_BODIES {
        let echo = Echo::default();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let next = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let (_, _) = run(talk(&[head, body, next], &echo));
        let requests = echo.requests.borrow();
        assert_eq!(requests.len(), 1, "{name}: {requests:?}");
        assert!(requests[0].contains("body error"), "{name}: {requests:?}");
    }
}

#[test]
fn the_head_limits_hold_to_the_byte() {
    let head = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        let mut text = String::from(start);
        while text.len() + 2 < bytes {
            let left = bytes - text.len() - 2;
            let line = left.clamp(6, 2000);
            text.push_str(&format!("x: {}\r\n", "y".repeat(line - 5)));
        }
        text.push_str("\r\n");
        text
    };
    let exact = head(60 * 1024);
    assert_eq!(exact.len(), 60 * 1024);
    let echo = Echo::default();
    assert!(run(talk(&[exact.as_bytes()], &echo)).0.starts_with("HTTP/1.1 200 "));
    let over = exact.replacen("GET / ", "GET // ", 1);
    assert!(run(talk(&[over.as_bytes()], &echo)).0.starts_with("HTTP/1.1 431 "));
    assert_eq!(*echo.refused.borrow(), [ParseError::TooLarge]);
    let many = |count: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}\r\n", "x: y\r\n".repeat(count - 2))
    };
    assert!(run(talk(&[many(100).as_bytes()], &echo)).0.starts_with("HTTP/1.1 200 "));
    assert!(run(talk(&[many(101).as_bytes()], &echo)).0.starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_slow_head_is_answered_408() {
    let echo = Echo::default();
    let (answer, _) = run(talk(&[b"GET / HTTP/1.1\r\nHo"], &echo));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
}
