//! HTTP/2 without TLS: a fixed number of requests under way on each connection.

use super::{Counts, Load, Window, drive};
use crate::http2::{self, Frame, FrameReader, INITIAL_WINDOW, PREFACE};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Stream identifiers are 31 bits; far below, so that no round ever reaches it.
const STREAM_MAX: u32 = 1 << 30;

/// A closed loop of `connections`, each with `streams` requests under way.
pub fn streams(address: SocketAddr, connections: usize, streams: usize, window: &Window<'_>) -> Result<Load> {
    drive(connections, window, |counts| client(address, streams, counts))
}

async fn client(address: SocketAddr, streams: usize, counts: Rc<Counts>) -> Result<()> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut output = PREFACE.to_vec();
    output.extend(http2::settings());
    http2::window(&mut output, 16 * 1024 * 1024);
    let mut reader = FrameReader::new();
    let mut sent: HashMap<u32, Instant> = HashMap::new();
    let (mut next, mut received) = (1, 0);
    while !(counts.ended.get() && sent.is_empty()) {
        while sent.len() < streams && !counts.ended.get() {
            ensure!(next < STREAM_MAX, "the connection has no stream left");
            http2::headers(&mut output, next, http2::REQUEST_HEADERS, true);
            sent.insert(next, Instant::now());
            next += 2;
        }
        if received >= INITIAL_WINDOW {
            http2::window(&mut output, received);
            received = 0;
        }
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        ensure!(stream.read_buf(reader.buffer()).await? > 0, "the connection was closed");
        while let Some(frame) = reader.next()? {
            match frame {
                Frame::Headers { ok, end: false, .. } => http2::check(ok)?,
                Frame::Headers { end: true, .. } => anyhow::bail!("a response has no body"),
                Frame::Data { id, end, bytes } => {
                    received += bytes;
                    if end && let Some(begun) = sent.remove(&id) {
                        counts.answered(begun);
                    }
                }
                Frame::Settings => http2::acknowledge(&mut output),
                Frame::Ping(text) => http2::pong(&mut output, text),
                Frame::Window { .. } | Frame::Other => {}
            }
        }
    }
    Ok(())
}
