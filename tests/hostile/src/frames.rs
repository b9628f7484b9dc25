//! HTTP/2 by hand: frames as bytes, headers without compression, and a reader that takes what comes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

/// What a client sends first (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113, 6).
#[allow(missing_docs, reason = "the names are the RFC's")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Error codes (RFC 9113, 7).
#[allow(missing_docs, reason = "the names are the RFC's")]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const SETTINGS_TIMEOUT: u32 = 4;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const CONNECT_ERROR: u32 = 10;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// The flag END_STREAM, also ACK.
pub const END_STREAM: u8 = 1;
/// The flag ACK of SETTINGS and PING.
pub const ACK: u8 = 1;
/// The flag END_HEADERS.
pub const END_HEADERS: u8 = 4;
/// The flag PADDED.
pub const PADDED: u8 = 8;
/// The flag PRIORITY of HEADERS.
pub const PRIORITY: u8 = 32;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream, with the reserved bit.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    raw(payload.len(), kind, flags, stream, payload)
}

/// A frame whose length field says something of its own.
pub fn raw(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A SETTINGS frame.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in values {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// A WINDOW_UPDATE frame.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// A RST_STREAM frame.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// Header fields as literals that are not indexed, without Huffman coding (RFC 7541, 6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        string(&mut out, name.as_ref());
        string(&mut out, value.as_ref());
    }
    out
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    integer(out, 0, 7, bytes.len());
    out.extend_from_slice(bytes);
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1).
pub fn integer(out: &mut Vec<u8>, first: u8, bits: u32, mut value: usize) {
    let max = (1usize << bits) - 1;
    if value < max {
        out.push(first | u8::try_from(value).unwrap_or(0));
        return;
    }
    out.push(first | u8::try_from(max).unwrap_or(0));
    value -= max;
    while value >= 128 {
        out.push(u8::try_from(value % 128).unwrap_or(0) | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// The pseudo-headers of a plain request.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
/// Those of one with a body.
pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];

/// A HEADERS frame with the end of its headers.
pub fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(stream: u32, end: bool, fields: &[(N, V)]) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | u8::from(end), stream, &block(fields))
}

/// A connection of a client that may send anything.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
    input: Vec<u8>,
    /// The peer has ended the connection, or it failed.
    pub closed: bool,
}

impl Connection {
    /// Connects without saying anything.
    ///
    /// # Errors
    /// If it cannot connect.
    pub fn bare(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new(), closed: false })
    }

    /// Connects and exchanges prefaces and settings.
    ///
    /// # Errors
    /// If the peer does not take them.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Self::open_with(address, &[])
    }

    /// Connects with these settings.
    ///
    /// # Errors
    /// If the peer does not take them.
    pub fn open_with(address: SocketAddr, values: &[(u16, u32)]) -> Result<Self> {
        let mut connection = Self::bare(address)?;
        connection.send(PREFACE);
        connection.send(&settings(values));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = (false, false);
        while seen != (true, true) {
            let Some(frame) = connection.next(deadline) else { anyhow::bail!("no settings from the peer") };
            if frame.kind == kind::SETTINGS {
                if frame.flags & ACK == 0 {
                    connection.send(&self::frame(kind::SETTINGS, ACK, 0, &[]));
                    seen.0 = true;
                } else {
                    seen.1 = true;
                }
            }
        }
        Ok(connection)
    }

    /// Sends bytes; whether the peer still took them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame before `deadline`; none if the connection ends or stays silent.
    pub fn next(&mut self, deadline: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.stream.set_read_timeout(Some(left)).ok()?;
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.closed = true;
                    return None;
                }
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.closed = true;
                    return None;
                }
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let [a, b, c, kind, flags, s, t, u, v] = *self.input.first_chunk()?;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let payload = self.input.get(9..9 + length)?.to_vec();
        self.input.drain(..9 + length);
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload })
    }

    /// Reads frames until one satisfies `wanted`, the connection ends, or the time is over.
    pub fn until(&mut self, longest: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        let deadline = Instant::now() + longest;
        loop {
            let frame = self.next(deadline)?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Whether the connection is alive and obedient: a PING is answered.
    pub fn answers_ping(&mut self) -> bool {
        self.send(&frame(kind::PING, 0, 0, b"alive?!?"))
            && self
                .until(Duration::from_secs(10), |frame| {
                    frame.kind == kind::PING && frame.flags & ACK != 0 && frame.payload == b"alive?!?"
                })
                .is_some()
    }
}
