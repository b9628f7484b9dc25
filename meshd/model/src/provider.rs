//! What `extensionProviders` of the mesh's configuration name: places for spans and logs.

use std::collections::BTreeMap;
use std::time::Duration;

/// A provider that `Telemetry` objects and `defaultProviders` refer to.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ProviderKind,
}

/// Kinds of providers that the mesh acts on.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderKind {
    /// Spans by Zipkin's protocol.
    Zipkin {
        /// Where.
        collector: Collector,
        /// Path of the collector; Zipkin's when empty.
        path: String,
        /// Bytes of a path in tags; 0: Envoy's default.
        max_tag_length: u32,
        /// Trace identifiers of 8 bytes.
        narrow_trace_id: bool,
        /// W3C contexts travel beside B3.
        with_w3c: bool,
    },
    /// Spans by OpenTelemetry's protocol.
    OpenTelemetry {
        /// Where.
        collector: Collector,
        /// Bytes of a path in tags; 0: Envoy's default.
        max_tag_length: u32,
        /// Over HTTP, at this path; else over gRPC.
        http_path: Option<String>,
        /// How long a report may take.
        timeout: Option<Duration>,
        /// Headers of reports.
        headers: Vec<(String, String)>,
        /// The environment describes the producer.
        environment_detector: bool,
    },
    /// Logs in a file.
    FileAccessLog {
        /// The file.
        path: String,
        /// What a line holds.
        format: LogFormat,
        /// Fields without a value are left out of JSON.
        omit_empty: bool,
    },
    /// Metrics for Prometheus, which every proxy has anyway.
    Prometheus,
    /// Something that the mesh knows by name only.
    Other,
}

/// What a line of a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LogFormat {
    /// Istio's text.
    #[default]
    Default,
    /// This text.
    Text(String),
    /// A JSON object with these fields.
    Json(BTreeMap<String, serde_json::Value>),
}

/// A service that takes reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collector {
    /// `<host>` or `<namespace>/<host>`.
    pub service: String,
    /// Its port.
    pub port: u16,
}
