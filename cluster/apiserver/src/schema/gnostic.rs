//! The protobuf form of OpenAPI v2 (gnostic's `openapi.v2.Document`), which kubectl asks for when it must validate by itself.

use serde_json::Value;

/// A protobuf message being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

// === impl Message ===

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn flag(mut self, field: u64) -> Self {
        self.varint(field << 3);
        self.varint(1);
        self
    }

    /// `NamedAny`: an extension, whose value is YAML.
    fn extension(self, field: u64, name: &str, value: &Value) -> Self {
        let any = Self::default().text(2, &value.to_string());
        self.message(field, &Self::default().text(1, name).message(2, &any))
    }
}

/// A document with these definitions; each of `kinds` gets a path whose PATCH takes `fieldValidation`.
pub(crate) fn document<'a>(
    version: &str,
    definitions: impl Iterator<Item = (&'a String, &'a Value)>,
    kinds: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let info = Message::default().text(1, "Kubernetes").text(2, version);
    let mut paths = Message::default();
    for (path, gvk) in kinds {
        paths = paths.message(2, &Message::default().text(1, &path).message(2, &path_item(&gvk)));
    }
    let mut named = Message::default();
    for (name, definition) in definitions {
        named = named.message(1, &Message::default().text(1, name).message(2, &schema(definition)));
    }
    Message::default().text(1, "2.0").message(2, &info).message(8, &paths).message(9, &named).0
}

/// A PathItem with a patch operation.
fn path_item(gvk: &Value) -> Message {
    let query = Message::default().text(2, "query").text(4, "fieldValidation").text(6, "string");
    let parameter = Message::default().message(2, &Message::default().message(3, &query));
    let operation = Message::default().message(8, &Message::default().message(1, &parameter)).extension(
        13,
        "x-kubernetes-group-version-kind",
        gvk,
    );
    Message::default().message(8, &operation)
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    for (key, value) in value.as_object().into_iter().flatten() {
        out = match (key.as_str(), value) {
            ("$ref", Value::String(text)) => out.text(1, text),
            ("format", Value::String(text)) => out.text(2, text),
            ("description", Value::String(text)) => out.text(4, text),
            ("required", Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).fold(out, |out, name| out.text(19, name))
            }
            ("additionalProperties", Value::Bool(true)) => out.message(21, &Message::default().flag(2)),
            ("additionalProperties", Value::Object(_)) => {
                out.message(21, &Message::default().message(1, &schema(value)))
            }
            ("type", Value::String(text)) => out.message(22, &Message::default().text(1, text)),
            ("items", Value::Object(_)) => out.message(23, &Message::default().message(1, &schema(value))),
            ("properties", Value::Object(map)) => {
                let named = map.iter().fold(Message::default(), |named, (name, value)| {
                    named.message(1, &Message::default().text(1, name).message(2, &schema(value)))
                });
                out.message(25, &named)
            }
            (key, value) if key.starts_with("x-") => out.extension(31, key, value),
            _ => out,
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wire_format() {
        let bytes = schema(&json!({"type": "array", "items": {"$ref": "#/definitions/x"}})).0;
        // items (23) { schema (1) { $ref (1) } }, type (22) { value (1) }.
        let items = [&[0xba, 0x01, 0x13, 0x0a, 0x11, 0x0a, 0x0f][..], b"#/definitions/x"].concat();
        let kind = [&[0xb2, 0x01, 0x07, 0x0a, 0x05][..], b"array"].concat();
        let (one, other) = ([items.clone(), kind.clone()].concat(), [kind, items].concat());
        assert!(bytes == one || bytes == other, "{bytes:x?}");
    }
}
