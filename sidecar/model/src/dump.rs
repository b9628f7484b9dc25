//! The model as JSON in the shape of Envoy's `config_dump`, so that tools written for Envoy read it: field names, `@type`s and the
//! JSON mapping of protobuf are Envoy's. What is shown is what the model holds; fields at their default are left out. Keys never appear.

mod cluster;
mod endpoints;
mod listener;
mod route;
mod secret;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::fmt::Display;
use std::time::Duration;

use crate::matcher::StringPattern;
use crate::{Address, HeaderAppend, HeaderOps, Metadata, StringMatch};

pub use cluster::cluster;
pub use endpoints::endpoints;
pub use listener::listener;
pub use route::route_config;
pub use secret::{REDACTED, secret};

/// `value` as JSON, durations as text such as `1.5s`, absent values left out.
pub fn to_json<T: Serialize>(value: &T) -> Value {
    let mut json = serde_json::to_value(value).unwrap_or(Value::Null);
    simplify(&mut json);
    json
}

/// A message with its type, fields that are absent or at their default left out.
fn message(type_url: &str, fields: Value) -> Value {
    let Value::Object(fields) = fields else { return fields };
    let mut typed = Map::with_capacity(fields.len() + 1);
    typed.insert("@type".to_owned(), type_url.into());
    typed.extend(fields);
    prune(Value::Object(typed))
}

/// `type.googleapis.com/` and the name.
fn url(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

/// Wrapped booleans whose absence means true.
const TRUE_BY_DEFAULT: [&str; 2] = ["bind_to_port", "case_sensitive"];

/// Leaves out what protobuf's JSON leaves out: null, empty, false, and enumerations at their default are not written by the callers.
fn prune(json: Value) -> Value {
    match json {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| (key, prune(value)))
                .filter(|(key, value)| TRUE_BY_DEFAULT.contains(&key.as_str()) || !is_default(value))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(prune).collect()),
        other => other,
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Protobuf's text of a duration: a fraction has three, six or nine digits.
fn seconds(duration: Duration) -> String {
    let (whole, nanos) = (duration.as_secs(), duration.subsec_nanos());
    match nanos {
        0 => format!("{whole}s"),
        _ if nanos % 1_000_000 == 0 => format!("{whole}.{:03}s", nanos / 1_000_000),
        _ if nanos % 1_000 == 0 => format!("{whole}.{:06}s", nanos / 1_000),
        _ => format!("{whole}.{nanos:09}s"),
    }
}

/// An address, as `envoy.config.core.v3.Address`.
pub fn address(address: &Address) -> Value {
    match address {
        Address::Socket(socket) => {
            json!({ "socket_address": { "address": socket.ip().to_string(), "port_value": socket.port() } })
        }
        Address::Name(name, port) => json!({ "socket_address": { "address": &**name, "port_value": port } }),
        Address::Pipe(path) => json!({ "pipe": { "path": &**path } }),
    }
}

fn metadata(metadata: &Metadata) -> Value {
    if metadata.is_empty() { Value::Null } else { json!({ "filter_metadata": metadata }) }
}

fn string_match(matcher: &StringMatch) -> Value {
    let mut json = match &matcher.pattern {
        StringPattern::Exact(text) => json!({ "exact": text }),
        StringPattern::Prefix(text) => json!({ "prefix": text }),
        StringPattern::Suffix(text) => json!({ "suffix": text }),
        StringPattern::Contains(text) => json!({ "contains": text }),
        StringPattern::Regex(regex) => json!({ "safe_regex": { "regex": regex.as_str() } }),
    };
    if let (true, Some(fields)) = (matcher.ignore_case, json.as_object_mut()) {
        fields.insert("ignore_case".to_owned(), true.into());
    }
    json
}

/// Puts header changes into `fields` as `<side>_headers_to_add` and `<side>_headers_to_remove`.
fn header_ops(fields: &mut Value, side: &str, ops: &HeaderOps) {
    let add: Vec<Value> = ops
        .add
        .iter()
        .map(|one| {
            let action = match one.append {
                HeaderAppend::AppendOrAdd => "",
                HeaderAppend::AddIfAbsent => "ADD_IF_ABSENT",
                HeaderAppend::OverwriteOrAdd => "OVERWRITE_IF_EXISTS_OR_ADD",
                HeaderAppend::OverwriteIfExists => "OVERWRITE_IF_EXISTS",
            };
            json!({
                "header": { "key": one.name.as_str(), "value": one.value },
                "append_action": action,
                "keep_empty_value": one.keep_empty,
            })
        })
        .collect();
    let remove: Vec<&str> = ops.remove.iter().map(http::HeaderName::as_str).collect();
    fields[format!("{side}_headers_to_add")] = add.into();
    fields[format!("{side}_headers_to_remove")] = remove.into();
}

fn simplify(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|_, value| !is_absent(value));
            if let Some(text) = duration(fields) {
                *json = Value::String(text);
                return;
            }
            fields.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn is_absent(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn duration(fields: &Map<String, Value>) -> Option<String> {
    if fields.len() != 2 {
        return None;
    }
    let (secs, nanos) = (fields.get("secs")?.as_u64()?, fields.get("nanos")?.as_u64()?);
    let fraction = format!("{nanos:09}");
    let fraction = fraction.trim_end_matches('0');
    Some(if fraction.is_empty() { format!("{secs}s") } else { format!("{secs}.{fraction}s") })
}

pub(crate) fn display<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(crate) fn display_option<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn display_list<T: Display, S: Serializer>(
    values: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

pub(crate) fn display_pairs<S: Serializer>(
    pairs: &[(http::HeaderName, http::HeaderValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    serializer.collect_map(pairs.iter().map(|(name, value)| (name.as_str(), text(value))))
}

pub(crate) fn status<S: Serializer>(status: &http::StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

#[cfg(test)]
mod tests;
