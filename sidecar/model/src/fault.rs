//! Injected faults.

pub(crate) mod proto;

use crate::matcher::{Fraction, HeaderMatch};
use serde::Serialize;
use std::time::Duration;

/// A pause before the request is forwarded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultDelay {
    /// This long, with this chance.
    Fixed {
        /// How long.
        delay: Duration,
        /// How often.
        chance: Fraction,
    },
    /// As the header `x-envoy-fault-delay-request` says in milliseconds.
    Header {
        /// How often at most.
        chance: Fraction,
    },
}

/// How an aborted request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortStatus {
    /// With this HTTP status, 200 to 599.
    Http(#[serde(serialize_with = "crate::dump::status")] http::StatusCode),
    /// With this gRPC status.
    Grpc(u32),
    /// As the headers `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` say.
    Header,
}

/// A request answered here instead of being forwarded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultAbort {
    /// How it is answered.
    pub status: AbortStatus,
    /// How often.
    pub chance: Fraction,
}

/// Faults to inject: the delay first, then the abort; each by its own chance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The delay.
    pub delay: Option<FaultDelay>,
    /// The abort.
    pub abort: Option<FaultAbort>,
    /// Only requests whose headers match all of these.
    pub headers: Vec<HeaderMatch>,
    /// Only requests to this cluster; empty: to any.
    pub upstream_cluster: Box<str>,
    /// Only requests from these nodes; empty: from any.
    pub downstream_nodes: Vec<Box<str>>,
    /// Faults active at once; `None`: unlimited.
    pub max_active: Option<u32>,
}
