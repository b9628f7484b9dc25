//! What a server connection asks of its user, whatever the protocol.

use std::future::Future;
use std::pin::Pin;

use http::{Request, Response};

use crate::body::{Body, BodyError};
use crate::error::ParseError;
use crate::io::Upgraded;

/// Answers requests. One handler serves one connection; its requests may run concurrently on HTTP/2.
pub trait Handler {
    /// Answers one request. The future is dropped when the client goes away first.
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Reply>;

    /// A message was refused before it became a request.
    fn refused(&self, error: ParseError);
}

/// A response with what must happen after it.
#[derive(Default)]
pub struct Reply {
    /// The response.
    pub response: Response<Body>,
    /// Told once the response is written or has failed; dropped untold if the connection's task ends.
    pub finish: Option<Box<dyn Finish>>,
    /// Run with the bare stream after a 101 response.
    pub upgrade: Option<Upgrade>,
    /// Close the connection after this response.
    pub close: bool,
    /// There is no response: the connection ends as if the request had come too late, so that a client may send it again on another.
    pub refused: bool,
}

/// What becomes of an upgraded connection.
pub type Upgrade = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>>>;

impl Reply {
    /// A response nobody waits for.
    pub fn new(response: Response<Body>) -> Self {
        Self { response, ..Self::default() }
    }

    /// The request is not looked at, and the connection takes no other.
    pub fn refused() -> Self {
        Self { refused: true, close: true, ..Self::default() }
    }
}

/// Hears how a response ended.
pub trait Finish {
    /// The response was written, or could not be.
    fn finish(self: Box<Self>, outcome: Outcome);
}

/// How a response ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Body bytes handed to the connection.
    pub body_bytes: u64,
    /// Why it ended early.
    pub abort: Option<Abort>,
}

/// Who ended a response early.
#[derive(Debug)]
pub enum Abort {
    /// The client went away.
    Downstream,
    /// The response's body failed.
    Body(BodyError),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Closed in order, by either side.
    Closed,
    /// No request came for too long.
    Idle,
    /// Its time was over.
    MaxDuration,
    /// It had as many requests as it may.
    MaxRequests,
    /// A ping was not answered.
    PingTimeout,
    /// The client broke the protocol.
    Refused(ParseError),
    /// The connection failed.
    Failed,
    /// It became a tunnel that has ended.
    Upgraded,
}
