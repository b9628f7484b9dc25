//! Small operations on unstructured objects: reading fields, setting defaults, the stored form and its splice.

use bytes::Bytes;
use cluster_machinery::condition::{self, Condition};
use cluster_store::KeyValue;
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};

/// How every stored object begins; [`splice`] relies on it.
const HEAD: &[u8] = b"{\"metadata\":{";

/// The string at a JSON pointer, or "".
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub(crate) fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The array at a JSON pointer, or an empty one.
pub(crate) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The elements of an array that is there, to change them.
pub(crate) fn items_mut<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

pub(crate) fn finalizers(object: &Value) -> &[Value] {
    items(object, "/metadata/finalizers")
}

/// The map under `key`, made when it is not there.
pub(crate) fn child<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = &mut object[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// Sets `key` unless it is there; an empty string counts as absent.
pub(crate) fn default(object: &mut Value, key: &str, value: Value) {
    let absent = match object.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if absent && object.is_object() {
        object[key] = value;
    }
}

/// Sets a condition of an object's status; returns whether anything changed.
pub(crate) fn set_condition(
    object: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> bool {
    let condition = Condition { kind, status, reason, message, observed_generation: None };
    condition::set(object, condition, jiff::Timestamp::now())
}

/// Removes a key.
pub(crate) fn remove(object: &mut Value, key: &str) -> Option<Value> {
    object.as_object_mut().and_then(|map| map.remove(key))
}

/// Removes nulls from maps, `depth` levels down; index operators leave them where they looked.
pub(crate) fn prune_nulls(object: &mut Value, depth: usize) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| !value.is_null());
        if depth > 0 {
            map.values_mut().for_each(|value| prune_nulls(value, depth - 1));
        }
    }
}

/// Now, as metadata writes it.
pub(crate) fn now() -> String {
    stamp(jiff::Timestamp::now())
}

/// A time, as metadata writes it.
pub(crate) fn stamp(time: jiff::Timestamp) -> String {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// The stored form: metadata first, without resourceVersion.
///
/// # Errors
/// When the object has no metadata.
pub(crate) fn encode(object: &Value) -> ApiResult<Bytes> {
    let Some(map) = object.as_object() else { return Err(ApiError::internal("object is not a map")) };
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(HEAD);
    let metadata = map.get("metadata").and_then(Value::as_object);
    let fields = metadata.into_iter().flatten().filter(|(key, _)| *key != "resourceVersion");
    let wrote = write_fields(&mut out, fields)?;
    if !wrote {
        return Err(ApiError::internal("object has no metadata"));
    }
    out.push(b'}');
    let rest = map.iter().filter(|(key, _)| *key != "metadata");
    let mut tail = Vec::new();
    if write_fields(&mut tail, rest)? {
        out.push(b',');
        out.append(&mut tail);
    }
    out.push(b'}');
    out.shrink_to_fit();
    Ok(Bytes::from(out))
}

fn write_fields<'a>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
) -> ApiResult<bool> {
    let mut wrote = false;
    let failed = |error: serde_json::Error| ApiError::internal(error.to_string());
    for (key, value) in fields {
        if wrote {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key).map_err(failed)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, value).map_err(failed)?;
        wrote = true;
    }
    Ok(wrote)
}

/// Appends the stored object with its resourceVersion, without parsing it.
pub(crate) fn splice(stored: &[u8], revision: u64, out: &mut Vec<u8>) {
    let rest = stored.strip_prefix(HEAD).unwrap_or_default();
    out.reserve(stored.len() + 48);
    out.extend_from_slice(HEAD);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(rest);
}

/// Parses a stored object and gives it its resourceVersion.
///
/// # Errors
/// When the store holds something else.
pub(crate) fn decode(kv: &KeyValue) -> ApiResult<Value> {
    decode_bytes(&kv.value, kv.mod_revision)
}

/// [`decode`] of loose parts.
///
/// # Errors
/// When the bytes are no object.
pub(crate) fn decode_bytes(value: &[u8], revision: u64) -> ApiResult<Value> {
    let mut object: Value = serde_json::from_slice(value)
        .map_err(|error| ApiError::internal(format!("stored object: {error}")))?;
    set_revision(&mut object, revision);
    Ok(object)
}

pub(crate) fn set_revision(object: &mut Value, revision: u64) {
    child(object, "metadata").insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_can_be_spliced() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": "x", "resourceVersion": "7"}});
        let stored = encode(&object).unwrap();
        let mut out = Vec::new();
        splice(&stored, 12, &mut out);
        let back: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(back["metadata"]["resourceVersion"], "12");
        assert_eq!(back["data"]["a"], "b");
        assert_eq!(decode_bytes(&stored, 12).unwrap(), back);
        assert!(encode(&json!({"metadata": {}})).is_err());
    }
}
