//! RFC 7540's sections 6 and 7: each frame's own rules.

use tests_hostile::frames::{
    self, ACK, END_HEADERS, END_STREAM, GET, PADDED, POST, code, frame, headers, kind, raw, reset, settings,
    window_update,
};

use super::Case;

use code::{FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, STREAM_CLOSED};

const MAX_CONCURRENT: u16 = 3;
const INITIAL_WINDOW: u16 = 4;
const MAX_FRAME: u16 = 5;

fn unfinished() -> Vec<u8> {
    frame(kind::HEADERS, END_STREAM, 1, &frames::block(&GET))
}

fn continuation(flags: u8, stream: u32) -> Vec<u8> {
    frame(kind::CONTINUATION, flags, stream, &frames::block(&[("x", "y")]))
}

pub(super) const CASES: &[Case] = &[
    ("6.1/1", "DATA on stream 0", |peer| {
        peer.send(&frame(kind::DATA, END_STREAM, 0, b"test"));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.1/2", "DATA on a stream that is not open", |peer| {
        peer.send(&headers(1, true, &GET));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.stream_error(1, &[STREAM_CLOSED])
    }),
    ("6.1/3", "DATA with padding longer than the frame", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, END_STREAM | PADDED, 1, b"\x06test"));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.2/1", "HEADERS without END_HEADERS, then PRIORITY", |peer| {
        peer.send(&unfinished());
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 255]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.2/2", "HEADERS of another stream before CONTINUATION", |peer| {
        peer.send(&unfinished());
        peer.send(&headers(3, true, &GET));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.2/3", "HEADERS on stream 0", |peer| {
        peer.send(&headers(0, true, &GET));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.2/4", "HEADERS with padding longer than the frame", |peer| {
        let block = frames::block(&GET);
        let pad = u8::try_from(block.len() + 1).unwrap_or(255);
        peer.send(&frame(
            kind::HEADERS,
            END_HEADERS | END_STREAM | PADDED,
            1,
            &[&[pad][..], &block].concat(),
        ));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.3/1", "PRIORITY on stream 0", |peer| {
        peer.send(&frame(kind::PRIORITY, 0, 0, &[0, 0, 0, 0, 255]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.3/2", "PRIORITY of another length than 5", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::PRIORITY, 0, 1, &[0x80, 0, 0, 1]));
        peer.stream_error(1, &[FRAME_SIZE_ERROR])
    }),
    ("6.4/1", "RST_STREAM on stream 0", |peer| {
        peer.send(&reset(0, code::CANCEL));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.4/2", "RST_STREAM on an idle stream", |peer| {
        peer.send(&reset(1, code::CANCEL));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.4/3", "RST_STREAM of another length than 4", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0]));
        peer.connection_error(&[FRAME_SIZE_ERROR])
    }),
    ("6.5/1", "SETTINGS with ACK and a payload", |peer| {
        peer.send(&frame(kind::SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 100]));
        peer.connection_error(&[FRAME_SIZE_ERROR])
    }),
    ("6.5/2", "SETTINGS on a stream", |peer| {
        peer.send(&frame(kind::SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.5/3", "SETTINGS whose length is no multiple of 6", |peer| {
        peer.send(&frame(kind::SETTINGS, 0, 0, &[0, 3, 0]));
        peer.connection_error(&[FRAME_SIZE_ERROR])
    }),
    ("6.5.2/1", "ENABLE_PUSH neither 0 nor 1", |peer| {
        peer.send(&settings(&[(2, 2)]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.5.2/2", "INITIAL_WINDOW_SIZE above the maximum", |peer| {
        peer.send(&settings(&[(INITIAL_WINDOW, 0x8000_0000)]));
        peer.connection_error(&[FLOW_CONTROL_ERROR])
    }),
    ("6.5.2/3", "MAX_FRAME_SIZE below the minimum", |peer| {
        peer.send(&settings(&[(MAX_FRAME, 16_383)]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.5.2/4", "MAX_FRAME_SIZE above the maximum", |peer| {
        peer.send(&settings(&[(MAX_FRAME, 1 << 24)]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.5.2/5", "an unknown setting", |peer| {
        peer.send(&settings(&[(0xff, 1)]));
        peer.ping()
    }),
    ("6.5.3/1", "several values of INITIAL_WINDOW_SIZE: the last holds", |peer| {
        peer.settings(&[(INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)])?;
        peer.send(&headers(1, true, &GET));
        let data = peer.frame(kind::DATA, 1)?;
        if data.payload.len() == 1 { Ok(()) } else { Err(format!("{} bytes", data.payload.len())) }
    }),
    ("6.5.3/2", "SETTINGS are acknowledged", |peer| {
        peer.send(&settings(&[(MAX_CONCURRENT, 100)]));
        let acknowledged = peer.frame(kind::SETTINGS, 0)?;
        if acknowledged.flags & ACK != 0 { Ok(()) } else { Err("not acknowledged".to_owned()) }
    }),
    ("6.7/1", "a PING frame", |peer| peer.ping()),
    ("6.7/2", "PING with ACK is not answered", |peer| {
        peer.send(&frame(kind::PING, ACK, 0, b"unasked!"));
        peer.ping()
    }),
    ("6.7/3", "PING on a stream", |peer| {
        peer.send(&frame(kind::PING, 0, 1, &[0; 8]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.7/4", "PING of another length than 8", |peer| {
        peer.send(&frame(kind::PING, 0, 0, &[0; 6]));
        peer.connection_error(&[FRAME_SIZE_ERROR])
    }),
    ("6.8/1", "GOAWAY on a stream", |peer| {
        peer.send(&frame(kind::GOAWAY, 0, 1, &[0; 8]));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.9/1", "WINDOW_UPDATE by 0 on the connection", |peer| {
        peer.send(&window_update(0, 0));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.9/2", "WINDOW_UPDATE by 0 on a stream", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&window_update(1, 0));
        peer.stream_error(1, &[PROTOCOL_ERROR])
    }),
    ("6.9/3", "WINDOW_UPDATE of another length than 4", |peer| {
        peer.send(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1]));
        peer.connection_error(&[FRAME_SIZE_ERROR])
    }),
    ("6.9.1/1", "a window of one byte lets one byte through", |peer| {
        peer.settings(&[(INITIAL_WINDOW, 1)])?;
        peer.send(&headers(1, true, &GET));
        let data = peer.frame(kind::DATA, 1)?;
        if data.payload.len() == 1 { Ok(()) } else { Err(format!("{} bytes", data.payload.len())) }
    }),
    ("6.9.1/2", "WINDOW_UPDATEs beyond 2^31-1 on the connection", |peer| {
        peer.send(&window_update(0, 0x7fff_ffff));
        peer.send(&window_update(0, 0x7fff_ffff));
        peer.connection_error(&[FLOW_CONTROL_ERROR])
    }),
    ("6.9.1/3", "WINDOW_UPDATEs beyond 2^31-1 on a stream", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&window_update(1, 0x7fff_ffff));
        peer.send(&window_update(1, 0x7fff_ffff));
        peer.stream_error(1, &[FLOW_CONTROL_ERROR])
    }),
    ("6.9.2/1", "INITIAL_WINDOW_SIZE changed after HEADERS", |peer| {
        peer.settings(&[(INITIAL_WINDOW, 0)])?;
        peer.send(&headers(1, true, &GET));
        peer.response(1)?;
        peer.send(&settings(&[(INITIAL_WINDOW, 1)]));
        let data = peer.frame(kind::DATA, 1)?;
        if data.payload.len() == 1 { Ok(()) } else { Err(format!("{} bytes", data.payload.len())) }
    }),
    ("6.9.2/2", "a window that becomes negative", |peer| {
        peer.settings(&[(INITIAL_WINDOW, 3)])?;
        peer.send(&headers(1, true, &GET));
        peer.frame(kind::DATA, 1)?;
        peer.send(&settings(&[(INITIAL_WINDOW, 2)]));
        peer.send(&window_update(1, 2));
        let data = peer.frame(kind::DATA, 1)?;
        if data.payload.len() == 1 { Ok(()) } else { Err(format!("{} bytes", data.payload.len())) }
    }),
    ("6.9.2/3", "INITIAL_WINDOW_SIZE above the maximum", |peer| {
        peer.send(&settings(&[(INITIAL_WINDOW, 0xffff_ffff)]));
        peer.connection_error(&[FLOW_CONTROL_ERROR])
    }),
    ("6.10/1", "several CONTINUATION frames", |peer| {
        peer.send(&unfinished());
        peer.send(&continuation(0, 1));
        peer.send(&continuation(END_HEADERS, 1));
        peer.response(1)
    }),
    ("6.10/2", "CONTINUATION, then another frame", |peer| {
        peer.send(&unfinished());
        peer.send(&continuation(0, 1));
        peer.send(&frame(kind::DATA, END_STREAM, 1, b"test"));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.10/3", "CONTINUATION on stream 0", |peer| {
        peer.send(&unfinished());
        peer.send(&continuation(END_HEADERS, 0));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.10/4", "CONTINUATION after END_HEADERS", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&continuation(END_HEADERS, 1));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.10/5", "CONTINUATION after CONTINUATION with END_HEADERS", |peer| {
        peer.send(&unfinished());
        peer.send(&continuation(END_HEADERS, 1));
        peer.send(&continuation(END_HEADERS, 1));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("6.10/6", "CONTINUATION after DATA", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::DATA, 0, 1, b"test"));
        peer.send(&continuation(END_HEADERS, 1));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("7/1", "GOAWAY with an unknown code", |peer| {
        peer.send(&frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]));
        match peer.ping() {
            Ok(()) => Ok(()),
            Err(_) if peer.connection.closed => Ok(()),
            error => error,
        }
    }),
    ("7/2", "RST_STREAM with an unknown code", |peer| {
        peer.send(&headers(1, false, &POST));
        peer.send(&reset(1, 0xff));
        peer.ping()
    }),
    ("6.6/1", "PUSH_PROMISE of a client", |peer| {
        let payload = [&[0, 0, 0, 2][..], &frames::block(&GET)].concat();
        peer.send(&headers(1, false, &POST));
        peer.send(&frame(kind::PUSH_PROMISE, END_HEADERS, 1, &payload));
        peer.connection_error(&[PROTOCOL_ERROR])
    }),
    ("4.2/4", "SETTINGS longer than it says", |peer| {
        peer.send(&raw(6, kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]));
        peer.ping()
    }),
];
