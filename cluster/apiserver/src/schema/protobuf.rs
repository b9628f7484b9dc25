//! Decoding protobuf request bodies by the facts' field numbers: what typed Go clients send.
//!
//! Kubernetes writes every scalar that is not a pointer, so empty strings mean "absent"; numbers and booleans are kept, because whether they
//! are pointers is not known, and a zero where nothing was said does no harm.

use base64::Engine as _;
use serde_json::{Map, Number, Value, json};

use super::{Facts, Field, Shape, TypeId, facts};

const MAGIC: &[u8] = b"k8s\0";
/// The depth at which nested messages are refused.
const DEPTH_MAX: usize = 64;

/// Decodes an enveloped object of a built-in kind.
///
/// # Errors
/// When the bytes are malformed or the kind is unknown.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let body = bytes.strip_prefix(MAGIC).ok_or("the protobuf envelope is missing")?;
    let (mut api_version, mut kind, mut raw): (String, String, &[u8]) = (String::new(), String::new(), &[]);
    for entry in Reader(body) {
        match entry? {
            (1, Wire::Bytes(meta)) => {
                for entry in Reader(meta) {
                    match entry? {
                        (1, Wire::Bytes(text)) => api_version = string(text)?,
                        (2, Wire::Bytes(text)) => kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let facts = facts();
    let id = type_of(facts, &api_version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is known in {api_version:?}"))?;
    let mut object = message(facts, id, raw, 0)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

fn type_of(facts: &Facts, api_version: &str, kind: &str) -> Option<TypeId> {
    if kind == "DeleteOptions" {
        return facts.find("meta.v1.DeleteOptions");
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let short = group.split('.').next().unwrap_or_default();
    facts.find(&format!("{short}.{version}.{kind}"))
}

/// One field on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// Reads fields until the bytes end.
struct Reader<'a>(&'a [u8]);

// === impl Reader ===

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("unexpected end of protobuf")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a protobuf number is too long".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).map_err(|e| e.to_string())?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or("unexpected end of protobuf")?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Wire<'a>), String> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.take(8)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            other => return Err(format!("protobuf wire type {other} is not known")),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a protobuf string is not UTF-8".to_owned())
}

fn message(facts: &Facts, id: TypeId, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let entry = facts.get(id);
    if entry.name.starts_with("apiextensions.v1.JSONSchemaPropsOr") {
        return schema_or_else(facts, entry.name, bytes, depth);
    }
    if entry.alias.is_some() {
        return Ok(json!({}));
    }
    let mut map = Map::new();
    fields(facts, &entry.fields, bytes, &mut map, depth, &|field, number| {
        field.number == number && field.inner == 0
    })?;
    Ok(Value::Object(map))
}

fn fields(
    facts: &Facts,
    known: &[Field],
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
    is: &dyn Fn(&Field, u16) -> bool,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err("protobuf messages are nested too deeply".to_owned());
    }
    for entry in Reader(bytes) {
        let (number, wire) = entry?;
        let number = u16::try_from(number).unwrap_or(0);
        if number == 0 {
            continue;
        }
        if let Some(field) = known.iter().find(|field| is(field, number)) {
            put(facts, field, wire, map, depth)?;
        } else if let Wire::Bytes(inner) = wire
            && known.iter().any(|field| field.number == number && field.inner > 0)
        {
            // An embedded message: its fields stand beside ours in JSON.
            fields(facts, known, inner, map, depth + 1, &|field, inner| {
                field.number == number && field.inner == inner
            })?;
        }
    }
    Ok(())
}

fn put(
    facts: &Facts,
    field: &Field,
    wire: Wire<'_>,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    match &field.shape {
        Shape::List(item) => {
            let slot = map.entry(field.name).or_insert_with(|| json!([]));
            let Value::Array(list) = slot else { return Ok(()) };
            if let (Wire::Bytes(packed), Shape::Int32 | Shape::Int64 | Shape::Boolean) = (wire, &**item) {
                let mut reader = Reader(packed);
                while !reader.0.is_empty() {
                    let number = reader.varint()?;
                    list.extend(value(facts, item, Wire::Varint(number), depth)?);
                }
            } else {
                list.push(value(facts, item, wire, depth)?.unwrap_or_else(|| json!("")));
            }
        }
        Shape::Map(item) => {
            let Wire::Bytes(entry) = wire else { return Ok(()) };
            let (mut key, mut held) = (String::new(), None);
            for part in Reader(entry) {
                match part? {
                    (1, Wire::Bytes(text)) => key = string(text)?,
                    (2, wire) => held = map_value(facts, item, wire, depth)?,
                    _ => {}
                }
            }
            let slot = map.entry(field.name).or_insert_with(|| json!({}));
            slot[key] = held.unwrap_or_else(|| json!(""));
        }
        shape => {
            if let Some(value) = value(facts, shape, wire, depth)? {
                map.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// A list as the value of a map is a message with one repeated field.
fn map_value(facts: &Facts, item: &Shape, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, String> {
    let (Shape::List(inner), Wire::Bytes(bytes)) = (item, wire) else {
        return value(facts, item, wire, depth);
    };
    let mut list = Vec::new();
    for part in Reader(bytes) {
        if let (1, wire) = part? {
            list.push(value(facts, inner, wire, depth)?.unwrap_or_else(|| json!("")));
        }
    }
    Ok(Some(Value::Array(list)))
}

fn value(facts: &Facts, shape: &Shape, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, String> {
    let value = match (shape, wire) {
        (Shape::String, Wire::Bytes(text)) => Some(json!(string(text)?)).filter(|text| *text != ""),
        (Shape::Boolean, Wire::Varint(n)) => Some(json!(n != 0)),
        (Shape::Int32 | Shape::Int64, Wire::Varint(n)) => Some(json!(n.cast_signed())),
        (Shape::Number, Wire::Fixed64(n)) => Number::from_f64(f64::from_bits(n)).map(Value::Number),
        (Shape::Bytes, Wire::Bytes(bytes)) => {
            Some(json!(base64::engine::general_purpose::STANDARD.encode(bytes)))
        }
        (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes, *shape == Shape::MicroTime)?,
        (Shape::Quantity, Wire::Bytes(bytes)) => first_string(bytes)?.map(Value::String),
        (Shape::IntOrString, Wire::Bytes(bytes)) => Some(int_or_string(bytes)?),
        (Shape::Object | Shape::Any, Wire::Bytes(bytes)) => match first_string(bytes)? {
            Some(text) => serde_json::from_str(&text).map(Some).map_err(|error| error.to_string())?,
            None => None,
        },
        (Shape::Ref(id), Wire::Bytes(bytes)) => Some(message(facts, *id, bytes, depth + 1)?),
        _ => return Err("a protobuf field has the wrong wire type".to_owned()),
    };
    Ok(value)
}

fn first_string(bytes: &[u8]) -> Result<Option<String>, String> {
    for part in Reader(bytes) {
        if let (1, Wire::Bytes(text)) = part? {
            return string(text).map(Some);
        }
    }
    Ok(None)
}

fn numbers(bytes: &[u8]) -> Result<[i64; 3], String> {
    let mut found = [0; 3];
    for part in Reader(bytes) {
        if let (number @ 1..=2, Wire::Varint(n)) = part? {
            found[usize::try_from(number).unwrap_or(0)] = n.cast_signed();
        }
    }
    Ok(found)
}

/// An empty message is Go's zero time: absent.
fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let [_, seconds, nanos] = numbers(bytes)?;
    let nanos = i32::try_from(nanos).map_err(|e| e.to_string())?;
    let time = jiff::Timestamp::new(seconds, if micro { nanos } else { 0 }).map_err(|e| e.to_string())?;
    Ok(Some(json!(if micro { format!("{time:.6}") } else { time.to_string() })))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let [_, kind, number] = numbers(bytes)?;
    if kind == 0 {
        return Ok(json!(number));
    }
    for part in Reader(bytes) {
        if let (3, Wire::Bytes(text)) = part? {
            return Ok(json!(string(text)?));
        }
    }
    Ok(json!(""))
}

/// The three unions inside JSON schemas.
fn schema_or_else(facts: &Facts, name: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let schema = facts.find("apiextensions.v1.JSONSchemaProps").ok_or("the schema of schemas is missing")?;
    let boolean = name.ends_with("OrBool");
    let mut result = json!(boolean.then_some(false));
    let mut list = Vec::new();
    for part in Reader(bytes) {
        match part? {
            (1, Wire::Varint(allows)) if boolean => result = json!(allows != 0),
            (2, Wire::Bytes(inner)) if boolean => result = message(facts, schema, inner, depth + 1)?,
            (1, Wire::Bytes(inner)) if !boolean => result = message(facts, schema, inner, depth + 1)?,
            (2, Wire::Bytes(inner)) if name.ends_with("OrStringArray") => list.push(json!(string(inner)?)),
            (2, Wire::Bytes(inner)) => list.push(message(facts, schema, inner, depth + 1)?),
            _ => {}
        }
    }
    Ok(if list.is_empty() { result } else { Value::Array(list) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn config_maps() {
        let metadata = [field(1, b"cm"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"a"), field(2, b"b")].concat();
        let raw = [field(1, &metadata), field(2, &entry)].concat();
        let object = decode(&envelope("v1", "ConfigMap", &raw)).unwrap();
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": "b"}})
        );
    }

    #[test]
    fn embedded_sources_and_times() {
        // Volume: name = 1, volumeSource = 2 { emptyDir = 2 }.
        let volume = [field(1, b"tmp"), field(2, &field(2, b""))].concat();
        let spec = field(1, &volume);
        let metadata = [field(1, b"p"), field(8, &[8, 60])].concat();
        let raw = [field(1, &metadata), field(2, &spec)].concat();
        let object = decode(&envelope("v1", "Pod", &raw)).unwrap();
        assert_eq!(object["spec"]["volumes"], json!([{"name": "tmp", "emptyDir": {}}]));
        assert_eq!(object["metadata"]["creationTimestamp"], "1970-01-01T00:01:00Z");
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let good = envelope("v1", "ConfigMap", &field(1, &field(1, b"cm")));
        for cut in 0..good.len() {
            let _ = decode(&good[..cut]);
        }
        assert!(decode(b"{}").is_err() && decode(&envelope("v1", "Nothing", b"")).is_err());
        assert!(decode(&envelope("v1", "ConfigMap", &[0x0a, 0xff])).is_err());
    }
}
