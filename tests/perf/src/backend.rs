//! The application behind the proxies: one thread that answers every request with the same kibibyte.

use crate::message::head_length;
use anyhow::Result;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BODY_BYTES: usize = 1024;

/// Serves on `address` until the process ends, on a thread of its own; requests have no bodies.
pub fn start(address: SocketAddr) -> Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("backend".into()).spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // A connection ends as its peer likes.
                tokio::spawn(async move { drop(answer(stream).await) });
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            std::io::Result::Ok(())
        })
    })?;
    Ok(())
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY_BYTES}\r\n\r\n")
            .into_bytes();
    response.resize(response.len() + BODY_BYTES, b'x');
    let mut input = Vec::with_capacity(8192);
    while stream.read_buf(&mut input).await? > 0 {
        while let Some(length) = head_length(&input) {
            input.drain(..length);
            stream.write_all(&response).await?;
        }
    }
    Ok(())
}
