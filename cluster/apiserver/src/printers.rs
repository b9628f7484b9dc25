//! Tables: the columns that people see in `kubectl get`, one function a kind.

mod access;
mod core;
mod pods;
mod workloads;

use std::fmt;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{items, name, text};

/// Makes a table's columns and rows.
pub(crate) trait Printer: Send + Sync + fmt::Debug {
    /// `columnDefinitions`.
    fn columns(&self) -> Value;

    /// One row.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

/// One column: name, type, format, priority (0 is always shown, 1 with `-o wide`), description.
pub(crate) type Column = (&'static str, &'static str, &'static str, i32, &'static str);

/// A printer of a built-in kind.
#[derive(Clone, Copy)]
pub(crate) struct Cells {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

pub(crate) const NAME: Column = ("Name", "string", "name", 0, "Name of the object.");
pub(crate) const AGE: Column = ("Age", "string", "", 0, "Time since the object was created.");

pub(crate) const DEFAULT: Cells =
    Cells { columns: &[NAME, AGE], cells: |object, now| vec![json!(name(object)), age(object, now)] };

pub(crate) use access::{
    CLUSTER_ROLE_BINDINGS, DEFINITIONS, PRIORITY_CLASSES, ROLE_BINDINGS, ROLES, WEBHOOKS,
};
pub(crate) use core::{
    CONFIG_MAPS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, LEASES, NAMESPACES, NODES, SECRETS, SERVICE_ACCOUNTS,
    SERVICES,
};
pub(crate) use pods::PODS;
pub(crate) use workloads::{DEPLOYMENTS, REPLICA_SETS};

// === impl Cells ===

impl Printer for Cells {
    fn columns(&self) -> Value {
        self.columns.iter().map(column).collect()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.cells)(object, now)
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells").field("columns", &self.columns.len()).finish_non_exhaustive()
    }
}

fn column((name, kind, format, priority, description): &Column) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

/// The age of an object.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(text(object, "/metadata/creationTimestamp"), now))
}

/// The time since a timestamp, in words of a few characters.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => duration(now.as_second() - time.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Seconds as Kubernetes shortens them: two units at most, and only while both matter.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// A value or `<none>`.
pub(crate) fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

/// Labels or a map as `a=b,c=d`, or `<none>`.
pub(crate) fn pairs(map: &Value) -> Value {
    let list: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&list.join(","))
}

/// One string field of each element of a list, joined by commas.
pub(crate) fn joined(object: &Value, list: &str, field: &str) -> String {
    items(object, list)
        .iter()
        .map(|item| text(item, field))
        .filter(|t| !t.is_empty())
        .collect::<Vec<_>>()
        .join(",")
}

/// How many entries a list or map has.
pub(crate) fn count(value: &Value) -> usize {
    value.as_array().map_or_else(|| value.as_object().map_or(0, serde_json::Map::len), Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_kubectl() {
        for (seconds, text) in [
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3000, "50m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (100_000, "27h"),
            (180_000, "2d2h"),
            (800_000, "9d"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
