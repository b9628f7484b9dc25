//! What the sidecar says to services that decide about requests, and what they answer: external authorization and rate limits by
//! Envoy's gRPC protocols. Plain data on one side, the bytes of whole messages on the other; no I/O.

pub mod authz;
pub mod grpc;
pub mod rate_limit;

mod structure;

use http::{HeaderName, HeaderValue};
use sidecar_model::HeaderAppend;

/// Why an answer cannot be used. What cannot be used is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The message has not the form of gRPC, or more than one message.
    #[error("answer is not one message")]
    Framing,
    /// It is compressed, which was not asked for.
    #[error("answer is compressed")]
    Compressed,
    /// The message cannot be decoded.
    #[error("answer cannot be decoded: {0}")]
    Message(String),
    /// A header that is none.
    #[error("answer has an invalid header `{0}`")]
    Header(String),
    /// A status that HTTP does not have.
    #[error("answer has the status {0}")]
    Status(i32),
    /// No verdict.
    #[error("answer has no verdict")]
    NoVerdict,
}

/// A header that an answer changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderChange {
    /// Its name. Pseudo headers have been turned away, `host` has not.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// What happens when there is one.
    pub append: HeaderAppend,
}
