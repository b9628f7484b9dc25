//! The one table of failures: what the client is told, and what logs and metrics say.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use sidecar_http::{BodyError, ParseError, SendError};
use sidecar_telemetry::Flag;

use super::stream::Expired;
use crate::pool::ConnectError;

/// Why a request was not answered by an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No route takes the request.
    NoRoute,
    /// The route's cluster is not there; with the route's status for that.
    NoCluster(StatusCode),
    /// No endpoint serves.
    NoHealthyUpstream,
    /// No connection could be made.
    Connect(ConnectError),
    /// The connection ended before the response.
    ConnectionTermination,
    /// The upstream reset the stream.
    RemoteReset,
    /// The upstream refused the stream.
    RefusedStream,
    /// The response breaks the protocol.
    Protocol(ParseError),
    /// A limit of the cluster was reached.
    Overflow,
    /// The control plane wants some requests dropped.
    DropOverload,
    /// The route's time is over.
    Timeout,
    /// The attempt's time is over.
    PerTryTimeout,
    /// There is not enough memory to begin anything.
    Overloaded,
    /// A clock of the stream has run out; whether the request had arrived by then.
    Stream { why: Expired, arrived: bool },
    /// The attempt was still for too long.
    PerTryIdleTimeout,
    /// The client broke off its own request.
    DownstreamBody,
    /// A fault was injected.
    FaultHttp(StatusCode),
    /// A fault was injected.
    FaultGrpc(u16),
    /// Authorization says no, by this policy.
    Denied(Arc<str>),
    /// The protocol upgrade is not allowed.
    UpgradeDenied,
    /// The path has escaped slashes and must not.
    PathNormalization,
    /// HTTP/1.0, which is not served here.
    OldVersion,
    /// HTTP/1.0 without a host.
    MissingHost,
    /// A token is missing or bad.
    Unauthenticated(&'static str),
    /// A good token is for others.
    Forbidden(&'static str),
    /// An authorization service says no.
    AuthorizationDenied(StatusCode),
    /// An authorization service says nothing.
    AuthorizationError(StatusCode),
    /// The body is longer than may be told to an authorization service.
    BodyTooLong,
    /// Over a limit of rates.
    RateLimited {
        /// For HTTP.
        status: StatusCode,
        /// Whose limit.
        details: &'static str,
        /// What the client reads.
        body: &'static str,
        /// For gRPC.
        grpc_status: u16,
    },
    /// A rate limit service says nothing.
    RateLimitServiceError(StatusCode),
}

/// What the failure means to everybody concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) status: StatusCode,
    /// Overrides the mapping of the status for gRPC clients.
    pub(super) grpc_status: Option<u16>,
    pub(super) flag: Option<Flag>,
    pub(super) details: Cow<'static, str>,
    pub(super) body: Cow<'static, str>,
    /// Why the transport failed; empty when it did not.
    pub(super) transport: String,
    pub(super) overloaded: bool,
}

