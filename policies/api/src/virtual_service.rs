//! `VirtualService` (networking.istio.io): how requests to a host are matched and where they go.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::duration::ApiDuration;
use crate::matching::{Percent, PortSelector, StringMap, StringMatch};

/// The spec of a `VirtualService`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VirtualService {
    /// Hosts the routes are for; short names are completed with the object's namespace.
    pub hosts: Vec<String>,
    /// Gateways that use the routes; `mesh` (the default when empty) means sidecars.
    pub gateways: Vec<String>,
    /// HTTP routes, first match wins.
    pub http: Vec<HttpRoute>,
    /// Routes of TLS connections that are passed through, by SNI.
    pub tls: Vec<TlsRoute>,
    /// Routes of plain TCP connections.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see the object; everywhere when empty.
    pub export_to: Vec<String>,
}

/// One rule of `http`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    /// Name in logs.
    pub name: String,
    /// Alternatives; any of them suffices, none at all matches everything.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Weighted destinations.
    pub route: Vec<HttpDestination>,
    /// Answer with a redirect.
    pub redirect: Option<Redirect>,
    /// Answer with a fixed response.
    pub direct_response: Option<DirectResponse>,
    /// Another `VirtualService` holds the rules.
    pub delegate: Option<Delegate>,
    /// Changes to path and authority.
    pub rewrite: Option<Rewrite>,
    /// Whole time for a request, retries included; off by default.
    pub timeout: Option<ApiDuration>,
    /// When and how often a failed try is repeated.
    pub retries: Option<Retries>,
    /// Injected delays and errors.
    pub fault: Option<Fault>,
    /// The older single mirror.
    pub mirror: Option<Destination>,
    /// Percentage of `mirror`, oldest form.
    #[serde(alias = "mirror_percent")]
    pub mirror_percent: Option<u32>,
    /// Percentage of `mirror`.
    pub mirror_percentage: Option<Percent>,
    /// Destinations that get copies.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes of the rule.
    pub headers: Option<Headers>,
}

/// One alternative of `match`: all fields must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpMatch {
    /// Name in logs, after the rule's.
    pub name: String,
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// Request method.
    pub method: Option<StringMatch>,
    /// Host header or `:authority`.
    pub authority: Option<StringMatch>,
    /// Headers that must match.
    pub headers: BTreeMap<String, StringMatch>,
    /// Headers that must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Query parameters that must match.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Port the request was sent to.
    pub port: Option<u32>,
    /// Labels of the client's pod.
    pub source_labels: StringMap,
    /// Namespace of the client's pod.
    pub source_namespace: String,
    /// Gateways this alternative is for; those of the object when empty.
    pub gateways: Vec<String>,
    /// Compare `uri` without regard to case (not for regex).
    pub ignore_uri_case: bool,
    /// Prefix of the route's own statistics.
    pub stat_prefix: String,
}

/// A service, perhaps a subset and a port of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// Host in the service registry.
    pub host: String,
    /// Subset of the host's `DestinationRule`.
    pub subset: String,
    /// Needed when the service has several ports.
    pub port: Option<PortSelector>,
}

/// A weighted destination of an HTTP route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Destination,
    /// Share relative to the sum of all weights.
    pub weight: i32,
    /// Header changes for this destination only.
    pub headers: Option<Headers>,
}

/// A weighted destination of a TCP or TLS route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share relative to the sum of all weights.
    pub weight: i32,
}

/// `redirect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Redirect {
    /// New path.
    pub uri: String,
    /// New authority.
    pub authority: String,
    /// New scheme.
    pub scheme: String,
    /// New port.
    pub port: Option<u32>,
    /// `FROM_PROTOCOL_DEFAULT` or `FROM_REQUEST_PORT`.
    pub derive_port: String,
    /// 301 unless given.
    pub redirect_code: Option<u32>,
    /// Replaces the matched prefix.
    pub prefix_rewrite: String,
}

/// `directResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct DirectResponse {
    /// HTTP status.
    pub status: u32,
    /// Body of the answer.
    pub body: Option<HttpBody>,
}

