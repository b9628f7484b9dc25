//! As much HTTP/2 as generator and backend need, cheaper than any library: fixed header blocks, frames cut out of a buffer.

use anyhow::{Result, bail, ensure};

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Flow-control window of a connection at its start (RFC 9113, 6.9.2).
pub const INITIAL_WINDOW: u32 = 65_535;
/// `:status 200`, `content-length: 1024`, `content-type: text/plain`, as HPACK without its dynamic table.
pub const RESPONSE_HEADERS: &[u8] = b"\x88\x0f\x0d\x041024\x0f\x10\x0atext/plain";
/// `:method GET`, `:scheme http`, `:path`, `:authority`, `user-agent`, as HPACK without its dynamic table.
pub const REQUEST_HEADERS: &[u8] =
    b"\x82\x86\x04\x0b/products/1\x01\x1dapp.default.svc.cluster.local\x0f\x2b\x04perf";

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame that matters here.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A header block; `ok` says that it begins with the status 200.
    Headers {
        id: u32,
        end: bool,
        ok: bool,
    },
    Data {
        id: u32,
        end: bool,
        bytes: u32,
    },
    Settings,
    Ping([u8; 8]),
    Window {
        id: u32,
        more: u32,
    },
    Other,
}

/// Cuts frames out of what was read.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    at: usize,
    preface_left: usize,
}

impl FrameReader {
    /// Of a client's side.
    pub fn new() -> Self {
        Self { buffer: Vec::with_capacity(64 * 1024), at: 0, preface_left: 0 }
    }

    /// Of a server's side, where the preface comes first.
    pub fn after_preface() -> Self {
        Self { preface_left: PREFACE.len(), ..Self::new() }
    }

    /// Where to read to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.at);
        self.at = 0;
        &mut self.buffer
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let skip = self.preface_left.min(self.buffer.len() - self.at);
        self.at += skip;
        self.preface_left -= skip;
        let rest = &self.buffer[self.at..];
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, kind, flags, id @ ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]);
        let id = u32::from_be_bytes(id);
        let end = flags & END_STREAM != 0;
        let Some(payload) = rest.get(HEADER_BYTES..HEADER_BYTES + length as usize) else { return Ok(None) };
        self.at += HEADER_BYTES + payload.len();
        Ok(Some(match kind {
            // A change of the table's size may come before the status.
            HEADERS => Frame::Headers { id, end, ok: payload.iter().take(4).any(|byte| *byte == 0x88) },
            DATA => Frame::Data { id, end, bytes: length },
            SETTINGS if flags & ACK == 0 => Frame::Settings,
            PING if flags & ACK == 0 => Frame::Ping(payload.try_into()?),
            WINDOW_UPDATE => Frame::Window { id, more: u32::from_be_bytes(payload.try_into()?) },
            RST_STREAM | GOAWAY => bail!("the peer ended a stream or the connection: {payload:?}"),
            _ => Frame::Other,
        }))
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The first frame of either side, with defaults.
pub fn settings() -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    out
}

/// A header block that ends with this frame.
pub fn headers(out: &mut Vec<u8>, id: u32, block: &[u8], end: bool) {
    frame(out, HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, id, block);
}

/// The whole body.
pub fn data(out: &mut Vec<u8>, id: u32, bytes: &[u8]) {
    frame(out, DATA, END_STREAM, id, bytes);
}

/// Answers the peer's settings.
pub fn acknowledge(out: &mut Vec<u8>) {
    frame(out, SETTINGS, ACK, 0, &[]);
}

/// Answers a ping.
pub fn pong(out: &mut Vec<u8>, text: [u8; 8]) {
    frame(out, PING, ACK, 0, &text);
}

/// Gives the peer's connection window so many bytes more.
pub fn window(out: &mut Vec<u8>, more: u32) {
    frame(out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
}

/// Whether a response's head is good.
pub fn check(ok: bool) -> Result<()> {
    ensure!(ok, "the answer over HTTP/2 is not 200");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_out_wherever_reads_end() {
        let mut wire = PREFACE.to_vec();
        wire.extend(settings());
        headers(&mut wire, 1, RESPONSE_HEADERS, false);
        data(&mut wire, 1, b"abc");
        window(&mut wire, 7);
        let mut reader = FrameReader::after_preface();
        let mut seen = Vec::new();
        for byte in wire {
            reader.buffer().push(byte);
            seen.extend(reader.next().unwrap());
        }
        let expected = [
            Frame::Settings,
            Frame::Headers { id: 1, end: false, ok: true },
            Frame::Data { id: 1, end: true, bytes: 3 },
            Frame::Window { id: 0, more: 7 },
        ];
        assert_eq!(seen, expected);
        let mut reset = Vec::new();
        frame(&mut reset, RST_STREAM, 0, 1, &[0; 4]);
        reader.buffer().extend(reset);
        assert!(reader.next().is_err());
    }
}
