//! Checks that many kinds share.

use serde_json::Value;

use super::texts::{host_problem, is_label, regex_problem};
use super::{Problem, Severity};
use crate::document::field_path;
use crate::duration::ApiDuration;
use crate::kind::SpecError;
use crate::matching::StringMatch;
use crate::virtual_service::Destination;

/// A spec that could not be read although its types are right: some duration is malformed.
pub(super) fn unreadable(spec: &Value, error: &SpecError) -> Problem {
    let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let path = malformed_duration(spec, "spec").unwrap_or_else(|| "spec".to_owned());
    Problem {
        severity: Severity::Error,
        path,
        code: Some("IST0106"),
        reason,
        fix: "correct the value".to_owned(),
    }
}

/// The first field named like a duration whose text is none.
fn malformed_duration(value: &Value, path: &str) -> Option<String> {
    const NAMES: [&str; 15] = [
        "timeout",
        "perTryTimeout",
        "backoff",
        "fixedDelay",
        "exponentialDelay",
        "maxAge",
        "connectTimeout",
        "idleTimeout",
        "interval",
        "time",
        "ttl",
        "baseEjectionTime",
        "maxConnectionDuration",
        "duration",
        "warmupDurationSecs",
    ];
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            let inner = field_path(path, name);
            let wrong = NAMES.contains(&name.as_str())
                && field.as_str().is_some_and(|text| base_types::duration::parse(text).is_err());
            if wrong { Some(inner) } else { malformed_duration(field, &inner) }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| malformed_duration(item, &format!("{path}[{index}]"))),
        _ => None,
    }
}

/// A port must be 1 to 65535.
pub(super) fn port(number: u32, path: &str, problems: &mut Vec<Problem>) {
    if number == 0 || number > 65535 {
        problems.push(Problem::error(
            path,
            format!("port number {number} must be in the range 1..65535"),
            "use a number from 1 to 65535",
        ));
    }
}

/// A host name, a wildcard allowed or not.
pub(super) fn host(host: &str, wildcard: bool, path: &str, problems: &mut Vec<Problem>) {
    if let Some(reason) = host_problem(host) {
        problems.push(Problem::error(
            path,
            reason,
            "use a DNS name such as reviews or reviews.default.svc.cluster.local",
        ));
    } else if !wildcard && host.starts_with('*') {
        problems.push(Problem::error(
            path,
            format!("wildcard host \"{host}\" is not allowed here"),
            "name one host",
        ));
    }
}

/// A destination: a host, perhaps a subset and a port.
pub(super) fn destination(destination: &Destination, path: &str, problems: &mut Vec<Problem>) {
    let inner = field_path(path, "host");
    if destination.host.is_empty() {
        problems.push(Problem::error(inner, "destination host is empty", "name the service"));
    } else if destination.host == "*" {
        problems.push(Problem::error(inner, "invalid destination host *", "name one service"));
    } else {
        host(&destination.host, false, &inner, problems);
    }
    if !destination.subset.is_empty() && !is_label(&destination.subset, false) {
        let reason = format!("subset name \"{}\" is invalid", destination.subset);
        problems.push(Problem::error(
            field_path(path, "subset"),
            reason,
            "use letters, digits and dashes, at most 63",
        ));
    }
    if let Some(selector) = destination.port {
        port(selector.number, &field_path(path, "port.number"), problems);
    }
}

/// Weights of several destinations must not be negative nor all zero.
pub(super) fn weights(weights: impl Iterator<Item = i32>, path: &str, problems: &mut Vec<Problem>) {
    let weights: Vec<i32> = weights.collect();
    for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight < 0) {
        let inner = format!("{path}[{index}].weight");
        problems.push(Problem::error(inner, format!("weight {weight} < 0"), "use 0 or more"));
    }
    let total: i64 = weights.iter().map(|it| i64::from(*it)).sum();
    if weights.len() > 1 && total == 0 {
        problems.push(Problem::error(
            path,
            "total destination weight = 0",
            "give at least one destination a weight above 0",
        ));
    }
    if total > i64::from(u32::MAX) {
        problems.push(Problem::error(
            path,
            "total destination weight is above 4294967295",
            "use smaller weights, such as shares of 100",
        ));
    }
}

/// A string match: its regex must be one.
pub(super) fn string_match(written: &StringMatch, path: &str, problems: &mut Vec<Problem>) {
    if let StringMatch::Regex(expression) = written
        && expression != "*"
        && let Some(reason) = regex_problem(expression)
    {
        let fix = "use RE2 syntax; look-around and back references are not supported";
        problems.push(Problem::error(field_path(path, "regex"), reason, fix));
    }
}

/// A duration of at least one millisecond.
pub(super) fn duration(value: Option<ApiDuration>, path: &str, problems: &mut Vec<Problem>) {
    if value.is_some_and(|it| it.0 < std::time::Duration::from_millis(1)) {
        problems.push(Problem::error(path, "duration must be greater than 1ms", "use 1ms or more"));
    }
}

/// A percentage.
pub(super) fn percent(value: f64, path: &str, problems: &mut Vec<Problem>) {
    if !(0.0..=100.0).contains(&value) {
        problems.push(Problem::error(
            path,
            format!("percentage {value} is not in range 0..100"),
            "use 0 to 100",
        ));
    }
}

/// `exportTo`: namespaces, `.`, `*` or `~`.
pub(super) fn export_to(list: &[String], problems: &mut Vec<Problem>) {
    for (index, entry) in list.iter().enumerate() {
        if !matches!(entry.as_str(), "." | "*" | "~") && !is_label(entry, false) {
            let reason = format!("\"{entry}\" is not a namespace");
            problems.push(Problem::error(
                format!("spec.exportTo[{index}]"),
                reason,
                "use \".\", \"*\", \"~\" or a namespace",
            ));
        }
    }
    if list.len() > 1 && list.iter().any(|it| it == "*" || it == "~") {
        problems.push(Problem::error(
            "spec.exportTo",
            "\"*\" and \"~\" must stand alone",
            "remove the other entries",
        ));
    }
}

/// Labels by which something is selected.
pub(super) fn labels(labels: &crate::matching::StringMap, path: &str, problems: &mut Vec<Problem>) {
    for (key, value) in labels {
        if key.contains('*') || value.contains('*') {
            let reason = format!("wildcard is not supported in selector: \"{key}: {value}\"");
            problems.push(Problem::error(field_path(path, key), reason, "write the whole label"));
        }
    }
}
