//! Route configurations: hosts, what is matched, and what is done.

pub(crate) mod proto;

use crate::header_ops::HeaderOps;
use crate::http_filter::RouteFilters;
use crate::matcher::{Fraction, HeaderMatch, MetadataMatch, QueryMatch, Regex, RegexRewrite};
use crate::metadata::Metadata;
use crate::retry::RetryPolicy;
use crate::route_action::{Mirror, RouteAction};
use serde::Serialize;
use std::sync::Arc;

/// What the path, without its query, must be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// Equal.
    Exact(Box<str>),
    /// Starts with, as plain text.
    Prefix(Box<str>),
    /// Equal, or starts with it and a slash. It has no trailing slash and no query.
    PathSeparatedPrefix(Box<str>),
    /// The whole path matches.
    Regex(Regex),
    /// The whole path matches a template such as `/a/{*}/{**}`, compiled to an expression.
    Template(Regex),
    /// A CONNECT request.
    Connect,
}

/// Which requests a route takes: all conditions hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// ASCII case of the path matters; never false with a regular expression.
    pub case_sensitive: bool,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
    /// Only gRPC: `content-type: application/grpc`.
    pub grpc: bool,
    /// Dynamic metadata, such as the claims of a token.
    pub metadata: Vec<MetadataMatch>,
    /// Only this share of requests; `None`: all.
    pub fraction: Option<Fraction>,
}

/// What is put in place of the path in a redirect.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPath {
    /// The whole path, its query included when it has one.
    Path(Box<str>),
    /// The matched prefix.
    Prefix(Box<str>),
    /// By regular expression.
    Regex(RegexRewrite),
}

/// The client is sent elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// Status: 301, 302, 303, 307 or 308.
    #[serde(serialize_with = "crate::dump::status")]
    pub status: http::StatusCode,
    /// Scheme; `None`: as it was.
    pub scheme: Option<Box<str>>,
    /// Host; `None`: as it was.
    pub host: Option<Box<str>>,
    /// Port; `None`: as it was.
    pub port: Option<u16>,
    /// Path; `None`: as it was.
    pub path: Option<RedirectPath>,
    /// The query is left out.
    pub strip_query: bool,
}

/// An answer given here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectResponse {
    /// Status, 200 to 599.
    #[serde(serialize_with = "crate::dump::status")]
    pub status: http::StatusCode,
    /// Body.
    pub body: Arc<[u8]>,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Forwards to a cluster.
    Forward(Box<RouteAction>),
    /// Sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// Answers here.
    DirectResponse(DirectResponse),
    /// Ends matching without forwarding: for servers that are not proxies, and inbound marks.
    NonForwarding,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its name in logs.
    pub name: Arc<str>,
    /// Which requests.
    pub matches: RouteMatch,
    /// What is done.
    pub action: Action,
    /// What it says about filters.
    pub filters: RouteFilters,
    /// Changes to request headers.
    pub request_headers: HeaderOps,
    /// Changes to response headers.
    pub response_headers: HeaderOps,
    /// Metadata for people and logs.
    pub metadata: Metadata,
    /// Name of the operation in traces, such as `reviews.default.svc.cluster.local:9080/*`.
    pub decorator: Option<Box<str>>,
    /// Name of its metrics; empty: none of its own.
    pub stat_prefix: Box<str>,
}

/// Whether plain-text requests are redirected to HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsRequirement {
    /// No.
    #[default]
    None,
    /// Those from outside.
    ExternalOnly,
    /// All.
    All,
}

/// Routes of a set of hosts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualHost {
    /// Its name, unique in its configuration.
    pub name: Arc<str>,
    /// Hosts, lower case: exact, `*.suffix`, `prefix.*` or `*`, with or without a port.
    pub domains: Vec<Box<str>>,
    /// Routes; the first match wins.
    pub routes: Vec<Arc<Route>>,
    /// Redirect to HTTPS.
    pub require_tls: TlsRequirement,
    /// Changes to request headers.
    pub request_headers: HeaderOps,
    /// Changes to response headers.
    pub response_headers: HeaderOps,
    /// Retry policy of routes without one.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Mirrors of routes without any.
    pub mirrors: Vec<Mirror>,
    /// `x-envoy-attempt-count` is added to requests.
    pub include_request_attempt_count: bool,
    /// `x-envoy-attempt-count` is added to responses.
    pub include_attempt_count_in_response: bool,
    /// What it says about filters.
    pub filters: RouteFilters,
    /// Metadata.
    pub metadata: Metadata,
}

/// Hosts and their routes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Hosts; no domain is in two of them.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Changes to request headers.
    pub request_headers: HeaderOps,
    /// Changes to response headers.
    pub response_headers: HeaderOps,
    /// The port of a request's host is ignored.
    pub ignore_port_in_host_matching: bool,
    /// Header changes of routes come after those of hosts, which come after these; otherwise the other way round.
    pub most_specific_header_mutations_wins: bool,
    /// What it says about filters.
    pub filters: RouteFilters,
    /// Metadata.
    pub metadata: Metadata,
}

// === impl RouteConfig ===

impl RouteConfig {
    /// Names of all clusters its routes may choose, repetitions included.
    pub fn cluster_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.virtual_hosts.iter().flat_map(|host| &host.routes).flat_map(|route| match &route.action {
            Action::Forward(action) => action.cluster_names(),
            Action::Redirect(_) | Action::DirectResponse(_) | Action::NonForwarding => Vec::new(),
        })
    }
}
