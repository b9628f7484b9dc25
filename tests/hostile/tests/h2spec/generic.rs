//! Generic tests: what any server does in ordinary exchanges.

use tests_hostile::frames::{
    self, END_HEADERS, END_STREAM, GET, PADDED, POST, PRIORITY, code, frame, headers, kind, reset, settings,
    window_update,
};

use super::Case;

/// The pseudo-headers with `:path` and method as indexed fields (RFC 7541, appendix A), the authority as a literal.
fn indexed() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x01];
    frames::integer(&mut block, 0, 7, 6);
    block.extend_from_slice(b"a.test");
    block
}

fn with(tail: &[u8]) -> Vec<u8> {
    let mut block = indexed();
    block.extend_from_slice(tail);
    frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

pub(super) const CASES: &[Case] = &[
    ("generic/1/1", "sends a client connection preface", |peer| peer.ping()),
    ("generic/2/1", "PRIORITY on an idle stream", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 255]));
        peer.ping()
    }),
    ("generic/2/2", "WINDOW_UPDATE on a half-closed (remote) stream", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.send(&window_update(1, 100));
        peer.response(1)
    }),
    ("generic/2/3", "PRIORITY on a half-closed (remote) stream", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 255]));
        peer.response(1)
    }),
    ("generic/2/4", "RST_STREAM on a half-closed (remote) stream", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.send(&reset(1, code::CANCEL));
        peer.ping()
    }),
    ("generic/2/5", "PRIORITY on a closed stream", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.response(1)?;
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 255]));
        peer.ping()
    }),
    ("generic/3.1/1", "a DATA frame", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.response(1)
    }),
    ("generic/3.1/2", "several DATA frames", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, 0, 1, b"test"));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.response(1)
    }),
    ("generic/3.1/3", "a DATA frame with padding", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, END_STREAM | PADDED, 1, b"\x05test\0\0\0\0\0"));
        peer.response(1)
    }),
    ("generic/3.2/1", "a HEADERS frame", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.response(1)
    }),
    ("generic/3.2/2", "a HEADERS frame with padding", |peer| {
        let payload = [&[5][..], &frames::block(&GET), &[0; 5]].concat();
        peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &payload));
        peer.response(1)
    }),
    ("generic/3.2/3", "a HEADERS frame with priority", |peer| {
        let payload = [&[0, 0, 0, 0, 255][..], &frames::block(&GET)].concat();
        peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM | PRIORITY, 1, &payload));
        peer.response(1)
    }),
    ("generic/3.3/1", "PRIORITY with weight 1", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 0]));
        peer.send(&headers(1, true, &GET));
        peer.response(1)
    }),
    ("generic/3.3/2", "PRIORITY with weight 256", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 255]));
        peer.send(&headers(1, true, &GET));
        peer.response(1)
    }),
    ("generic/3.3/3", "PRIORITY with a dependency", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 255]));
        peer.send(&headers(1, true, &GET));
        peer.response(1)
    }),
    ("generic/3.3/4", "PRIORITY, exclusive", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0x80, 0, 0, 3, 255]));
        peer.send(&headers(1, true, &GET));
        peer.response(1)
    }),
    ("generic/3.3/5", "PRIORITY for an idle stream, then a HEADERS frame of a lower one", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 0, 255]));
        peer.send(&headers(1, true, &GET));
        peer.response(1)
    }),
    ("generic/3.4/1", "a RST_STREAM frame", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&reset(1, code::CANCEL));
        peer.ping()
    }),
    ("generic/3.5/1", "a SETTINGS frame", |peer| {
        peer.send(&settings(&[(3, 100)]));
        peer.frame(kind::SETTINGS, 0).map(drop)
    }),
    ("generic/3.7/1", "a PING frame", |peer| peer.ping()),
    ("generic/3.8/1", "a GOAWAY frame", |peer| {
        peer.send(&frame(kind::GOAWAY, 0, 0, &[0; 8]));
        // Going on and closing are both allowed.
        match peer.ping() {
            Ok(()) => Ok(()),
            Err(_) if peer.connection.closed => Ok(()),
            error => error,
        }
    }),
    ("generic/3.9/1", "WINDOW_UPDATE with stream 0", |peer| {
        peer.send(&window_update(0, 1));
        peer.ping()
    }),
    ("generic/3.9/2", "WINDOW_UPDATE with stream 1", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&window_update(1, 1));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"x"));
        peer.response(1)
    }),
    ("generic/3.10/1", "a CONTINUATION frame", |peer| {
        peer.send(&frame(kind::HEADERS, END_STREAM, 1, &frames::block(&GET)));
        peer.send(&frame(kind::CONTINUATION, END_HEADERS, 1, &frames::block(&[("x", "y")])));
        peer.response(1)
    }),
    ("generic/3.10/2", "several CONTINUATION frames", |peer| {
        peer.send(&frame(kind::HEADERS, END_STREAM, 1, &frames::block(&GET)));
        peer.send(&frame(kind::CONTINUATION, 0, 1, &frames::block(&[("x", "y")])));
        peer.send(&frame(kind::CONTINUATION, END_HEADERS, 1, &frames::block(&[("x", "z")])));
        peer.response(1)
    }),
    ("generic/4/1", "GET", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.response(1)
    }),
    ("generic/4/2", "HEAD", |peer| {
        peer.send(&headers(1, true, &[(":method", "HEAD"), GET[1], GET[2], GET[3]]));
        peer.response(1)
    }),
    ("generic/4/3", "POST", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.response(1)
    }),
    ("generic/4/4", "POST with trailers", |peer| {
        peer.send(&headers(1, false, &[POST[0], POST[1], POST[2], POST[3], ("trailer", "x-test")]));
        peer.send(&frame(kind::DATA, 0, 1, b"test"));
        peer.send(&headers(1, true, &[("x-test", "ok")]));
        peer.response(1)
    }),
    ("generic/5/1", "an indexed field", |peer| {
        peer.send(&with(&[]));
        peer.response(1)
    }),
    ("generic/5/2", "a literal with indexing, name indexed", |peer| {
        peer.send(&with(&[0x7a, 2, b'G', b'o']));
        peer.response(1)
    }),
    ("generic/5/3", "a literal with indexing, name indexed, Huffman", |peer| {
        peer.send(&with(&[0x7a, 0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]));
        peer.response(1)
    }),
    ("generic/5/4", "a literal with indexing, new name", |peer| {
        peer.send(&with(&[0x40, 1, b'x', 1, b'y']));
        peer.response(1)
    }),
    ("generic/5/5", "a literal with indexing, new name, Huffman", |peer| {
        peer.send(&with(b"\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"));
        peer.response(1)
    }),
    ("generic/5/6", "a literal without indexing, name indexed", |peer| {
        peer.send(&with(&[0x0f, 0x2b, 2, b'G', b'o']));
        peer.response(1)
    }),
    ("generic/5/7", "a literal without indexing, name indexed, Huffman", |peer| {
        peer.send(&with(&[0x0f, 0x2b, 0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]));
        peer.response(1)
    }),
    ("generic/5/8", "a literal without indexing, new name", |peer| {
        peer.send(&with(&[0, 1, b'x', 1, b'y']));
        peer.response(1)
    }),
    ("generic/5/9", "a literal without indexing, new name, Huffman", |peer| {
        peer.send(&with(b"\0\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"));
        peer.response(1)
    }),
    ("generic/5/10", "a literal never indexed, name indexed", |peer| {
        peer.send(&with(&[0x1f, 0x2b, 2, b'G', b'o']));
        peer.response(1)
    }),
    ("generic/5/11", "a literal never indexed, name indexed, Huffman", |peer| {
        peer.send(&with(&[0x1f, 0x2b, 0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]));
        peer.response(1)
    }),
    ("generic/5/12", "a literal never indexed, new name", |peer| {
        peer.send(&with(&[0x10, 1, b'x', 1, b'y']));
        peer.response(1)
    }),
    ("generic/5/13", "a literal never indexed, new name, Huffman", |peer| {
        peer.send(&with(b"\x10\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf"));
        peer.response(1)
    }),
    ("generic/5/14", "a dynamic table size update", |peer| {
        peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x21][..], &indexed()].concat()));
        peer.response(1)
    }),
    ("generic/5/15", "two dynamic table size updates", |peer| {
        peer.send(&frame(
            kind::HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &[&[0x20, 0x3f, 0xe1, 0x1f][..], &indexed()].concat(),
        ));
        peer.response(1)
    }),
];
