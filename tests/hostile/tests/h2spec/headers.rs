//! RFC 7540's section 8 and RFC 7541: requests that are malformed, and header blocks that are.

use tests_hostile::frames::{self, END_HEADERS, END_STREAM, GET, POST, code, frame, headers, kind, settings};

use super::{Case, Peer, Verdict};

use code::{COMPRESSION_ERROR, PROTOCOL_ERROR};

const M: (&str, &str) = GET[0];
const S: (&str, &str) = GET[1];
const P: (&str, &str) = GET[2];
const A: (&str, &str) = GET[3];

/// A request with these fields must be refused as malformed.
fn refused(peer: &mut Peer, fields: &[(&str, &str)]) -> Verdict {
    peer.send(&headers(1, true, fields));
    peer.malformed(1)
}

/// A header block that does not decompress.
fn broken(peer: &mut Peer, tail: &[u8]) -> Verdict {
    let block = [&frames::block(&GET), tail].concat();
    peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block));
    peer.connection_error(&[COMPRESSION_ERROR])
}

fn with_body(peer: &mut Peer, length: &str, pieces: &[&[u8]]) -> Verdict {
    peer.send(&headers(1, false, &[POST[0], S, P, A, ("content-length", length)]));
    for (index, piece) in pieces.iter().enumerate() {
        let end = if index + 1 == pieces.len() { END_STREAM } else { 0 };
        peer.send(&frame(kind::DATA, end, 1, piece));
    }
    peer.stream_error(1, &[PROTOCOL_ERROR])
}

