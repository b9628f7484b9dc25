//! Forwarding with hyper and nothing else.

use super::{Io, Next};
use anyhow::Result;
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use tokio::task::spawn_local;

/// Runs hyper's tasks on the one thread there is.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move { drop(future.await) });
    }
}

/// Connections to the next hop.
pub(super) struct Pool {
    next: Next,
    http2: bool,
    idle: RefCell<Vec<client1::SendRequest<Incoming>>>,
    shared: RefCell<Option<client2::SendRequest<Incoming>>>,
}

impl Pool {
    pub(super) fn new(next: Next, http2: bool) -> Self {
        Self { next, http2, idle: RefCell::default(), shared: RefCell::default() }
    }

    async fn send(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>> {
        if self.http2 {
            let shared = self.shared.borrow().clone().filter(|sender| !sender.is_closed());
            let mut sender = match shared {
                Some(sender) => sender,
                None => {
                    let io = TokioIo::new(self.next.connect().await?);
                    let (sender, connection) = client2::Builder::new(Local).handshake(io).await?;
                    spawn_local(async move { drop(connection.await) });
                    *self.shared.borrow_mut() = Some(sender.clone());
                    sender
                }
            };
            if request.uri().authority().is_none() {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
                *request.uri_mut() = format!("http://{}{path}", host.unwrap_or_default()).parse()?;
            }
            request.headers_mut().remove(header::HOST);
            *request.version_mut() = Version::HTTP_2;
            sender.ready().await?;
            return Ok(sender.send_request(request).await?);
        }
        let ready = {
            let mut idle = self.idle.borrow_mut();
            idle.retain(|sender| !sender.is_closed());
            let at = idle.iter().rposition(client1::SendRequest::is_ready);
            at.map(|at| idle.swap_remove(at))
        };
        let mut sender = match ready {
            Some(sender) => sender,
            None => {
                let io = TokioIo::new(self.next.connect().await?);
                let (sender, connection) = client1::handshake(io).await?;
                spawn_local(async move { drop(connection.await) });
                sender
            }
        };
        if let Some(authority) = request.uri().authority() {
            let host = authority.as_str().parse()?;
            request.headers_mut().insert(header::HOST, host);
        }
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(header::CONNECTION);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Into::into).unwrap_or_default();
        let response = sender.send_request(request).await?;
        // It is ready again when the response is read.
        self.idle.borrow_mut().push(sender);
        Ok(response)
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: Box<dyn Io>, is_http2: bool, pool: Rc<Pool>) -> Result<()> {
    let service = service_fn(move |request| {
        let pool = Rc::clone(&pool);
        async move { pool.send(request).await.map_err(std::io::Error::other) }
    });
    let io = TokioIo::new(stream);
    if is_http2 {
        http2::Builder::new(Local).serve_connection(io, service).await?;
    } else {
        http1::Builder::new().serve_connection(io, service).await?;
    }
    Ok(())
}
