//! Every bound the codecs enforce, in one place.

use std::time::Duration;

/// Bounds of one listener's or one cluster's connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a message head, its empty line included; one more is answered 431.
    pub head_bytes: usize,
    /// Header lines in a head or in trailers; one more is answered 431.
    pub header_count: usize,
    /// Time from the first byte of a head to its end.
    pub head_timeout: Duration,
    /// Time a connection may stay open without a request; `None`: any.
    pub idle_timeout: Option<Duration>,
    /// Time a connection may be used at all: afterwards it ends with what it is doing; `None`: any.
    pub max_connection_duration: Option<Duration>,
    /// How long a connection whose time is over may still wait for a request, so that it can be told.
    pub drain_timeout: Duration,
    /// Requests before a connection ends; `None`: any number.
    pub max_requests: Option<u32>,
    /// Pings that find out whether an HTTP/2 client is still there.
    pub h2_keepalive: Option<Keepalive>,
    /// Bytes of pipelined input that are read ahead while a request is being answered.
    pub pipeline_bytes: usize,
    /// How long a closing connection may still deliver bytes that are thrown away, so that its last response is not lost.
    pub linger: Duration,
    /// Concurrent HTTP/2 streams of one connection.
    pub h2_streams: u32,
    /// Whether a client may open streams of other protocols over HTTP/2 (extended CONNECT, RFC 8441).
    pub h2_connect_protocol: bool,
    /// HTTP/2 flow-control window of a stream, in bytes.
    pub h2_stream_window: u32,
    /// HTTP/2 flow-control window of a connection, in bytes.
    pub h2_connection_window: u32,
    /// Remotely reset streams that may await processing before the connection is closed (rapid reset).
    pub h2_pending_resets: usize,
    /// Streams this side may have to reset or refuse for the peer's errors before the connection is closed.
    pub h2_local_resets: usize,
}

/// Pings of an HTTP/2 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between two pings.
    pub interval: Duration,
    /// Time within which a ping must be answered, or the connection is closed.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            header_count: 100,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            drain_timeout: Duration::from_secs(5),
            max_requests: None,
            h2_keepalive: None,
            pipeline_bytes: 32 * 1024,
            linger: Duration::from_secs(1),
            h2_streams: 1000,
            h2_connect_protocol: false,
            h2_stream_window: 1024 * 1024,
            h2_connection_window: 4 * 1024 * 1024,
            h2_pending_resets: 20,
            h2_local_resets: 128,
        }
    }
}
