//! The client end of an HTTP/1.1 connection: one exchange at a time, owned by whoever runs it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, request};
use http_body::{Body as _, Frame};

use super::Framing;
use super::encode;
use super::incoming::Reading;
use super::response::{self, Asked, ResponseHead};
use super::scan::Scanner;
use super::transport::Transport;
use crate::body::{Body, BodyError};
use crate::error::{ParseError, SendError};
use crate::headers;
use crate::io::BoxIo;
use crate::limits::Limits;

/// Interim responses that are read over before the upstream counts as hostile.
const INTERIM_MAX: u8 = 8;

/// Takes a connection back that may carry another exchange.
pub trait Returner {
    /// The connection is idle and reusable.
    fn idle(&self, connection: ClientConnection);
}

/// An idle connection to an upstream.
pub struct ClientConnection {
    transport: Transport,
    limits: Rc<Limits>,
    exchanges: u64,
    idle_limit: Option<Duration>,
}

impl fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConnection").field("exchanges", &self.exchanges).finish_non_exhaustive()
    }
}

impl ClientConnection {
    /// Wraps a connected stream.
    pub fn new(io: BoxIo, limits: Rc<Limits>) -> Self {
        Self { transport: Transport::new(io, BytesMut::new()), limits, exchanges: 0, idle_limit: None }
    }

    /// Exchanges begun so far.
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// How long the server has said that it keeps the connection when it is idle.
    pub fn idle_limit(&self) -> Option<Duration> {
        self.idle_limit
    }

    /// Whether the connection is still open and silent; also gives its idle buffer back.
    pub fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.transport.ended()
            && self.transport.input.is_empty()
            && self.transport.poll_fill(&mut cx).is_pending()
    }

    /// Begins an exchange: encodes the head at once, so that `parts` stays with the caller. When it ends with the connection
    /// reusable, `returner` gets it; dropping the exchange or the response's body earlier closes the connection.
    pub fn send(
        mut self,
        parts: &request::Parts,
        body: Body,
        returner: Option<Rc<dyn Returner>>,
    ) -> Exchange {
        self.exchanges += 1;
        let framing = encode::request_framing(&body);
        encode::request(parts, framing, self.transport.output.flat());
        let left = if let Framing::Length(length) = framing { Some(length) } else { None };
        let sending = (framing != Framing::Length(0)).then_some(Sending { body, framing, left });
        Exchange {
            state: Some(Box::new(State {
                connection: self,
                asked: Asked::new(&parts.method, headers::is_upgrade(&parts.headers)),
                sending,
                write_error: None,
                scanner: Scanner::default(),
                begun: false,
                interim: 0,
                reading: Reading::Failed,
                keep_alive: false,
                returner,
            })),
        }
    }
}

/// The rest of a request's body.
struct Sending {
    body: Body,
    framing: Framing,
    left: Option<u64>,
}

struct State {
    connection: ClientConnection,
    asked: Asked,
    sending: Option<Sending>,
    write_error: Option<std::io::Error>,
    scanner: Scanner,
    begun: bool,
    interim: u8,
    reading: Reading,
    keep_alive: bool,
    returner: Option<Rc<dyn Returner>>,
}

/// A request under way; resolves to the response's head as soon as that is there, even if the request is not all sent.
pub struct Exchange {
    state: Option<Box<State>>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Future for Exchange {
    type Output = Result<Response<Body>, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = self.state.as_mut().expect("an exchange is not polled after it has resolved");
        state.poll_send(cx).map_err(SendError::RequestBody)?;
        let head = ready!(state.poll_head(cx))?;
        let Some(state) = self.state.take() else { return Poll::Pending };
        Poll::Ready(Ok(state.into_response(head)))
    }
}

