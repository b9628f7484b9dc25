//! An application behind a sidecar, by hyper: it answers what it was asked and can be told to misbehave.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// A server that sends every byte back; its address.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                // A client that goes away ends its echo.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// An application.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
    answered: Arc<AtomicUsize>,
}

impl App {
    /// Starts one on a free port.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Self { name, address, requests: Arc::default(), answered: Arc::default() };
        let serving = app.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let app = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| app.clone().answer(request));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // A connection that is broken off is part of some tests.
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        app
    }

    /// Requests so far: target, headers, body.
    pub(crate) fn requests(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.requests.lock().clone()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.requests.lock().len()
    }

    /// Forgets the requests so far.
    pub(crate) fn forget(&self) {
        self.requests.lock().clear();
    }

    async fn answer(
        self,
        mut request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, std::io::Error> {
        let header = |request: &Request<Incoming>, name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        if request.headers().contains_key("upgrade") {
            return Ok(self.upgrade(request));
        }
        let headers = request.headers().clone();
        if let Some(milliseconds) = header(&request, "test-delay-ms").and_then(|text| text.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        if header(&request, "test-slow-app").as_deref() == Some(self.name)
            && let Some(milliseconds) = header(&request, "test-slow-ms").and_then(|text| text.parse().ok())
        {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        let collected = request.body_mut().collect().await.map_err(std::io::Error::other)?;
        let trailers = collected.trailers().cloned();
        let body = collected.to_bytes();
        self.requests.lock().push((path.clone(), headers, body.clone()));
        let count = self.answered.fetch_add(1, SeqCst);
        if header(&request, "test-reset-app").as_deref() == Some(self.name) {
            // hyper closes the connection without an answer.
            return Err(std::io::Error::other("reset on purpose"));
        }
        let fails = header(&request, "test-fail-first").and_then(|text| text.parse::<usize>().ok());
        let status = if fails.is_some_and(|fails| count < fails) {
            503
        } else {
            header(&request, "test-status").and_then(|text| text.parse().ok()).unwrap_or(200)
        };
        let mut response =
            Response::builder().status(StatusCode::from_u16(status).unwrap()).header("test-app", self.name);
        if status == 503
            && let Some(seconds) = header(&request, "test-retry-after")
        {
            response = response.header("retry-after", seconds);
        }
        if let Some(name) = header(&request, "test-answer-header") {
            response = response.header(name, "true");
        }
        if header(&request, "content-type").as_deref() == Some("application/grpc") {
            let mut end = trailers.unwrap_or_default();
            end.insert("grpc-status", "0".parse().unwrap());
            let body = Full::new(body).with_trailers(async move { Some(Ok(end)) });
            response = response.header("content-type", "application/grpc");
            return Ok(response.body(body.boxed()).unwrap());
        }
        if header(&request, "test-stall").is_some() {
            let first = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"begun"))) });
            let never = futures::StreamExt::chain(first, futures::stream::pending());
            let body = http_body_util::StreamBody::new(never);
            return Ok(response.body(http_body_util::BodyExt::boxed(body)).unwrap());
        }
        let text = format!("{} {path} {}", self.name, String::from_utf8_lossy(&body));
        Ok(response.body(Full::new(Bytes::from(text)).boxed()).unwrap())
    }

    /// Switches protocols and sends every byte back.
    fn upgrade(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let protocol = request.headers()["upgrade"].clone();
        tokio::spawn(async move {
            let stream = hyper::upgrade::on(request).await.unwrap();
            let (mut read, mut write) = tokio::io::split(TokioIo::new(stream));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("upgrade", protocol)
            .header("connection", "upgrade")
            .body(Full::default().boxed())
            .unwrap()
    }
}
