//! The HTTP connection manager: how HTTP connections are served and where their routes come from.

pub(crate) mod proto;

use crate::access_log::AccessLog;
use crate::http_filter::{HttpFilter, HttpFilterKind};
use crate::route::RouteConfig;
use crate::tracing::Tracing;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Which HTTP the peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    #[default]
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Where routes come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteSource {
    /// The route configuration of this name.
    Rds(Arc<str>),
    /// This one.
    Inline(Arc<RouteConfig>),
}

/// What is done with the `x-forwarded-client-cert` header of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ForwardClientCert {
    /// Removed.
    #[default]
    Sanitize,
    /// Kept when the connection is mTLS.
    ForwardOnly,
    /// The peer's certificate appended when the connection is mTLS.
    AppendForward,
    /// Replaced by the peer's certificate when the connection is mTLS, else removed.
    SanitizeSet,
    /// Kept always.
    AlwaysForwardOnly,
}

/// What the peer's certificate contributes to `x-forwarded-client-cert`, besides `By` and `Hash`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertDetails {
    /// `Subject`
    pub subject: bool,
    /// `Cert`
    pub cert: bool,
    /// `Chain`
    pub chain: bool,
    /// `DNS`
    pub dns: bool,
    /// `URI`
    pub uri: bool,
}

/// What is done with the `server` header of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ServerHeader {
    /// Replaced.
    #[default]
    Overwrite,
    /// Set when there is none.
    AppendIfAbsent,
    /// Left alone.
    PassThrough,
}

/// What is done with `%2F` and `%5C` in paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EscapedSlashes {
    /// Left alone.
    #[default]
    Keep,
    /// Refused with 400.
    Reject,
    /// Answered with a redirect to the unescaped path.
    UnescapeAndRedirect,
    /// Unescaped.
    UnescapeAndForward,
}

/// A protocol upgrade that may pass, such as `websocket` or `CONNECT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// The token of the `upgrade` header, lower case.
    pub protocol: Box<str>,
    /// Whether it may.
    pub enabled: bool,
    /// For `CONNECT`: it ends here, and the bytes go to the cluster as they are. Otherwise the request is passed on.
    pub terminates: bool,
}

/// Limits and keep-alive of HTTP/2 connections; `None`: the implementation's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Http2Options {
    /// Streams at once.
    pub max_concurrent_streams: Option<u32>,
    /// Bytes a stream may have in flight.
    pub initial_stream_window_bytes: Option<u32>,
    /// Bytes a connection may have in flight.
    pub initial_connection_window_bytes: Option<u32>,
    /// How often a ping is sent.
    pub keepalive_interval: Option<Duration>,
    /// How long its answer may take before the connection is closed.
    pub keepalive_timeout: Option<Duration>,
    /// RFC 8441 extended CONNECT may be used.
    pub allow_connect: bool,
}

/// Odd HTTP/1 that is tolerated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Http1Options {
    /// HTTP/1.0 requests are served.
    pub accept_http_10: bool,
    /// Absolute URLs in the request line are refused.
    pub deny_absolute_url: bool,
    /// The case of header names is kept.
    pub preserve_header_case: bool,
}

/// How HTTP connections are served.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpConnectionManager {
    /// Prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// Which HTTP.
    pub codec: Codec,
    /// Where routes come from.
    pub route: RouteSource,
    /// Filters in order; the last one is the router.
    pub http_filters: Vec<HttpFilter>,
    /// Logs.
    pub access_log: Vec<AccessLog>,
    /// Upgrades that may pass.
    pub upgrades: Vec<Upgrade>,
    /// Tracing; `None`: off.
    pub tracing: Option<Tracing>,
    /// How long a connection without requests is kept; `None`: forever.
    pub idle_timeout: Option<Duration>,
    /// How long a connection is kept at all; `None`: forever.
    pub max_connection_duration: Option<Duration>,
    /// Requests before a connection is closed; `None`: unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// How long a stream may last; `None`: forever.
    pub max_stream_duration: Option<Duration>,
    /// How long a stream may be still; `None`: forever.
    pub stream_idle_timeout: Option<Duration>,
    /// How long a whole request may take to arrive; `None`: forever.
    pub request_timeout: Option<Duration>,
    /// How long a request's headers may take to arrive; `None`: forever.
    pub request_headers_timeout: Option<Duration>,
    /// How long an ended connection is still served.
    pub drain_timeout: Duration,
    /// How long the read side is drained after the last response.
    pub delayed_close_timeout: Option<Duration>,
    /// Bytes of a request's headers.
    pub request_headers_bytes_max: usize,
    /// Number of a request's headers.
    pub headers_count_max: usize,
    /// HTTP/2 limits.
    pub http2: Http2Options,
    /// HTTP/1 oddities.
    pub http1: Http1Options,
    /// The host of HTTP/1.0 requests that name none; empty: they are refused.
    pub http10_host: Box<str>,
    /// The peer's address goes to `x-forwarded-for` and is taken as the client's.
    pub use_remote_address: bool,
    /// How many proxies before this one are trusted to have written `x-forwarded-for`.
    pub xff_num_trusted_hops: u32,
    /// `x-forwarded-for` is left alone.
    pub skip_xff_append: bool,
    /// What is done with `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// What goes into it.
    pub client_cert_details: ClientCertDetails,
    /// A request identifier is made when there is none.
    pub generate_request_id: bool,
    /// A request identifier from outside is kept.
    pub preserve_external_request_id: bool,
    /// The request identifier is also set on responses.
    pub always_set_request_id_in_response: bool,
    /// Value of the `server` header.
    pub server_name: Arc<str>,
    /// What is done with it.
    pub server_header: ServerHeader,
    /// Paths are normalized by RFC 3986 before anything looks at them.
    pub normalize_path: bool,
    /// Adjacent slashes are merged.
    pub merge_slashes: bool,
    /// Escaped slashes.
    pub escaped_slashes: EscapedSlashes,
    /// A port in `:authority` is ignored when hosts are matched.
    pub strip_port_from_host: bool,
    /// A trailing dot in `:authority` is ignored when hosts are matched.
    pub strip_trailing_host_dot: bool,
    /// Scheme put on requests regardless of the connection, such as `https`.
    pub scheme_override: Option<Box<str>>,
    /// `Via` text appended to requests and responses; empty: none.
    pub via: Box<str>,
}

// === impl HttpConnectionManager ===

impl HttpConnectionManager {
    /// Whether connections may be upgraded to `protocol`.
    pub fn allows_upgrade(&self, protocol: &str) -> bool {
        self.upgrades.iter().any(|upgrade| upgrade.enabled && upgrade.protocol.eq_ignore_ascii_case(protocol))
    }

    /// Whether the router, the last filter, adds no `x-envoy-` headers of its own.
    pub fn suppresses_envoy_headers(&self) -> bool {
        let last = self.http_filters.last().map(|filter| &filter.kind);
        matches!(last, Some(HttpFilterKind::Router(router)) if router.suppress_envoy_headers)
    }
}
