//! Bytes as fast as they come.

use super::{Counts, Load, Window, drive};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const PIECE_BYTES: usize = 256 * 1024;

/// Reads from `connections` at once; counts bytes.
pub fn bytes(address: SocketAddr, connections: usize, window: &Window<'_>) -> Result<Load> {
    drive(connections, window, |counts| client(address, counts))
}

async fn client(address: SocketAddr, counts: Rc<Counts>) -> Result<()> {
    let mut stream =
        TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    let mut piece = vec![0; PIECE_BYTES];
    while !counts.ended.get() {
        let read = stream.read(&mut piece).await?;
        ensure!(read > 0, "the connection was closed");
        counts.add(read as u64);
    }
    Ok(())
}
