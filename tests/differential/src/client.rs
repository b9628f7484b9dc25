//! Requests as bytes, answers as they come: nothing between the test and the proxy sets anything right.

use anyhow::{Context, Result, bail, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// An answer must be complete in this time.
const TIMEOUT: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1 << 20;

/// A request of HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path with its query.
    pub path: String,
    /// Other headers, in order.
    pub headers: Vec<(String, String)>,
    /// Body; empty: none is announced.
    pub body: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers with their names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

/// A connection that is kept as long as the server keeps it.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

// === impl Call ===

impl Call {
    /// A plain `GET`.
    #[must_use]
    pub fn get(host: &str, path: &str) -> Self {
        Self {
            method: "GET".into(),
            host: host.into(),
            path: path.into(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", self.method, self.path, self.host);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            text += &format!("content-length: {}\r\n", self.body.len());
        }
        text + "\r\n" + &self.body
    }
}

// === impl Client ===

impl Client {
    /// A client that connects when it is first used.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Sends a request and reads its answer. A kept connection that turns out to be closed is replaced once.
    ///
    /// # Errors
    /// When there is no complete answer.
    pub async fn send(&mut self, call: &Call) -> Result<Answer> {
        let kept = self.stream.is_some();
        match tokio::time::timeout(TIMEOUT, self.try_send(call)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if kept => tokio::time::timeout(TIMEOUT, self.try_send(call)).await?,
            Ok(Err(error)) => Err(error),
            Err(_) => {
                self.stream = None;
                bail!("no answer within {TIMEOUT:?} to {call:?}")
            }
        }
    }

    async fn try_send(&mut self, call: &Call) -> Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(call.encode().as_bytes()).await?;
        let mut answer = head(&mut stream).await?;
        let header = |name: &str| answer.headers.iter().find(|it| it.0 == name).map(|it| it.1.clone());
        let closes = header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        let mut whole = true;
        let body = if call.method == "HEAD" || matches!(answer.status, 204 | 304) {
            Vec::new()
        } else if header("transfer-encoding").is_some() {
            chunks(&mut stream).await?
        } else if let Some(length) = header("content-length") {
            let length: usize = length.parse()?;
            ensure!(length <= BODY_BYTES_MAX, "{length} bytes");
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            body
        } else {
            whole = false;
            let mut body = Vec::new();
            stream.read_to_end(&mut body).await?;
            body
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        if whole && !closes {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut text = String::new();
    ensure!(stream.read_line(&mut text).await? > 0, "the connection was closed");
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

async fn head(stream: &mut BufReader<TcpStream>) -> Result<Answer> {
    let first = line(stream).await?;
    let status = first.split(' ').nth(1).context("no status")?.parse()?;
    let mut headers = Vec::new();
    loop {
        let text = line(stream).await?;
        if text.is_empty() {
            return Ok(Answer { status, headers, body: String::new() });
        }
        let (name, value) = text.split_once(':').context("a header without a colon")?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

async fn chunks(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(line(stream).await?.split(';').next().unwrap_or_default(), 16)?;
        ensure!(body.len() + size <= BODY_BYTES_MAX, "too much");
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..]).await?;
        ensure!(line(stream).await?.is_empty(), "a chunk does not end");
        if size == 0 {
            return Ok(body);
        }
    }
}
