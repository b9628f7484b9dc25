//! JSON as `google.protobuf.Struct`, and back.

use policies_xds::protobuf::{ListValue, Struct, Value as Message, value::Kind};
use serde_json::{Map, Value};

pub(crate) fn to_struct(object: &Map<String, Value>) -> Struct {
    Struct { fields: object.iter().map(|(key, value)| (key.clone(), to_message(value))).collect() }
}

fn to_message(value: &Value) -> Message {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(to_message).collect() }),
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    Message { kind: Some(kind) }
}

pub(crate) fn to_json(message: &Struct) -> Value {
    Value::Object(message.fields.iter().map(|(key, value)| (key.clone(), value_json(value))).collect())
}

fn value_json(message: &Message) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::NumberValue(number)) => {
            serde_json::Number::from_f64(*number).map_or(Value::Null, Value::Number)
        }
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(value_json).collect()),
        Some(Kind::StructValue(fields)) => to_json(fields),
    }
}
