//! Raw sockets: send these bytes, see what comes back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed the connection.
    Closed,
    /// The peer reset it.
    Reset,
    /// It was still open when the time was over.
    Open,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// How it ended.
    pub end: End,
}

impl Answer {
    /// The status codes of all responses, found by their status lines. Bodies must not look like one.
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
    }
}

/// Sends `bytes` on a connection of its own and reads until it ends or nothing has come for `quiet`.
///
/// # Errors
/// If the connection cannot be made.
pub fn exchange(address: SocketAddr, bytes: &[u8], quiet: Duration) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    // Who refuses early may have closed already: what it said still counts.
    let _ = stream.write_all(bytes);
    Ok(read(&mut stream, quiet))
}

/// Reads until the connection ends or nothing has come for `quiet`.
pub fn read(stream: &mut TcpStream, quiet: Duration) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let end = loop {
        if stream.set_read_timeout(Some(quiet)).is_err() {
            break End::Reset;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break End::Closed,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break End::Open;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break End::Reset,
        }
    };
    Answer { bytes, end }
}

/// How long the peer keeps a connection open after `bytes`, at most `longest`; and what it said.
///
/// # Errors
/// If the connection cannot be made.
pub fn patience(address: SocketAddr, bytes: &[u8], longest: Duration) -> Result<(Duration, Answer)> {
    let mut stream = TcpStream::connect(address)?;
    let began = Instant::now();
    let _ = stream.write_all(bytes);
    let answer = read(&mut stream, longest);
    Ok((began.elapsed(), answer))
}
