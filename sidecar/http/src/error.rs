//! Why a message was refused, and why an exchange with an upstream failed.

use http::StatusCode;

use crate::body::BodyError;

/// A head, chunk or trailer that breaks the grammar or a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A line ends with LF alone, or CR stands elsewhere than before LF.
    #[error("line does not end with CR LF")]
    LineEnd,
    /// The first byte cannot begin an HTTP message.
    #[error("not HTTP")]
    NotHttp,
    /// The request line is not method, one space, target, one space, version.
    #[error("request line is malformed")]
    RequestLine,
    /// The method is not a token.
    #[error("method is malformed")]
    Method,
    /// The request target is not in one of the four forms, or has bytes it must not have.
    #[error("request target is malformed")]
    Target,
    /// The version is not HTTP/1.0 or HTTP/1.1.
    #[error("version is not supported")]
    Version,
    /// The status line is malformed.
    #[error("status line is malformed")]
    StatusLine,
    /// A header name is not a token, or white space stands before the colon, or a line is folded.
    #[error("header name is malformed")]
    HeaderName,
    /// A header value has a control character.
    #[error("header value is malformed")]
    HeaderValue,
    /// There is no Host line, or more than one, or it is not a host.
    #[error("host is missing, repeated or malformed")]
    Host,
    /// Content-Length is malformed or repeated.
    #[error("content length is malformed or repeated")]
    ContentLength,
    /// Transfer-Encoding is not exactly `chunked`, or stands where it must not.
    #[error("transfer encoding is malformed or misplaced")]
    TransferEncoding,
    /// The transfer coding is well formed and not known.
    #[error("transfer coding is not supported")]
    TransferCoding,
    /// Content-Length and Transfer-Encoding stand together.
    #[error("content length and transfer encoding stand together")]
    ConflictingLength,
    /// Expect is not `100-continue`.
    #[error("expectation is not supported")]
    Expect,
    /// A chunk's size line, end or trailer is malformed.
    #[error("chunk is malformed")]
    Chunk,
    /// The head has more bytes than the limit.
    #[error("head is too large")]
    TooLarge,
    /// The head has more header lines than the limit.
    #[error("head has too many headers")]
    TooManyHeaders,
    /// The head did not arrive in time.
    #[error("head did not arrive in time")]
    Timeout,
    /// The response says 101 though no upgrade was asked for, or has a body it must not have.
    #[error("response is not one to this request")]
    UnexpectedResponse,
}

impl ParseError {
    /// The status a client gets that sent such a message.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Why no response came from an upstream.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection ended before the first byte of a response: the upstream may not have seen the request.
    #[error("upstream closed the connection before a response")]
    Closed,
    /// The connection failed before the first byte of a response.
    #[error("upstream connection failed before a response")]
    Io(#[source] std::io::Error),
    /// The connection ended or failed in the middle of a response head.
    #[error("upstream closed the connection in the middle of a response head")]
    Truncated,
    /// The response breaks the protocol.
    #[error("upstream response breaks the protocol")]
    Protocol(#[source] ParseError),
    /// The body of the request failed: the fault is downstream's.
    #[error("request body failed")]
    RequestBody(#[source] BodyError),
    /// The HTTP/2 stream or connection was reset.
    #[error("upstream reset the stream")]
    Reset(#[source] ::h2::Error),
    /// The stream was refused before it was processed (REFUSED_STREAM or a GOAWAY below it).
    #[error("upstream refused the stream unprocessed")]
    Refused,
}

impl SendError {
    /// Whether the upstream cannot have begun to process the request, so that sending it again is safe on a reused connection.
    pub fn is_before_response(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_) | Self::Refused)
    }
}
