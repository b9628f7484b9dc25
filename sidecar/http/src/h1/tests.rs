//! Hostile and odd input over in-memory streams; both ends of the codec against each other.

mod client;
mod hostile;
mod server;

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, LocalOptions};

use crate::body::Body;
use crate::drain::Drain;
use crate::error::ParseError;
use crate::limits::Limits;
use crate::serve::{Handler, Reply, Served};

/// Runs a test on a runtime like a worker's.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap().block_on(test)
}

/// Answers with what it was asked: method, target, headers in order of name, body, trailers.
#[derive(Default, Clone)]
pub(crate) struct Echo {
    pub(crate) refused: Rc<RefCell<Vec<ParseError>>>,
    pub(crate) requests: Rc<RefCell<Vec<String>>>,
}

impl Handler for Echo {
    async fn handle(&self, request: Request<Body>) -> Reply {
        let (parts, body) = request.into_parts();
        let mut text = format!("{} {}\n", parts.method, parts.uri);
        let mut headers: Vec<String> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        headers.sort();
        text.push_str(&headers.concat());
        match body.collect().await {
            Ok(collected) => {
                let trailers = collected.trailers().cloned();
                text.push_str(&String::from_utf8_lossy(&collected.to_bytes()));
                for (name, value) in trailers.iter().flatten() {
                    text.push_str(&format!(
                        "\ntrailer {name}: {}",
                        String::from_utf8_lossy(value.as_bytes())
                    ));
                }
            }
            Err(error) => text.push_str(&format!("body error: {error}")),
        }
        self.requests.borrow_mut().push(text.clone());
        Reply::new(Response::new(Body::full(text.into_bytes())))
    }

    fn refused(&self, error: ParseError) {
        self.refused.borrow_mut().push(error);
    }
}

/// Sends `pieces` one by one to a server and returns what it answered until it closed, with how it ended.
pub(crate) async fn talk(pieces: &[&[u8]], echo: &Echo) -> (String, Served) {
    let (mut client, server) = tokio::io::duplex(256 * 1024);
    let handler = echo.clone();
    let served = tokio::task::spawn_local(serve_one(server, handler));
    for piece in pieces {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    (String::from_utf8(answer).unwrap(), served.await.unwrap())
}

/// Serves one connection with the default limits.
pub(crate) async fn serve_one(server: tokio::io::DuplexStream, handler: Echo) -> Served {
    let drain = Drain::default();
    crate::h1::serve(Box::new(server), BytesMut::new(), Rc::new(quick()), drain.watch(), &handler).await
}

/// The default limits, but for times a test must wait.
pub(crate) fn quick() -> Limits {
    let (head_timeout, linger) = (Duration::from_millis(500), Duration::from_millis(1));
    Limits { head_timeout, linger, ..Limits::default() }
}
