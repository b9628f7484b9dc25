//! The cases of h2spec, made again with frames by hand: generic behaviour, RFC 9113 (their numbers are RFC 7540's) and RFC 7541.

mod frames_and_streams;
mod generic;
mod headers;
mod messages;

use std::net::SocketAddr;
use std::time::Duration;

use tests_hostile::backend::Backend;
use tests_hostile::frames::{ACK, Connection, Frame, code, frame, kind};
use tests_hostile::{ListenerSpec, Sidecar, Spec};

use crate::SIDECAR;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a case found.
type Verdict = Result<(), String>;

/// A case: its section, what it says, and how it is tried.
type Case = (&'static str, &'static str, fn(&mut Peer) -> Verdict);

/// A connection to the sidecar, with what a case may expect of it.
struct Peer {
    connection: Connection,
    address: SocketAddr,
}

impl Peer {
    fn send(&mut self, bytes: &[u8]) {
        // A peer that has seen enough may have closed already: what it said is what counts.
        self.connection.send(bytes);
    }

    /// Starts anew with these settings.
    fn settings(&mut self, values: &[(u16, u32)]) -> Verdict {
        self.connection = Connection::open_with(self.address, values).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn bare(&mut self) -> Verdict {
        self.connection = Connection::bare(self.address).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// GOAWAY with one of these codes, or the connection closes.
    fn connection_error(&mut self, codes: &[u32]) -> Verdict {
        self.ends(codes, None)
    }

    /// RST_STREAM or GOAWAY with one of these codes, or the connection closes.
    fn stream_error(&mut self, stream: u32, codes: &[u32]) -> Verdict {
        self.ends(codes, Some(stream))
    }

    fn ends(&mut self, codes: &[u32], stream: Option<u32>) -> Verdict {
        let mut seen = Vec::new();
        let found = self.connection.until(PATIENCE, |frame| {
            seen.push((frame.kind, frame.stream, frame.code()));
            // Another code is no failure if the connection ends: PROTOCOL_ERROR may stand for any (RFC 9113, 7).
            frame.code().is_some_and(|code| codes.contains(&code))
                && (frame.kind == kind::GOAWAY || stream == Some(frame.stream))
        });
        match found {
            Some(_) => Ok(()),
            None if self.connection.closed => Ok(()),
            _ => Err(format!("no error {codes:?}; frames (kind, stream, code): {seen:?}")),
        }
    }

    /// A malformed request: the stream is reset, or answered with 400 (RFC 9113, 8.1.1).
    fn malformed(&mut self, stream: u32) -> Verdict {
        let mut seen = Vec::new();
        let found = self.connection.until(PATIENCE, |frame| {
            seen.push((frame.kind, frame.stream, frame.code()));
            matches!(frame.kind, kind::RST_STREAM | kind::HEADERS) && frame.stream == stream
                || frame.kind == kind::GOAWAY
        });
        match found {
            Some(frame) if frame.kind == kind::HEADERS => {
                if status(&frame) == Some(400) {
                    Ok(())
                } else {
                    Err(format!("answered {:?}", status(&frame)))
                }
            }
            Some(frame) if frame.code() == Some(code::PROTOCOL_ERROR) => Ok(()),
            None if self.connection.closed => Ok(()),
            _ => Err(format!("not refused; frames (kind, stream, code): {seen:?}")),
        }
    }

    /// A response with 200.
    fn response(&mut self, stream: u32) -> Verdict {
        let mut seen = Vec::new();
        let found = self.connection.until(PATIENCE, |frame| {
            seen.push((frame.kind, frame.stream, frame.code()));
            frame.kind == kind::HEADERS && frame.stream == stream
        });
        match found.as_ref().map(status) {
            Some(Some(200)) => Ok(()),
            other => Err(format!("no 200 but {other:?}; frames (kind, stream, code): {seen:?}")),
        }
    }

    /// A frame of a kind on a stream.
    fn frame(&mut self, kind: u8, stream: u32) -> Result<Frame, String> {
        let found = self.connection.until(PATIENCE, |frame| frame.kind == kind && frame.stream == stream);
        found.ok_or_else(|| format!("no frame of kind {kind} on stream {stream}"))
    }

    /// The connection is alive.
    fn ping(&mut self) -> Verdict {
        self.send(&frame(kind::PING, 0, 0, b"h2spec!!"));
        let mut seen = Vec::new();
        let found = self.connection.until(PATIENCE, |frame| {
            seen.push((frame.kind, frame.stream, frame.code()));
            frame.kind == kind::PING && frame.flags & ACK != 0 && frame.payload == b"h2spec!!"
        });
        found.map(drop).ok_or_else(|| format!("PING is not answered; frames (kind, stream, code): {seen:?}"))
    }
}

/// The status of a response head: the sidecar's HPACK encoder writes it first, indexed or as a literal.
fn status(frame: &Frame) -> Option<u16> {
    match *frame.payload.first()? {
        0x88 => Some(200),
        0x89 => Some(204),
        0x8c => Some(400),
        0x8d => Some(404),
        0x8e => Some(500),
        // A literal with the name `:status`, its value in Huffman coding or plain: not one of the above.
        _ => Some(0),
    }
}

/// What is read more leniently than h2spec wants, and why that harms nobody.
const DEVIATIONS: [(&str, &str); 1] = [(
    "8.1.2.1/3",
    "the h2 crate drops pseudo-headers of trailers before anybody sees them: they are not passed on",
)];

#[test]
fn every_case_holds() {
    let backend = Backend::start().unwrap();
    let listeners = vec![ListenerSpec { head_timeout_ms: 1000, ..ListenerSpec::to("in", backend.address) }];
    let sidecar = Sidecar::start(SIDECAR, &Spec { listeners, workers: 1 }, None).unwrap();
    let address = sidecar.address("in");
    let cases = [generic::CASES, frames_and_streams::CASES, messages::CASES, headers::CASES].concat();
    assert!(cases.len() >= 140, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (section, name, run) in &cases {
        let connection = Connection::open(address).unwrap();
        let mut peer = Peer { connection, address };
        let verdict = run(&mut peer);
        println!("{} {section} {name}", if verdict.is_ok() { "ok  " } else { "FAIL" });
        let deviates = DEVIATIONS.iter().any(|(known, _)| known == section);
        assert!(verdict.is_err() || !deviates, "{section} holds now: strike it from the deviations");
        if let (Err(error), false) = (verdict, deviates) {
            wrong.push(format!("{section} {name}: {error}"));
        }
        let mut alive = Connection::open(address).unwrap();
        assert!(alive.answers_ping(), "dead after {section} {name}");
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
