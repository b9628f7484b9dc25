//! Small shapes that many kinds share: string matches, label selectors, percentages, port selectors.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Labels or other string maps, ordered so that everything made from them is deterministic.
pub type StringMap = BTreeMap<String, String>;

/// How a string is compared. `Any` is the empty match: the value only has to be present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "StringMatchFields")]
pub enum StringMatch {
    /// The whole value, byte for byte.
    Exact(String),
    /// The beginning of the value.
    Prefix(String),
    /// An RE2 expression over the whole value.
    Regex(String),
    /// Present with any value.
    #[default]
    Any,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct StringMatchFields {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl From<StringMatchFields> for StringMatch {
    fn from(fields: StringMatchFields) -> Self {
        match fields {
            StringMatchFields { exact: Some(text), .. } => Self::Exact(text),
            StringMatchFields { prefix: Some(text), .. } => Self::Prefix(text),
            StringMatchFields { regex: Some(text), .. } => Self::Regex(text),
            StringMatchFields { .. } => Self::Any,
        }
    }
}

/// A percentage with fractions, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Percent {
    /// The value in percent; steps below 0.0001 are lost.
    pub value: f64,
}

/// A port by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    /// The port's number, 1 to 65535 once validated.
    pub number: u32,
}

/// `selector.matchLabels` of the security and telemetry kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// Labels that a pod must carry.
    pub match_labels: StringMap,
}

/// `workloadSelector.labels` of the networking kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelsSelector {
    /// Labels that a pod must carry.
    pub labels: StringMap,
}

/// An object that a policy is attached to by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// API group, empty for core.
    pub group: String,
    /// Kind of the target.
    pub kind: String,
    /// Name of the target, in the policy's namespace.
    pub name: String,
}

/// Whether every label of the selector is carried; an empty selector selects everything.
#[must_use]
pub fn selects(selector: &StringMap, labels: &StringMap) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
