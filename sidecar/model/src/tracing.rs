//! Tracing of requests: which are sampled, what their spans say, and where the spans go.

pub(crate) mod proto;

use crate::matcher::Fraction;
use http::HeaderName;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// How requests of a connection manager are traced.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// Chance that a trace begun here is sampled.
    pub random_sampling: Fraction,
    /// Chance that a trace asked for by the client is sampled.
    pub client_sampling: Fraction,
    /// Upper bound over both.
    pub overall_sampling: Fraction,
    /// Bytes of a path that `http.url` shows.
    pub path_tag_bytes_max: usize,
    /// Further tags of every span.
    pub custom_tags: Vec<CustomTag>,
    /// Where spans go; `None`: nowhere, only request identifiers say whether a request is sampled.
    pub provider: Option<Arc<Provider>>,
}

/// A tag with the place its value comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomTag {
    /// Its name.
    pub name: Arc<str>,
    /// Where its value comes from.
    pub source: TagSource,
}

/// Where a tag's value comes from; an empty default: no tag without a value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TagSource {
    /// This text.
    Literal(Box<str>),
    /// A variable of the process' environment.
    Environment {
        /// Its name.
        name: Box<str>,
        /// The value when it is not set.
        default: Box<str>,
    },
    /// A header of the request.
    Header {
        /// Its name.
        #[serde(serialize_with = "crate::dump::display")]
        name: HeaderName,
        /// The value when it is not there.
        default: Box<str>,
    },
    /// Metadata.
    Metadata {
        /// Whose.
        of: MetadataOf,
        /// Its namespace.
        namespace: Box<str>,
        /// The way to the value.
        path: Vec<Box<str>>,
        /// The value when it is not there.
        default: Box<str>,
    },
    /// A text with command operators.
    Format(Box<str>),
}

/// Whose metadata is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MetadataOf {
    /// What filters found out about the request.
    Request,
    /// The route's.
    Route,
    /// The cluster's.
    Cluster,
}

/// Where spans go, and how contexts travel.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// Cluster of the collector.
    pub cluster: Arc<str>,
    /// Its `host`.
    pub authority: Box<str>,
    /// How spans are sent.
    pub protocol: SpanProtocol,
    /// Headers of every report.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// How long a report may take.
    pub timeout: Duration,
    /// What the producer of the spans is called; empty: the node's cluster.
    pub service_name: Box<str>,
    /// Attributes of the producer.
    pub resource: Vec<(Box<str>, Box<str>)>,
    /// `OTEL_RESOURCE_ATTRIBUTES` adds to them.
    pub resource_from_environment: bool,
    /// Every request without a parent is sampled, whatever the chances say.
    pub always_on: bool,
    /// How contexts travel in headers.
    pub propagation: Propagation,
    /// Spans that may wait for being sent; more are dropped.
    pub queue_max: usize,
}

/// How spans are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SpanProtocol {
    /// OpenTelemetry's gRPC service.
    OtlpGrpc,
    /// OpenTelemetry's protobuf in a POST to this path.
    OtlpHttp(Box<str>),
    /// Zipkin's JSON, version 2, in a POST to this path.
    Zipkin {
        /// The path.
        path: Box<str>,
        /// Trace identifiers of 16 bytes instead of 8.
        wide: bool,
        /// The server's span has the identifier of the client's.
        shared: bool,
    },
}

/// How contexts travel in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `x-b3-*`, and `b3` where it came.
    B3,
    /// B3, and W3C beside it: written always, read when there is no B3.
    B3AndW3c,
}
