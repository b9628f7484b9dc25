//! Where and how access logs are written. Formats are texts with Envoy's command operators.

pub(crate) mod proto;

use crate::cel::Expression;
use crate::matcher::{Fraction, HeaderMatch};
use serde::Serialize;
use std::sync::Arc;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file.
    File(Arc<str>),
}

/// What a line holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// Envoy's default text.
    #[default]
    Default,
    /// A text with command operators, its newline included.
    Text(Arc<str>),
    /// A JSON object; texts in it have command operators.
    Json(Arc<serde_json::Map<String, serde_json::Value>>),
}

/// A comparison of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Comparison {
    /// Equal.
    Equal(u32),
    /// At least.
    AtLeast(u32),
    /// At most.
    AtMost(u32),
    /// Another.
    NotEqual(u32),
}

/// Which requests are logged.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFilter {
    /// By HTTP status.
    Status(Comparison),
    /// By milliseconds.
    Duration(Comparison),
    /// By a header of the request.
    Header(HeaderMatch),
    /// By response flag; empty: any flag.
    ResponseFlag(Vec<Box<str>>),
    /// By gRPC status; `exclude` turns it round.
    GrpcStatus {
        /// Codes.
        codes: Vec<u32>,
        /// All but these.
        exclude: bool,
    },
    /// By chance.
    Random(Fraction),
    /// All of these.
    And(Vec<LogFilter>),
    /// Any of these.
    Or(Vec<LogFilter>),
    /// Those of which this is true.
    Expression(Expression),
    /// Health checks are not logged.
    NotHealthCheck,
}

/// One access log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// Where.
    pub sink: LogSink,
    /// What.
    pub format: LogFormat,
    /// Values that are not there are left out: of text as nothing instead of `-`, of JSON with their key.
    pub omit_empty_values: bool,
    /// Which requests; `None`: all.
    pub filter: Option<LogFilter>,
}

// === impl Comparison ===

impl Comparison {
    /// Whether `value` satisfies it.
    pub fn holds(self, value: u32) -> bool {
        match self {
            Self::Equal(bound) => value == bound,
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::NotEqual(bound) => value != bound,
        }
    }
}
