//! The model as JSON for people: what `config_dump` and `meshctl proxy config` show.

use serde::{Serialize, Serializer};
use serde_json::Value;
use std::fmt::Display;

/// `value` as JSON, durations as text such as `1.5s`, absent values left out.
pub fn to_json<T: Serialize>(value: &T) -> Value {
    let mut json = serde_json::to_value(value).unwrap_or(Value::Null);
    simplify(&mut json);
    json
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

fn duration(fields: &serde_json::Map<String, Value>) -> Option<String> {
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

pub(crate) fn status<S: Serializer>(status: &http::StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Serialize)]
    struct Sample {
        timeout: Duration,
        idle: Option<Duration>,
        none: Option<u32>,
        list: Vec<u32>,
    }

    #[test]
    fn durations_are_readable_and_absent_values_left_out() {
        let sample = Sample {
            timeout: Duration::from_millis(1500),
            idle: Some(Duration::from_secs(3)),
            none: None,
            list: vec![],
        };
        assert_eq!(to_json(&sample), serde_json::json!({"timeout": "1.5s", "idle": "3s"}));
    }
}
