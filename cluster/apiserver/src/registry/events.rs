//! Events have two groups and one storage, in core's form.

use serde_json::{Value, json};

use crate::object::{remove, text};

/// Pairs of field names: core, `events.k8s.io`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Rewrites a stored event into the `events.k8s.io/v1` form.
pub(crate) fn to_events_group(object: &mut Value) {
    for (core, events) in RENAMED {
        if let Some(value) = remove(object, core) {
            object[*events] = value;
        }
    }
    object["apiVersion"] = json!("events.k8s.io/v1");
}

/// Rewrites an `events.k8s.io/v1` event into the stored form.
pub(crate) fn to_core_group(object: &mut Value) {
    for (core, events) in RENAMED {
        if let Some(value) = remove(object, events) {
            object[*core] = value;
        }
    }
    object["apiVersion"] = json!("v1");
}

/// When an event was last seen, to let it expire.
pub(crate) fn last_seen(event: &Value) -> Option<jiff::Timestamp> {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .filter_map(|pointer| text(event, pointer).parse().ok())
        .max()
}
