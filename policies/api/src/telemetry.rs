//! `Telemetry` (telemetry.istio.io): the part of it the mesh acts on, access logging and trace sampling.

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
