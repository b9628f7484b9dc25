//! Small HTTP requests to the application beside us.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How often a draining proxy is asked whether it has drained.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 32 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("cannot speak TLS")]
    Tls(#[source] base_tls::TlsError),
    #[error("cannot speak HTTP")]
    Http(#[source] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[source] http::Error),
    #[error("the answer cannot be read: {0}")]
    Body(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain HTTP/1.1.
    Http,
    /// HTTP/1.1 in TLS with whatever certificate, as probes do.
    Https,
    /// HTTP/2 by prior knowledge, for gRPC.
    Http2,
}

/// A question.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) scheme: Scheme,
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) limit: Duration,
}

/// Connects; the application sees the address from which the mesh's own calls come, and interception lets it through.
pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let ours = IpAddr::from([127, 0, 0, 6]);
    if address.is_ipv4() {
        socket.bind(SocketAddr::new(ours, 0))?;
    }
    socket.connect(address).await
}

/// Asks, and reads the whole answer.
pub(crate) async fn ask(question: Question) -> Result<Response<Bytes>, FetchError> {
    let limit = question.limit;
    timeout(limit, exchange(question)).await.unwrap_or(Err(FetchError::Timeout(limit)))
}

/// Asks for a path and prints what comes.
pub(crate) async fn print(address: SocketAddr, path: String) -> anyhow::Result<()> {
    let (headers, body, limit) = (HeaderMap::new(), Bytes::new(), Duration::from_secs(10));
    let answer = ask(Question { scheme: Scheme::Http, address, path, headers, body, limit }).await?;
    let text = String::from_utf8_lossy(answer.body());
    anyhow::ensure!(answer.status().is_success(), "{}: {}", answer.status(), text.trim());
    std::io::Write::write_all(&mut std::io::stdout(), answer.body())?;
    Ok(())
}

/// Asks the proxy to drain, and waits until it has, but not longer than `most`.
pub(crate) async fn drain(address: SocketAddr, most: Duration) -> anyhow::Result<()> {
    let ask_for = |path: &str, body: &'static [u8]| Question {
        scheme: Scheme::Http,
        address,
        path: path.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body),
        limit: Duration::from_secs(1),
    };
    let asked = ask(ask_for("/drain", b"drain")).await?;
    anyhow::ensure!(asked.status().is_success(), "the proxy does not drain: {}", asked.status());
    let waits = async {
        // An error is a proxy that has gone: nothing is under way in it.
        while ask(ask_for("/drained", b"")).await.is_ok_and(|answer| !answer.status().is_success()) {
            tokio::time::sleep(DRAIN_TICK).await;
        }
    };
    // Not having drained in time is no failure of the hook: the pod's end goes on.
    let _ = timeout(most, waits).await;
    Ok(())
}

async fn exchange(question: Question) -> Result<Response<Bytes>, FetchError> {
    let stream =
        connect(question.address).await.map_err(|error| FetchError::Connect(question.address, error))?;
    match question.scheme {
        Scheme::Http | Scheme::Http2 => send(stream, question).await,
        Scheme::Https => {
            let trust = base_tls::Material::trust(None).map_err(FetchError::Tls)?;
            let client =
                base_tls::Client::new(&base_tls::Rotating::new(trust), base_tls::ServerCheck::Insecure, &[]);
            let name = question.address.ip().to_string();
            send(client.connect(stream, &name).await.map_err(FetchError::Tls)?, question).await
        }
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    question: Question,
) -> Result<Response<Bytes>, FetchError> {
    let http2 = question.scheme == Scheme::Http2;
    let method = if question.body.is_empty() { Method::GET } else { Method::POST };
    let target = if http2 { format!("http://{}{}", question.address, question.path) } else { question.path };
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .body(Full::new(question.body))
        .map_err(FetchError::Request)?;
    *request.headers_mut() = question.headers;
    if !http2 && !request.headers().contains_key(http::header::HOST) {
        let host = question.address.to_string();
        request.headers_mut().insert(
            http::header::HOST,
            host.parse().map_err(|error| FetchError::Request(http::Error::from(error)))?,
        );
    }
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(FetchError::Http)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(FetchError::Http)?
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(FetchError::Http)?
    };
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_MAX)
        .collect()
        .await
        .map_err(|error| FetchError::Body(error.to_string()))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