impl Failure {
    /// The row of the table.
    #[expect(clippy::too_many_lines, reason = "a table: one row a failure")]
    pub(super) fn meaning(&self) -> Meaning {
        use StatusCode as S;
        match self {
            Self::NoRoute => row(S::NOT_FOUND, Some(Flag::NoRouteFound), "route_not_found", ""),
            Self::NoCluster(status) => row(*status, Some(Flag::NoClusterFound), "cluster_not_found", ""),
            Self::NoHealthyUpstream => row(
                S::SERVICE_UNAVAILABLE,
                Some(Flag::NoHealthyUpstream),
                "no_healthy_upstream",
                "no healthy upstream",
            ),
            Self::Connect(ConnectError::Timeout) => {
                reset(S::SERVICE_UNAVAILABLE, Flag::UpstreamConnectionFailure, "connection timeout", "")
            }
            Self::Connect(ConnectError::Failed(text)) => {
                let reason = format!("delayed connect error: {text}");
                reset(
                    S::SERVICE_UNAVAILABLE,
                    Flag::UpstreamConnectionFailure,
                    "remote connection failure",
                    &reason,
                )
            }
            Self::Connect(ConnectError::Tls(text)) => {
                let reason = format!("TLS_error:|{text}:TLS_error_end");
                reset(
                    S::SERVICE_UNAVAILABLE,
                    Flag::UpstreamConnectionFailure,
                    "remote connection failure",
                    &reason,
                )
            }
            Self::ConnectionTermination => reset(
                S::SERVICE_UNAVAILABLE,
                Flag::UpstreamConnectionTermination,
                "connection termination",
                "",
            ),
            Self::RemoteReset => reset(S::SERVICE_UNAVAILABLE, Flag::UpstreamRemoteReset, "remote reset", ""),
            Self::RefusedStream => {
                reset(S::SERVICE_UNAVAILABLE, Flag::UpstreamRemoteReset, "remote refused stream reset", "")
            }
            Self::Protocol(_) => reset(S::BAD_GATEWAY, Flag::UpstreamProtocolError, "protocol error", ""),
            Self::Overflow => Meaning {
                overloaded: true,
                ..reset(S::SERVICE_UNAVAILABLE, Flag::UpstreamOverflow, "overflow", "")
            },
            Self::DropOverload => {
                row(S::SERVICE_UNAVAILABLE, Some(Flag::DropOverload), "drop_overload", "drop overload")
            }
            Self::Timeout => row(
                S::GATEWAY_TIMEOUT,
                Some(Flag::UpstreamRequestTimeout),
                "response_timeout",
                "upstream request timeout",
            ),
            Self::PerTryTimeout => {
                let details = "upstream_per_try_timeout";
                row(
                    S::GATEWAY_TIMEOUT,
                    Some(Flag::UpstreamRequestTimeout),
                    details,
                    "upstream request timeout",
                )
            }
            Self::Overloaded => {
                row(S::SERVICE_UNAVAILABLE, Some(Flag::OverloadManager), "overload", "envoy overloaded")
            }
            Self::Stream { why, arrived } => {
                let status = if *arrived { S::GATEWAY_TIMEOUT } else { S::REQUEST_TIMEOUT };
                let (flag, details) = match why {
                    Expired::Idle => (Some(Flag::StreamIdleTimeout), "stream_idle_timeout"),
                    Expired::Request => (None, "request_overall_timeout"),
                    Expired::Duration => (None, "max_duration_timeout"),
                };
                // A gRPC client is told that its deadline is over only where that is what it was.
                let grpc_status = (*why == Expired::Duration).then_some(4);
                Meaning { grpc_status, ..row(status, flag, details, why.text()) }
            }
            Self::PerTryIdleTimeout => row(
                S::GATEWAY_TIMEOUT,
                Some(Flag::UpstreamRequestTimeout),
                "upstream_per_try_idle_timeout",
                "upstream request timeout",
            ),
            Self::DownstreamBody => row(
                S::BAD_REQUEST,
                Some(Flag::DownstreamProtocolError),
                "downstream_request_body_error",
                "Bad Request",
            ),
            Self::FaultHttp(status) => {
                row(*status, Some(Flag::FaultInjected), "fault_filter_abort", "fault filter abort")
            }
            Self::FaultGrpc(code) => Meaning {
                grpc_status: Some(*code),
                ..row(S::OK, Some(Flag::FaultInjected), "fault_filter_abort", "fault filter abort")
            },
            Self::Denied(policy) => Meaning {
                details: format!("rbac_access_denied_matched_policy[{policy}]").into(),
                ..row(S::FORBIDDEN, None, "", "RBAC: access denied")
            },
            Self::UpgradeDenied => row(S::FORBIDDEN, None, "upgrade_failed", ""),
            Self::PathNormalization => row(S::BAD_REQUEST, None, "path_normalization_failed", ""),
            Self::OldVersion => row(S::UPGRADE_REQUIRED, None, "low_version", ""),
            Self::MissingHost => row(S::BAD_REQUEST, None, "missing_host_header", ""),
            Self::Unauthenticated(text) => Meaning {
                details: format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_")).into(),
                ..row(S::UNAUTHORIZED, None, "", text)
            },
            Self::AuthorizationDenied(status) => {
                row(*status, Some(Flag::UnauthorizedExternalService), "ext_authz_denied", "")
            }
            Self::AuthorizationError(status) => {
                row(*status, Some(Flag::UnauthorizedExternalService), "ext_authz_error", "")
            }
            Self::BodyTooLong => {
                row(S::PAYLOAD_TOO_LARGE, None, "request_payload_too_large", "Payload Too Large")
            }
            Self::RateLimited { status, details, body, grpc_status } => Meaning {
                grpc_status: Some(*grpc_status),
                ..row(*status, Some(Flag::RateLimited), details, body)
            },
            Self::RateLimitServiceError(status) => {
                row(*status, Some(Flag::RateLimitServiceError), "rate_limiter_error", "")
            }
            Self::Forbidden(text) => Meaning {
                details: format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_")).into(),
                ..row(S::FORBIDDEN, None, "", text)
            },
        }
    }
}

fn row(status: StatusCode, flag: Option<Flag>, details: &'static str, body: &'static str) -> Meaning {
    row_of(status, flag, details.into(), body.into())
}

fn row_of(
    status: StatusCode,
    flag: Option<Flag>,
    details: Cow<'static, str>,
    body: Cow<'static, str>,
) -> Meaning {
    Meaning { status, grpc_status: None, flag, details, body, transport: String::new(), overloaded: false }
}

/// A reset before the response: Envoy's body and details from the reason's name.
fn reset(status: StatusCode, flag: Flag, reason: &str, transport: &str) -> Meaning {
    // The transport's reason is for the log: clients are not told of it.
    let body = format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
    let mut details = reason.replace(' ', "_");
    if !transport.is_empty() {
        details.push_str(&format!("|{}", transport.replace(' ', "_")));
    }
    let details = format!("upstream_reset_before_response_started{{{details}}}");
    Meaning { transport: transport.to_owned(), ..row_of(status, Some(flag), details.into(), body.into()) }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed | SendError::Io(_) | SendError::Truncated => Self::ConnectionTermination,
            SendError::Protocol(error) => Self::Protocol(error),
            SendError::RequestBody(BodyError::GivenUp(_) | BodyError::Incomplete) => Self::DownstreamBody,
            SendError::RequestBody(_) => Self::DownstreamBody,
            SendError::Reset(_) => Self::RemoteReset,
            SendError::Refused => Self::RefusedStream,
        }
    }
}

/// The gRPC status that an HTTP status means (gRPC's `http-grpc-status-mapping`, as Envoy applies it).
pub(super) fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_envoys() {
        let meaning = Failure::Connect(ConnectError::Failed("Connection refused".into())).meaning();
        assert_eq!(
            meaning.body,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        );
        assert_eq!(
            meaning.details,
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
        assert_eq!(meaning.flag, Some(Flag::UpstreamConnectionFailure));
        let denied = Failure::Denied("ns[default]-policy[x]-rule[0]".into()).meaning();
        assert_eq!(denied.details, "rbac_access_denied_matched_policy[ns[default]-policy[x]-rule[0]]");
        assert_eq!(denied.body, "RBAC: access denied");
        assert!(Failure::Overflow.meaning().overloaded);
        assert_eq!(
            Failure::NoCluster(StatusCode::SERVICE_UNAVAILABLE).meaning().flag,
            Some(Flag::NoClusterFound)
        );
    }
}