impl State {
    /// Writes what can be written; an error of the connection is kept until the read side has said its word.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        loop {
            let mut waiting = self.sending.is_none();
            while !waiting && self.connection.transport.output.has_room() {
                let Some(sending) = &mut self.sending else { break };
                match Pin::new(&mut sending.body).poll_frame(cx) {
                    Poll::Pending => waiting = true,
                    Poll::Ready(Some(Err(error))) => return Err(error),
                    Poll::Ready(None) => self.end_body(None)?,
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => self.body_data(data)?,
                        Err(frame) => self.end_body(frame.into_trailers().ok().as_ref())?,
                    },
                }
            }
            match self.connection.transport.poll_flush(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => {
                    self.write_error.get_or_insert(error);
                    self.sending = None;
                    return Ok(());
                }
                Poll::Ready(Ok(())) if waiting || self.sending.is_none() => return Ok(()),
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    fn body_data(&mut self, data: Bytes) -> Result<(), BodyError> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        if let Some(left) = &mut sending.left {
            *left = left.checked_sub(data.len() as u64).ok_or(BodyError::GivenUp("longer than announced"))?;
        }
        let done = sending.left == Some(0);
        encode::data(sending.framing, data, &mut self.connection.transport.output);
        if done { self.end_body(None) } else { Ok(()) }
    }

    fn end_body(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        let Some(sending) = self.sending.take() else { return Ok(()) };
        if sending.left.is_some_and(|left| left > 0) {
            return Err(BodyError::Incomplete);
        }
        encode::end(sending.framing, trailers, &mut self.connection.transport.output);
        Ok(())
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, SendError>> {
        loop {
            if !self.connection.transport.input.is_empty() {
                self.begun = true;
                if let Some(head) = self.take_head().map_err(SendError::Protocol)? {
                    return Poll::Ready(Ok(head));
                }
            }
            match ready!(self.connection.transport.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Err(self.ended(None))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.ended(Some(error)))),
            }
        }
    }

    fn ended(&mut self, error: Option<std::io::Error>) -> SendError {
        if self.begun {
            return SendError::Truncated;
        }
        match self.write_error.take().or(error) {
            Some(error) => SendError::Io(error),
            None => SendError::Closed,
        }
    }

    /// A final response head, if a whole one was read; interim ones are read over.
    fn take_head(&mut self) -> Result<Option<ResponseHead>, ParseError> {
        let connection = &mut self.connection;
        while let Some(end) = self.scanner.scan(&connection.transport.input, &connection.limits)? {
            let head = response::parse(&connection.transport.input.split_to(end).freeze(), self.asked)?;
            let status = head.parts.status;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(ParseError::UnexpectedResponse);
            }
            self.scanner = Scanner::default();
        }
        Ok(None)
    }

    fn into_response(mut self: Box<Self>, head: ResponseHead) -> Response<Body> {
        let ResponseHead { parts, framing, keep_alive, idle_limit } = head;
        let upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS
            || (self.asked.connect && parts.status.is_success());
        if upgraded {
            return Response::from_parts(parts, Body::upgrade(self.connection.transport.into_upgraded()));
        }
        self.keep_alive = keep_alive;
        self.connection.idle_limit = idle_limit.or(self.connection.idle_limit);
        self.reading = Reading::new(framing, &self.connection.limits);
        let input = &mut self.connection.transport.input;
        let body = match framing {
            Framing::Length(0) => {
                self.release();
                Body::empty()
            }
            Framing::Length(length) if input.len() as u64 == length => {
                let data = input.split().freeze();
                self.reading = Reading::Done;
                self.release();
                Body::full(data)
            }
            _ => Body::response(ResponseBody { state: Some(self) }),
        };
        Response::from_parts(parts, body)
    }

    /// The response is read: the connection goes back if nothing is left on it, else it closes.
    fn release(self: Box<Self>) {
        let idle = self.keep_alive
            && self.sending.is_none()
            && self.write_error.is_none()
            && self.connection.transport.output.is_empty()
            && self.connection.transport.input.is_empty()
            && !self.connection.transport.ended();
        if let (true, Some(returner)) = (idle, self.returner) {
            returner.idle(self.connection);
        }
    }
}

/// The body of a response, with the connection it comes from.
pub(crate) struct ResponseBody {
    state: Option<Box<State>>,
}

impl ResponseBody {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(state) = self.state.as_mut() else { return Poll::Ready(None) };
        if (state.sending.is_some() || !state.connection.transport.output.is_empty())
            && let Err(error) = state.poll_send(cx)
        {
            self.state = None;
            return Poll::Ready(Some(Err(error)));
        }
        let polled = state.reading.poll_frame(&mut state.connection.transport, cx);
        if state.reading.is_done()
            && polled.is_ready()
            && let Some(state) = self.state.take()
        {
            state.release();
        }
        polled
    }

    /// Goes on sending the request; a failure shows when the response is read.
    pub(crate) fn background(&mut self, cx: &mut Context<'_>) {
        if let Some(state) = self.state.as_mut()
            && state.sending.is_some()
            && state.poll_send(cx).is_err()
        {
            state.sending = None;
            state.reading = Reading::Failed;
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.state.is_none()
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        self.state.as_ref().map_or(Some(0), |state| state.reading.remaining())
    }
}
