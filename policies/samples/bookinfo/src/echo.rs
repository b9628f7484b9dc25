//! A service that does as it is told by the path and remembers what it was asked: for trying out policies, and for the tests of the mesh.
//!
//! `/status/CODE`, `/delay/MS`, `/flaky/N` (503 to the first N requests for that path), `/seen?path=P`; anything may follow behind a slash,
//! so that each use has a path of its own. Requests to upgrade and the TCP port get back the bytes that they send.

use anyhow::Context;
use base_runtime::{CancellationToken, http_server::json as answer};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Paths that are remembered; requests for further ones are answered and forgotten.
const PATHS_MAX: usize = 1_000;
const CONNECTIONS_MAX: usize = 1_000;
const BODY_BYTES_MAX: usize = 1 << 20;
const DELAY_MAX: Duration = Duration::from_secs(60);

/// What one echo service is like.
pub struct Echo {
    /// Name of its pod.
    pub pod: String,
    /// Status that it gives to everything but `/health` and `/seen`.
    pub fail: Option<StatusCode>,
    seen: Mutex<BTreeMap<String, Seen>>,
}

/// What came for one path.
#[derive(Default, Clone)]
struct Seen {
    count: u64,
    under_way: u64,
    at_once: u64,
    last: Value,
}

impl Echo {
    pub fn new(pod: String, fail: Option<StatusCode>) -> Self {
        Self { pod, fail, seen: Mutex::default() }
    }

    async fn handle(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/health" => return answer(StatusCode::OK, r#"{"status":"ok"}"#),
            "/seen" => return answer(StatusCode::OK, self.seen(request.uri().query()).to_string()),
            _ => {}
        }
        let asked = json!({
            "pod": self.pod, "method": request.method().as_str(), "path": path,
            "query": request.uri().query(), "headers": headers(request.headers()),
        });
        let nth = self.enter(&path, &asked);
        let response = if request.headers().contains_key(header::UPGRADE) {
            upgrade(&mut request)
        } else {
            let length =
                Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map(|b| b.to_bytes().len());
            match length {
                Ok(length) => self.obey(&path, nth, asked, length).await,
                Err(_) => answer(StatusCode::BAD_REQUEST, r#"{"error":"unreadable body"}"#),
            }
        };
        self.leave(&path);
        response
    }

    async fn obey(&self, path: &str, nth: u64, mut asked: Value, length: usize) -> Response<Full<Bytes>> {
        asked["bodyLength"] = length.into();
        let mut words = path.split('/').skip(1);
        let (verb, number) = (words.next().unwrap_or(""), words.next().and_then(|n| n.parse::<u64>().ok()));
        let status = match (self.fail, verb, number) {
            (Some(status), ..) => status,
            (None, "status", Some(code)) => u16::try_from(code)
                .ok()
                .and_then(|code| StatusCode::from_u16(code).ok())
                .filter(|status| status.as_u16() >= 200)
                .unwrap_or(StatusCode::BAD_REQUEST),
            (None, "delay", Some(millis)) => {
                tokio::time::sleep(Duration::from_millis(millis).min(DELAY_MAX)).await;
                StatusCode::OK
            }
            (None, "flaky", Some(failures)) if nth <= failures => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        answer(status, asked.to_string())
    }

    /// Notes a request; how many there were for the path, with this one.
    fn enter(&self, path: &str, asked: &Value) -> u64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= PATHS_MAX && !seen.contains_key(path) {
            return 1;
        }
        let entry = seen.entry(path.to_owned()).or_default();
        entry.count += 1;
        entry.under_way += 1;
        entry.at_once = entry.at_once.max(entry.under_way);
        entry.last = asked.clone();
        entry.count
    }

    fn leave(&self, path: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(path) {
            entry.under_way = entry.under_way.saturating_sub(1);
        }
    }

    /// What came for the path of `path=…`, or for all.
    fn seen(&self, query: Option<&str>) -> Value {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let show = |s: &Seen| json!({"count": s.count, "atOnce": s.at_once, "last": s.last});
        match query.and_then(|query| query.strip_prefix("path=")) {
            Some(path) => show(&seen.get(path).cloned().unwrap_or_default()),
            None => seen.iter().map(|(path, s)| (path.clone(), show(s))).collect(),
        }
    }
}

/// Headers as JSON: a text for a header that is there once, a list otherwise.
pub fn headers(map: &HeaderMap) -> Value {
    map.keys()
        .map(|name| {
            let mut values: Vec<Value> = map
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned().into())
                .collect();
            let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// Switches to the protocol that the client named, and sends its bytes back from then on.
fn upgrade(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    if let Some(protocol) = request.headers().get(header::UPGRADE) {
        response.headers_mut().insert(header::UPGRADE, protocol.clone());
    }
    response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("upgrade"));
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(stream) = upgraded.await {
            send_back(TokioIo::new(stream)).await;
        }
    });
    response
}

async fn send_back(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Serves HTTP, and on the second address plain TCP, until `shutdown`.
pub async fn run(
    echo: Echo,
    http: SocketAddr,
    tcp: Option<SocketAddr>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listen = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let (http, tcp) = (
        listen(http).await?,
        match tcp {
            Some(address) => Some(listen(address).await?),
            None => None,
        },
    );
    tracing::info!("Serving");
    if let Some(tcp) = tcp {
        let shutdown = shutdown.clone();
        tokio::spawn(accept(tcp, shutdown, send_back));
    }
    let echo = Arc::new(echo);
    accept(http, shutdown, move |stream| serve(echo.clone(), stream)).await;
    Ok(())
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    shutdown: CancellationToken,
    connection: impl Fn(TcpStream) -> F,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream);
                tokio::spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "Accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(echo: Arc<Echo>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let echo = echo.clone();
        async move { Ok::<_, Infallible>(echo.handle(request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "Connection ended");
    }
}
