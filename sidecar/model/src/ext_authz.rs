//! External authorization: who is asked about a request, what is told, and what holds when there is no answer.

pub(crate) mod proto;

use crate::matcher::{Fraction, MetadataMatch, StringMatch};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A gRPC service behind a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcService {
    /// The cluster.
    pub cluster: Arc<str>,
    /// The `:authority` of calls.
    pub authority: Box<str>,
    /// A call may take this long.
    pub timeout: Duration,
    /// Metadata sent with every call.
    #[serde(serialize_with = "crate::dump::display_pairs")]
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// An HTTP service that is asked with the request's own head.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpAuthz {
    /// The cluster.
    pub cluster: Arc<str>,
    /// A call may take this long.
    pub timeout: Duration,
    /// Put before the request's path.
    pub path_prefix: Box<str>,
    /// Headers of the request that are sent, besides the host and `authorization`.
    pub allowed_headers: Vec<StringMatch>,
    /// Headers added to calls.
    #[serde(serialize_with = "crate::dump::display_pairs")]
    pub headers_to_add: Vec<(HeaderName, HeaderValue)>,
    /// Headers of a yes that replace those of the request.
    pub upstream_headers: Vec<StringMatch>,
    /// Headers of a yes that are added to those of the request.
    pub upstream_headers_to_append: Vec<StringMatch>,
    /// Headers of a no that reach the client; empty: all but the host.
    pub client_headers: Vec<StringMatch>,
    /// Headers of a yes that are set on the response.
    pub client_headers_on_success: Vec<StringMatch>,
    /// Headers of an answer that become metadata.
    pub metadata_headers: Vec<StringMatch>,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthzService {
    /// `envoy.service.auth.v3.Authorization`.
    Grpc(GrpcService),
    /// HTTP: 200 is a yes, a server's error no answer, everything else a no.
    Http(HttpAuthz),
}

/// How much of the request's body is sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BodyBuffer {
    /// Bytes at most.
    pub bytes_max: usize,
    /// A longer body is cut there; otherwise its request is refused with 413.
    pub allow_partial: bool,
    /// As bytes, not as text.
    pub as_bytes: bool,
}

/// External authorization.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtAuthz {
    /// Who is asked.
    pub service: AuthzService,
    /// Without an answer requests pass.
    pub failure_mode_allow: bool,
    /// Such requests carry `x-envoy-auth-failure-mode-allowed: true`.
    pub failure_mode_allow_header: bool,
    /// Status without an answer.
    #[serde(serialize_with = "crate::dump::status")]
    pub status_on_error: StatusCode,
    /// The body, when it is sent along.
    pub body: Option<BodyBuffer>,
    /// The route is chosen anew after a yes that changed the request.
    pub clear_route_cache: bool,
    /// Chance that a request is judged at all.
    pub enabled: Fraction,
    /// Only requests with this metadata are judged.
    pub enabled_metadata: Option<MetadataMatch>,
    /// Headers told to a gRPC service; empty: all.
    pub allowed_headers: Vec<StringMatch>,
    /// Headers never told.
    pub disallowed_headers: Vec<StringMatch>,
    /// Namespaces of metadata that are told.
    pub metadata_namespaces: Vec<Box<str>>,
    /// The client's certificate is told.
    pub include_peer_certificate: bool,
    /// Bytes of a refusal's body that are passed on; more is cut. `None`: all of it.
    pub denied_body_bytes_max: Option<usize>,
}

/// What a route says about external authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckSettings {
    /// Told to the service.
    pub context_extensions: BTreeMap<Box<str>, Box<str>>,
    /// The body is not sent along here.
    pub without_body: bool,
    /// Another body here.
    pub body: Option<BodyBuffer>,
}
