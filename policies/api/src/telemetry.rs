//! `Telemetry` (telemetry.istio.io): access logs, traces and metrics.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::matching::{TargetRef, WorkloadSelector};

/// The spec of a `Telemetry`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Telemetry {
    /// Pods of the namespace it is for; all when absent.
    pub selector: Option<WorkloadSelector>,
    /// Single object it is attached to.
    pub target_ref: Option<TargetRef>,
    /// Objects it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// Access logs.
    pub access_logging: Vec<AccessLogging>,
    /// Traces.
    pub tracing: Vec<Tracing>,
    /// Metrics.
    pub metrics: Vec<Metrics>,
}

/// One entry of `accessLogging`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AccessLogging {
    /// Which direction.
    #[serde(rename = "match")]
    pub selector: Option<ModeSelector>,
    /// Where logs go.
    pub providers: Vec<ProviderRef>,
    /// Turns logs off.
    pub disabled: Option<bool>,
    /// Which requests are logged.
    pub filter: Option<LogFilter>,
}

/// `accessLogging.filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LogFilter {
    /// A CEL expression over Envoy's attributes.
    pub expression: String,
}

/// One entry of `tracing`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tracing {
    /// Which direction.
    #[serde(rename = "match")]
    pub selector: Option<ModeSelector>,
    /// Where spans go.
    pub providers: Vec<ProviderRef>,
    /// Share of requests in percent.
    pub random_sampling_percentage: Option<f64>,
    /// Turns spans off.
    pub disable_span_reporting: Option<bool>,
    /// Istio's own tags are added (default).
    pub enable_istio_tags: Option<bool>,
    /// Further tags by name.
    pub custom_tags: BTreeMap<String, CustomTag>,
}

/// Where a tag's value comes from: exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CustomTag {
    /// This text.
    pub literal: Option<Literal>,
    /// A variable of the proxy's environment.
    pub environment: Option<Named>,
    /// A header of the request.
    pub header: Option<Named>,
    /// A text with the command operators of access logs.
    pub formatter: Option<Literal>,
}

/// A text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Literal {
    /// The text.
    pub value: String,
}

/// Something by name, with what counts where it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The value where it is not there.
    pub default_value: String,
}

/// One entry of `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metrics {
    /// Who takes them.
    pub providers: Vec<ProviderRef>,
    /// Changes of Istio's metrics.
    pub overrides: Vec<MetricOverride>,
}

/// A change of metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricOverride {
    /// Which metrics; all when absent.
    #[serde(rename = "match")]
    pub selector: Option<MetricSelector>,
    /// Turns them off.
    pub disabled: Option<bool>,
    /// Changes of labels by name.
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Which metrics are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricSelector {
    /// One of Istio's, such as `REQUEST_COUNT`, or `ALL_METRICS`.
    pub metric: String,
    /// One by its own name.
    pub custom_metric: String,
    /// Which direction.
    pub mode: String,
}

/// A change of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TagOverride {
    /// `UPSERT` (default) or `REMOVE`.
    pub operation: String,
    /// A CEL expression, for `UPSERT`.
    pub value: String,
}

/// `match.mode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ModeSelector {
    /// `CLIENT_AND_SERVER` (default), `CLIENT` or `SERVER`.
    pub mode: String,
}

/// A provider by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProviderRef {
    /// Name in the mesh's configuration; `envoy` is the access log on standard output.
    pub name: String,
}
