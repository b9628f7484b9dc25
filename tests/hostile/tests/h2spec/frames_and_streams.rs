//! RFC 7540's sections 3 to 5: preface, frames, streams.

use tests_hostile::frames::{
    self, END_HEADERS, END_STREAM, GET, POST, PRIORITY, code, frame, headers, kind, raw, reset,
};

use super::Case;

use code::{COMPRESSION_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED};

fn continuation(stream: u32) -> Vec<u8> {
    frame(kind::CONTINUATION, END_HEADERS, stream, &frames::block(&GET))
}

pub(super) const CASES: &[Case] = &[
    ("3.5/1", "a client connection preface", |peer| peer.ping()),
    ("3.5/2", "an invalid preface", |peer| {
        peer.bare()?;
        peer.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("4.1/1", "a frame of unknown type", |peer| {
        peer.send(&frame(0xff, 0, 0, &[0; 8]));
        peer.ping()
    }),
    ("4.1/2", "a frame with undefined flags", |peer| {
        peer.send(&frame(kind::PING, 0x16, 0, &[0; 8]));
        peer.ping()
    }),
    ("4.1/3", "a frame with the reserved bit", |peer| {
        peer.send(&frame(kind::PING, 0, 0x8000_0000, &[0; 8]));
        peer.ping()
    }),
    ("4.2/1", "a DATA frame of 2^14 bytes", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, END_STREAM, 1, &[b'x'; 1 << 14]));
        peer.response(1)
    }),
    ("4.2/2", "a DATA frame above SETTINGS_MAX_FRAME_SIZE", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, END_STREAM, 1, &vec![b'x'; (1 << 24) - 1]));
        peer.stream_error(1, &[FRAME_SIZE_ERROR])
    }),
    ("4.2/3", "a HEADERS frame above SETTINGS_MAX_FRAME_SIZE", |peer| {
        let mut block = frames::block(&GET);
        block.extend(frames::block(&[("x", "y".repeat(1 << 20))]));
        peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block));
        peer.connection_error(&[FRAME_SIZE_ERROR])
    }),
    ("4.3/1", "an invalid header block", |peer| {
        peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &[0, 1, 0x64]));
        peer.connection_error(&[COMPRESSION_ERROR])
    }),
    ("4.3/2", "PRIORITY inside a header block", |peer| {
        peer.send(&frame(kind::HEADERS, END_STREAM, 1, &frames::block(&GET)));
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 255]));
        peer.send(&continuation(1));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("4.3/3", "HEADERS of another stream inside a header block", |peer| {
        peer.send(&frame(kind::HEADERS, END_STREAM, 1, &frames::block(&GET)));
        peer.send(&headers(3, true, &GET));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("5.1/1", "idle: DATA", |peer| {
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.connection_error(&[PROTOCOL_ERROR, STREAM_CLOSED])
    }),
    ("5.1/2", "idle: RST_STREAM", |peer| {
        peer.send(&reset(1, code::CANCEL));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("5.1/3", "idle: WINDOW_UPDATE", |peer| {
        peer.send(&frames::window_update(1, 100));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("5.1/4", "idle: CONTINUATION", |peer| {
        peer.send(&continuation(1));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("5.1/5", "half-closed (remote): DATA", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.stream_error(1, &[STREAM_CLOSED])
    }),
    ("5.1/6", "half-closed (remote): HEADERS", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.send(&headers(1, true, &GET));
        peer.stream_error(1, &[STREAM_CLOSED])
    }),
    ("5.1/7", "half-closed (remote): CONTINUATION", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.send(&continuation(1));
        peer.stream_error(1, &[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    ("5.1/8", "closed by RST_STREAM: DATA", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&reset(1, code::CANCEL));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.stream_error(1, &[STREAM_CLOSED])
    }),
    ("5.1/9", "closed by RST_STREAM: HEADERS", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&reset(1, code::CANCEL));
        peer.send(&headers(1, true, &GET));
        peer.stream_error(1, &[STREAM_CLOSED])
    }),
    ("5.1/10", "closed by RST_STREAM: CONTINUATION", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&reset(1, code::CANCEL));
        peer.send(&continuation(1));
        peer.stream_error(1, &[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    ("5.1/11", "closed: DATA", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.response(1)?;
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.stream_error(1, &[STREAM_CLOSED])
    }),
    ("5.1/12", "closed: HEADERS", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.response(1)?;
        peer.send(&headers(1, true, &GET));
        peer.stream_error(1, &[STREAM_CLOSED])
    }),
    ("5.1/13", "closed: CONTINUATION", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.response(1)?;
        peer.send(&continuation(1));
        peer.connection_error(&[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    ("5.1.1/1", "an even stream number", |peer| {
        peer.send(&headers(2, true, &GET));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("5.1.1/2", "a smaller stream number", |peer| {
        peer.send(&headers(5, true, &GET));
        peer.response(5)?;
        peer.send(&headers(3, true, &GET));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("5.1.2/1", "more streams than allowed", |peer| {
        for number in 0..1101 {
            peer.send(&headers(number * 2 + 1, false, &POST));
        }
        let found = peer.connection.until(super::PATIENCE, |frame| frame.code().is_some());
        match found.and_then(|frame| frame.code()) {
            Some(REFUSED_STREAM | PROTOCOL_ERROR) => Ok(()),
            None if peer.connection.closed => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }),
    ("5.3.1/1", "HEADERS that depends on itself", |peer| {
        let payload = [&[0, 0, 0, 1, 255][..], &frames::block(&GET)].concat();
        peer.send(&frame(kind::HEADERS, END_HEADERS | END_STREAM | PRIORITY, 1, &payload));
        peer.stream_error(1, &[PROTOCOL_ERROR])
    }),
    ("5.3.1/2", "PRIORITY that depends on itself", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 255]));
        // RFC 9113, 5.3.2 has ended priorities: reading over them is right as well.
        peer.stream_error(1, &[PROTOCOL_ERROR]).or_else(|_| peer.ping())
    }),
    ("5.4.1/1", "an invalid frame closes the connection", |peer| {
        peer.send(&raw(7, kind::PING, 0, 0, &[0; 7]));
        peer.connection_error(&[FRAME_SIZE_ERROR])?;
        match peer.ping() {
            Err(_) if peer.connection.closed => Ok(()),
            _ => Err("open after a connection error".to_owned()),
        }
    }),
    ("5.4.1/2", "a connection error is said by GOAWAY", |peer| {
        peer.send(&frame(kind::PING, 0, 3, &[0; 8]));
        peer.frame(kind::GOAWAY, 0).map(drop)
    }),
    ("5.5/1", "an unknown extension frame", |peer| {
        peer.send(&frame(0x16, 0, 0, &[0; 8]));
        peer.ping()
    }),
    ("5.5/2", "an unknown extension frame inside a header block", |peer| {
        peer.send(&frame(kind::HEADERS, END_STREAM, 1, &frames::block(&GET)));
        peer.send(&frame(0x16, 0, 0, &[0; 8]));
        peer.send(&frame(kind::CONTINUATION, END_HEADERS, 1, &frames::block(&[("x", "y")])));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
];