/// Text or base64 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HttpBody {
    /// UTF-8 text.
    pub string: Option<String>,
    /// Base64 of any bytes.
    pub bytes: Option<String>,
}

/// `delegate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// Name of the delegate object.
    pub name: String,
    /// Its namespace; that of the root when empty.
    pub namespace: String,
}

/// `rewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rewrite {
    /// Replaces the matched path or prefix.
    pub uri: String,
    /// Replaces the authority.
    pub authority: String,
    /// Replaces parts of the path by expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `uriRegexRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegexRewrite {
    /// RE2 expression.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Replacement, with `\1` for groups.
    pub rewrite: String,
}

/// `retries`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Retries {
    /// Repetitions after the first try; 0 turns retries off.
    pub attempts: i32,
    /// Time for one try; the route's timeout when absent.
    pub per_try_timeout: Option<ApiDuration>,
    /// Comma-separated conditions and status codes.
    pub retry_on: String,
    /// Base of the back-off.
    pub backoff: Option<ApiDuration>,
    /// Whether tries avoid hosts already tried; true by default.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Whether tries may go to other localities.
    pub retry_remote_localities: Option<bool>,
}

/// `fault`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// Wait before forwarding.
    pub delay: Option<Delay>,
    /// Answer with an error instead of forwarding.
    pub abort: Option<Abort>,
}

/// `fault.delay`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Delay {
    /// How long.
    pub fixed_delay: Option<ApiDuration>,
    /// Not supported, as in Istio.
    pub exponential_delay: Option<ApiDuration>,
    /// Share of requests; 100 % when absent.
    pub percentage: Option<Percent>,
    /// Older integer form of `percentage`.
    pub percent: Option<i32>,
}

/// `fault.abort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Abort {
    /// HTTP status to answer with.
    pub http_status: Option<i32>,
    /// gRPC status name or number to answer with.
    pub grpc_status: Option<String>,
    /// Not supported, as in Istio.
    pub http2_error: Option<String>,
    /// Share of requests; 100 % when absent.
    pub percentage: Option<Percent>,
}

/// One entry of `mirrors`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Mirror {
    /// Where copies go.
    pub destination: Destination,
    /// Share of requests; 100 % when absent.
    pub percentage: Option<Percent>,
}

/// `corsPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Older list of exact origins.
    pub allow_origin: Vec<String>,
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatch>,
    /// Methods that are allowed.
    pub allow_methods: Vec<String>,
    /// Request headers that are allowed.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight answer may be kept.
    pub max_age: Option<ApiDuration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// `FORWARD` (default) or `IGNORE`.
    pub unmatched_preflights: String,
}

/// Header changes in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// Before forwarding.
    pub request: Option<HeaderOperations>,
    /// Before answering.
    pub response: Option<HeaderOperations>,
}

/// Changes to one header list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderOperations {
    /// Overwrites.
    pub set: StringMap,
    /// Appends.
    pub add: StringMap,
    /// Removes.
    pub remove: Vec<String>,
}

/// One rule of `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TlsRoute {
    /// Alternatives, at least one.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// One alternative of a TLS rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsMatch {
    /// Server names, wildcard prefix allowed.
    pub sni_hosts: Vec<String>,
    /// Destination addresses.
    pub destination_subnets: Vec<String>,
    /// Destination port.
    pub port: Option<u32>,
    /// Labels of the client's pod.
    pub source_labels: StringMap,
    /// Namespace of the client's pod.
    pub source_namespace: String,
    /// Gateways this alternative is for.
    pub gateways: Vec<String>,
}

/// One rule of `tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TcpRoute {
    /// Alternatives; none at all matches everything.
    #[serde(rename = "match")]
    pub matches: Vec<TcpMatch>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// One alternative of a TCP rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpMatch {
    /// Destination addresses.
    pub destination_subnets: Vec<String>,
    /// Destination port.
    pub port: Option<u32>,
    /// Address of the client; not supported, as in Istio.
    pub source_subnet: String,
    /// Labels of the client's pod.
    pub source_labels: StringMap,
    /// Namespace of the client's pod.
    pub source_namespace: String,
    /// Gateways this alternative is for.
    pub gateways: Vec<String>,
}
