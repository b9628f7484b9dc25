//! As many HTTP/1.1 requests as come back, on connections that stay open.

use super::{Counts, Load, REQUEST, Window, drive};
use crate::message::response_length;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A closed loop of `connections`, one request at a time on each.
pub fn closed(address: SocketAddr, connections: usize, window: &Window<'_>) -> Result<Load> {
    drive(connections, window, |counts| client(address, counts))
}

async fn client(address: SocketAddr, counts: Rc<Counts>) -> Result<()> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(8192);
    while !counts.ended.get() {
        let sent = Instant::now();
        stream.write_all(REQUEST).await?;
        read_response(&mut stream, &mut input).await?;
        counts.answered(sent);
    }
    Ok(())
}

/// Reads one response with the length it announces.
pub(super) async fn read_response<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut Vec<u8>,
) -> Result<()> {
    input.clear();
    let mut length = None;
    while length.is_none_or(|length| input.len() < length) {
        ensure!(stream.read_buf(input).await? > 0, "the connection was closed");
        if length.is_none() {
            length = response_length(input)?;
        }
    }
    Ok(())
}