pub(super) const CASES: &[Case] = &[
    ("8.1/1", "a second HEADERS frame without END_STREAM", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, 0, 1, b"test"));
        peer.send(&headers(1, false, &[("x-test", "ok")]));
        peer.malformed(1)
    }),
    ("8.1.2/1", "a name in upper case", |peer| refused(peer, &[M, S, P, A, ("X-TEST", "ok")])),
    ("8.1.2.1/1", "an unknown pseudo-header", |peer| refused(peer, &[M, S, P, A, (":test", "ok")])),
    ("8.1.2.1/2", "a pseudo-header of responses", |peer| refused(peer, &[M, S, P, A, (":status", "200")])),
    ("8.1.2.1/3", "a pseudo-header in trailers", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, 0, 1, b"test"));
        peer.send(&headers(1, true, &[(":method", "POST")]));
        peer.malformed(1)
    }),
    ("8.1.2.1/4", "a pseudo-header after a header", |peer| refused(peer, &[M, S, ("x-test", "ok"), P, A])),
    ("8.1.2.2/1", "connection", |peer| refused(peer, &[M, S, P, A, ("connection", "keep-alive")])),
    ("8.1.2.2/2", "te other than trailers", |peer| refused(peer, &[M, S, P, A, ("te", "trailers, deflate")])),
    ("8.1.2.2/3", "transfer-encoding", |peer| refused(peer, &[M, S, P, A, ("transfer-encoding", "chunked")])),
    ("8.1.2.2/4", "keep-alive", |peer| refused(peer, &[M, S, P, A, ("keep-alive", "timeout=5")])),
    ("8.1.2.2/5", "proxy-connection", |peer| {
        refused(peer, &[M, S, P, A, ("proxy-connection", "keep-alive")])
    }),
    ("8.1.2.2/6", "upgrade", |peer| refused(peer, &[M, S, P, A, ("upgrade", "websocket")])),
    ("8.1.2.3/1", ":path empty", |peer| refused(peer, &[M, S, (":path", ""), A])),
    ("8.1.2.3/2", ":method missing", |peer| refused(peer, &[S, P, A])),
    ("8.1.2.3/3", ":scheme missing", |peer| refused(peer, &[M, P, A])),
    ("8.1.2.3/4", ":path missing", |peer| refused(peer, &[M, S, A])),
    ("8.1.2.3/5", ":method twice", |peer| refused(peer, &[M, S, P, A, M])),
    ("8.1.2.3/6", ":scheme twice", |peer| refused(peer, &[M, S, P, A, S])),
    ("8.1.2.3/7", ":path twice", |peer| refused(peer, &[M, S, P, A, P])),
    ("8.1.2.3/8", ":authority twice", |peer| refused(peer, &[M, S, P, A, A])),
    ("8.1.2.3/9", ":authority with user information", |peer| {
        refused(peer, &[M, S, P, (":authority", "user@a.test")])
    }),
    ("8.1.2.3/10", ":authority and host differ", |peer| refused(peer, &[M, S, P, A, ("host", "b.test")])),
    ("8.1.2.3/11", "neither :authority nor host", |peer| refused(peer, &[M, S, P])),
    ("8.1.2.3/12", ":path without a slash", |peer| refused(peer, &[M, S, (":path", "foo"), A])),
    ("8.1.2.3/13", ":path with a space", |peer| refused(peer, &[M, S, (":path", "/a b"), A])),
    ("8.1.2.6/1", "content-length and one DATA frame differ", |peer| with_body(peer, "1", &[b"test"])),
    ("8.1.2.6/2", "content-length and several DATA frames differ", |peer| {
        with_body(peer, "1", &[b"test", b"test"])
    }),
    ("8.1.2.6/3", "content-length longer than DATA", |peer| with_body(peer, "5", &[b"test"])),
    ("8.1.2.6/4", "content-length of a request that ends at once", |peer| {
        peer.send(&headers(1, true, &[POST[0], S, P, A, ("content-length", "5")]));
        peer.malformed(1)
    }),
    ("8.2/1", "PUSH_PROMISE", |peer| {
        let payload = [&[0, 0, 0, 2][..], &frames::block(&GET)].concat();
        peer.send(&frame(kind::PUSH_PROMISE, END_HEADERS, 1, &payload));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("8.2.1/1", "a name with a line end", |peer| refused(peer, &[M, S, P, A, ("x\r\ny", "ok")])),
    ("8.2.1/2", "a name with a space", |peer| refused(peer, &[M, S, P, A, ("x y", "ok")])),
    ("8.2.1/3", "a name with a colon", |peer| refused(peer, &[M, S, P, A, ("x:y", "ok")])),
    ("8.2.1/4", "a value with a line end", |peer| refused(peer, &[M, S, P, A, ("x", "a\r\nb: c")])),
    ("8.2.1/5", "a value with NUL", |peer| refused(peer, &[M, S, P, A, ("x", "a\0b")])),
    ("8.2.1/6", "a name that is empty", |peer| refused(peer, &[M, S, P, A, ("", "ok")])),
    ("hpack/2.3.3/1", "an indexed field with an invalid index", |peer| broken(peer, &[0xc6])),
    ("hpack/2.3.3/2", "a literal whose name has an invalid index", |peer| {
        broken(peer, &[0x7f, 0x10, 1, b'x'])
    }),
    ("hpack/4.2/1", "a table size update at the end of a block", |peer| broken(peer, &[0x21])),
    ("hpack/5.2/1", "Huffman padding longer than 7 bits", |peer| {
        broken(peer, b"\0\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")
    }),
    ("hpack/5.2/2", "Huffman padding of zeros", |peer| {
        broken(peer, b"\0\x85\xf2\xb2\x4a\x87\xff\x83\x49\x50\x90")
    }),
    ("hpack/5.2/3", "Huffman with the end symbol", |peer| {
        broken(peer, b"\0\x88\xf2\xb2\x4a\x87\xff\xff\xff\xff\x83\x49\x50\x9f")
    }),
    ("hpack/6.1/1", "an indexed field of index 0", |peer| broken(peer, &[0x80])),
    ("hpack/6.3/1", "a table size update above the setting", |peer| {
        let block = [&[0x3f, 0xe2, 0x1f][..], &frames::block(&GET)].concat();
        peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block));
        peer.connection_error(&[COMPRESSION_ERROR])
    }),
    ("hpack/5.1/1", "an integer that does not end", |peer| broken(peer, &[0xff; 40])),
    ("hpack/5.2/4", "a string longer than the block", |peer| broken(peer, &[0, 0x7f, 0xff, 0x0f, b'x'])),
    ("hpack/4.3/1", "the peer's table of size 0 is heeded", |peer| {
        peer.send(&settings(&[(1, 0)]));
        peer.send(&headers(1, true, &GET));
        peer.frame(kind::HEADERS, 1)?;
        peer.send(&headers(3, true, &GET));
        peer.frame(kind::HEADERS, 3).map(drop)
    }),
];
