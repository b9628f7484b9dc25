//! `envoy.config.core.v3.Metadata` and `google.protobuf.Struct` as JSON. Typed metadata is passed over.

use super::Metadata;
use policies_xds::core;
use policies_xds::protobuf::{self, value::Kind};
use serde_json::{Map, Number, Value};

/// Integers up to here are exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

pub(crate) fn metadata(message: &Option<core::Metadata>) -> Metadata {
    let mut metadata = Metadata::default();
    for (namespace, fields) in message.iter().flat_map(|message| &message.filter_metadata) {
        metadata.set(namespace, structure(fields));
    }
    metadata
}

/// A struct as a JSON object.
pub(crate) fn structure(message: &protobuf::Struct) -> Value {
    Value::Object(
        message.fields.iter().map(|(key, field)| (key.clone(), value(field))).collect::<Map<_, _>>(),
    )
}

pub(crate) fn value(message: &protobuf::Value) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::NumberValue(number)) => self::number(*number),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(value).collect()),
        Some(Kind::StructValue(fields)) => structure(fields),
    }
}

/// Whole numbers are written without a fraction; what JSON cannot say is null.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_become_json() {
        let number = |number| protobuf::Value { kind: Some(Kind::NumberValue(number)) };
        let list = protobuf::ListValue { values: vec![number(1.0), number(1.5), number(f64::NAN)] };
        let fields = [("list".to_owned(), protobuf::Value { kind: Some(Kind::ListValue(list)) })];
        let message = core::Metadata {
            filter_metadata: [("istio".to_owned(), protobuf::Struct { fields: fields.into() })].into(),
            ..Default::default()
        };
        let metadata = metadata(&Some(message));
        assert_eq!(metadata.find("istio", ["list"]), Some(&serde_json::json!([1, 1.5, null])));
        assert!(super::metadata(&None).is_empty());
    }
}
