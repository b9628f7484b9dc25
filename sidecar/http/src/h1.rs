//! HTTP/1.1: strict parsing, framing, and the two ends of a connection.

mod chunk;
mod client;
mod encode;
mod incoming;
mod request;
mod response;
mod scan;
mod server;
mod transport;

pub use client::{ClientConnection, Exchange, Returner};
pub use server::serve;

pub(crate) use client::ResponseBody;
pub(crate) use incoming::RequestBody;
pub(crate) use request::valid_host;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// That many bytes; zero is no body.
    Length(u64),
    /// Chunks, an empty one last.
    Chunked,
    /// Until the connection ends: responses only.
    UntilClose,
}

#[cfg(test)]
pub(crate) mod tests;
