//! The applications behind the proxies, on one thread: HTTP/1.1 and HTTP/2 that answer every request with the same kibibyte, and a
//! source of endless bytes.

use crate::http2::{self, Frame, FrameReader};
use crate::message::head_length;
use anyhow::Result;
use std::future::Future;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Port of HTTP/1.1.
pub const HTTP1: u16 = 20_000;
/// Port of HTTP/2 without TLS.
pub const HTTP2: u16 = 20_001;
/// Port of the source of bytes.
pub const BYTES: u16 = 20_002;

const BODY_BYTES: usize = 1024;
/// What the source writes at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Serves until the process ends, on a thread of its own; requests have no bodies.
pub fn start() -> Result<()> {
    let bind = |port| {
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        listener.set_nonblocking(true)?;
        anyhow::Ok(listener)
    };
    let (http1, http2, bytes) = (bind(HTTP1)?, bind(HTTP2)?, bind(BYTES)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("backend".into()).spawn(move || {
        runtime.block_on(async {
            tokio::try_join!(accept(http1, answer), accept(http2, answer_http2), accept(bytes, pour))
                .map(drop)
        })
    })?;
    Ok(())
}

async fn accept<F: Future<Output = std::io::Result<()>> + Send + 'static>(
    listener: std::net::TcpListener,
    serve: fn(TcpStream) -> F,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection ends as its peer likes.
        tokio::spawn(async move { drop(serve(stream).await) });
    }
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

/// Answers each stream when its request has ended, as far as the connection's window lets it.
async fn answer_http2(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = FrameReader::after_preface();
    let mut output = http2::settings();
    let mut window = i64::from(http2::INITIAL_WINDOW);
    let mut due: std::collections::VecDeque<u32> = std::collections::VecDeque::new();
    loop {
        while let Some(&id) = due.front().filter(|_| window >= BODY_BYTES as i64) {
            http2::headers(&mut output, id, http2::RESPONSE_HEADERS, false);
            http2::data(&mut output, id, &[b'x'; BODY_BYTES]);
            window -= BODY_BYTES as i64;
            due.pop_front();
        }
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        if stream.read_buf(reader.buffer()).await? == 0 {
            return Ok(());
        }
        while let Some(frame) = reader.next().map_err(std::io::Error::other)? {
            match frame {
                Frame::Headers { id, end: true, .. } | Frame::Data { id, end: true, .. } => due.push_back(id),
                Frame::Window { id: 0, more } => window += i64::from(more),
                Frame::Settings => http2::acknowledge(&mut output),
                Frame::Ping(text) => http2::pong(&mut output, text),
                _ => {}
            }
        }
    }
}

async fn pour(mut stream: TcpStream) -> std::io::Result<()> {
    let piece = vec![b'x'; PIECE_BYTES];
    loop {
        stream.write_all(&piece).await?;
    }
}
