//! The client end of an HTTP/2 connection: cheap to clone, shared by every request of one worker.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::h2::Reason;
use ::h2::client::{Builder, SendRequest};
use bytes::{Bytes, BytesMut};
use http::header;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version, request};
use http_body::Body as _;
use tokio::task::spawn_local;

use super::body::{Pump, PumpError, RecvBody};
use super::flood::Watched;
use super::strip_connection_headers;
use crate::body::Body;
use crate::error::{ParseError, SendError};
use crate::headers;
use crate::io::{BoxIo, Prefixed};
use crate::limits::Limits;

#[derive(Debug, Default)]
struct State {
    closed: Cell<bool>,
    active: Cell<usize>,
    begun: Cell<u64>,
}

/// A stream that counts as active while it lives.
pub(crate) struct Active(Rc<State>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// A connection to an upstream that carries many requests at once.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    state: Rc<State>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Client {
    /// Shakes hands over a connected stream and starts the task that drives it, which ends when the last clone and the last
    /// stream are gone.
    pub async fn connect(io: BoxIo, limits: &Limits) -> Result<Self, SendError> {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(limits.h2_stream_window)
            .initial_connection_window_size(limits.h2_connection_window)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(256 * 1024);
        let io = Watched::new(Prefixed::new(BytesMut::new(), io), 0);
        let (send, connection) = builder.handshake(io).await.map_err(send_error)?;
        let state = Rc::new(State::default());
        let of_task = Rc::clone(&state);
        spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "Upstream HTTP/2 connection ended");
            }
            of_task.closed.set(true);
        });
        Ok(Self { send, state })
    }

    /// Whether new requests may be sent: the connection is open and the peer has not said GOAWAY.
    pub fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.state.closed.get() && !matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Requests under way.
    pub fn active(&self) -> usize {
        self.state.active.get()
    }

    /// Requests begun so far.
    pub fn exchanges(&self) -> u64 {
        self.state.begun.get()
    }

    /// The most requests the peer allows at once.
    pub fn capacity(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Sends a request; resolves to the response's head, even if the request is not all sent by then. Dropping the future or the
    /// response's body resets the stream.
    pub async fn send(
        &self,
        parts: &request::Parts,
        body: Body,
        https: bool,
    ) -> Result<Response<Body>, SendError> {
        self.state.active.set(self.state.active.get() + 1);
        self.state.begun.set(self.state.begun.get() + 1);
        let active = Active(Rc::clone(&self.state));
        let request = to_h2(parts, &body, https)?;
        let mut send = self.send.clone().ready().await.map_err(send_error)?;
        let end = body.is_end_stream();
        let (mut response, stream) = send.send_request(request, end).map_err(send_error)?;
        let mut pump = (!end).then(|| Pump::new(body, stream));
        let response = poll_fn(|cx| {
            if let Some(sending) = &mut pump {
                match sending.poll(cx) {
                    Poll::Ready(Ok(())) => pump = None,
                    Poll::Ready(Err(PumpError::Body(error))) => {
                        return Poll::Ready(Err(SendError::RequestBody(error)));
                    }
                    // The response future says why.
                    Poll::Ready(Err(PumpError::Stream(_))) => pump = None,
                    Poll::Pending => {}
                }
            }
            Pin::new(&mut response).poll(cx).map_err(send_error)
        })
        .await?;
        let (mut parts, stream) = response.into_parts();
        parts.version = Version::HTTP_2;
        let length = headers::content_length(&parts.headers);
        Ok(Response::from_parts(parts, Body::h2(RecvBody::of_response(stream, length, pump, active))))
    }
}

fn to_h2(parts: &request::Parts, body: &Body, https: bool) -> Result<Request<()>, SendError> {
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_2;
    let mut map = parts.headers.clone();
    let host = map.remove(header::HOST);
    strip_connection_headers(&mut map);
    let malformed = |_| SendError::Protocol(ParseError::Host);
    let mut target = uri::Parts::default();
    let authority = host.as_ref().map(header::HeaderValue::as_bytes).unwrap_or_default();
    target.authority = Some(Authority::try_from(authority).map_err(malformed)?);
    if parts.method != Method::CONNECT {
        target.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
        let path = parts.uri.path_and_query().cloned();
        target.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| SendError::Protocol(ParseError::Target))?;
    match body.size_hint().exact() {
        Some(length) if length > 0 => drop(map.insert(header::CONTENT_LENGTH, length.into())),
        Some(_) => {}
        None => drop(map.remove(header::CONTENT_LENGTH)),
    }
    *request.headers_mut() = map;
    Ok(request)
}

fn send_error(error: ::h2::Error) -> SendError {
    if error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away() && error.is_remote() {
        return SendError::Refused;
    }
    if error.is_io() {
        return match error.into_io() {
            Some(error) => SendError::Io(error),
            None => SendError::Closed,
        };
    }
    SendError::Reset(error)
}
