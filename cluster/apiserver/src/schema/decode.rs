//! Decoding a value as a built-in type, as Kubernetes' typed decoding does: unknown fields are noticed and dropped, nulls vanish,
//! wrong types are refused.

use base64::Engine as _;
use serde_json::Value;

use super::{Facts, Shape, TypeId};

/// A value that cannot be of the type, in Go's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("json: cannot unmarshal {found} into Go struct field {kind}.{path} of type {wanted}")]
    Type { found: &'static str, kind: String, path: String, wanted: &'static str },
    #[error("{path}: {reason}")]
    Format { path: String, reason: String },
}

/// Checks and cleans `value`; returns the paths of unknown fields, which are gone afterwards.
///
/// # Errors
/// [`Mismatch`] at the first value of a wrong type.
pub(crate) fn decode(
    facts: &Facts,
    id: TypeId,
    kind: &str,
    value: &mut Value,
) -> Result<Vec<String>, Mismatch> {
    let mut walk = Walk { facts, kind, path: String::new(), unknown: Vec::new() };
    walk.check(&Shape::Ref(id), value)?;
    Ok(walk.unknown)
}

struct Walk<'a> {
    facts: &'a Facts,
    kind: &'a str,
    path: String,
    unknown: Vec<String>,
}

impl Walk<'_> {
    fn mismatch(&self, value: &Value, wanted: &'static str) -> Mismatch {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        // Go names fields without list positions.
        let mut path = String::new();
        let mut inside = false;
        for c in self.path.chars() {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                c if !inside => path.push(c),
                _ => {}
            }
        }
        Mismatch::Type { found, kind: self.kind.to_owned(), path, wanted }
    }

    fn format(&self, reason: String) -> Mismatch {
        Mismatch::Format { path: self.path.clone(), reason }
    }

    fn check(&mut self, shape: &Shape, value: &mut Value) -> Result<(), Mismatch> {
        let wanted = match (shape, &*value) {
            (Shape::Any | Shape::Object, _) | (_, Value::Null) => return Ok(()),
            (Shape::String, Value::String(_))
            | (Shape::Boolean, Value::Bool(_))
            | (Shape::Number, Value::Number(_)) => {
                return Ok(());
            }
            (Shape::Int32, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
                return Ok(());
            }
            (Shape::Int64, Value::Number(n)) if n.as_i64().is_some() => return Ok(()),
            (Shape::IntOrString, Value::String(_)) => return Ok(()),
            (Shape::Quantity, Value::String(text)) => {
                return match text.parse::<cluster_machinery::Quantity>() {
                    Ok(_) => Ok(()),
                    Err(error) => Err(self.format(error.to_string())),
                };
            }
            (Shape::IntOrString, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                return Ok(());
            }
            (Shape::Quantity, Value::Number(n)) => {
                *value = Value::String(n.to_string());
                return Ok(());
            }
            (Shape::Bytes, Value::String(text)) => {
                return match base64::engine::general_purpose::STANDARD.decode(text) {
                    Ok(_) => Ok(()),
                    Err(error) => Err(self.format(format!("illegal base64 data: {error}"))),
                };
            }
            (Shape::Time | Shape::MicroTime, Value::String(text)) => {
                return match text.parse::<jiff::Timestamp>() {
                    Ok(_) => Ok(()),
                    Err(error) => Err(self.format(format!("parsing time {text:?}: {error}"))),
                };
            }
            (Shape::List(item), Value::Array(_)) => return self.check_list(item, value),
            (Shape::Map(item), Value::Object(_)) => return self.check_map(item, value),
            (Shape::Ref(id), _) => return self.check_type(*id, value),
            (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime, _) => "string",
            (Shape::Boolean, _) => "bool",
            (Shape::Int32, _) => "int32",
            (Shape::Int64, _) => "int64",
            (Shape::Number, _) => "float64",
            (Shape::Quantity, _) => "resource.Quantity",
            (Shape::IntOrString, _) => "intstr.IntOrString",
            (Shape::List(_), _) => "[]",
            (Shape::Map(_), _) => "map[string]",
        };
        Err(self.mismatch(value, wanted))
    }

    fn check_list(&mut self, item: &Shape, value: &mut Value) -> Result<(), Mismatch> {
        let Value::Array(items) = value else { return Ok(()) };
        let length = self.path.len();
        for (index, element) in items.iter_mut().enumerate() {
            self.path.push_str(&format!("[{index}]"));
            self.check(item, element)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn check_map(&mut self, item: &Shape, value: &mut Value) -> Result<(), Mismatch> {
        let Value::Object(map) = value else { return Ok(()) };
        let length = self.path.len();
        for (key, element) in map.iter_mut() {
            if element.is_null() && *item == Shape::String {
                *element = Value::String(String::new());
            }
            self.push(key);
            self.check(item, element)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn check_type(&mut self, id: TypeId, value: &mut Value) -> Result<(), Mismatch> {
        let facts = self.facts;
        let entry = facts.get(id);
        if let Some(alias) = &entry.alias {
            return self.check(alias, value);
        }
        let Value::Object(map) = value else { return Err(self.mismatch(value, entry.name)) };
        map.retain(|_, element| !element.is_null());
        let length = self.path.len();
        let mut unknown: Vec<String> = Vec::new();
        for (key, element) in map.iter_mut() {
            self.push(key);
            match entry.field(key) {
                Some(field) => self.check(&field.shape, element)?,
                None => {
                    unknown.push(key.clone());
                    self.unknown.push(self.path.clone());
                }
            }
            self.path.truncate(length);
        }
        for key in unknown {
            map.remove(&key);
        }
        Ok(())
    }

    fn push(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::facts;

    fn run(value: &mut Value) -> Result<Vec<String>, String> {
        let facts = facts();
        decode(facts, facts.find("apps.v1.Deployment").unwrap(), "Deployment", value)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn unknown_fields_are_named_and_dropped() {
        let mut value = json!({"metadata": {"creationTimestamp": null, "unknownMeta": 1},
            "spec": {"unknownField": 1, "template": {"spec": {"containers": [{"name": "a", "imagee": "x"}]}}}});
        let mut unknown = run(&mut value).unwrap();
        unknown.sort();
        assert_eq!(
            unknown,
            ["metadata.unknownMeta", "spec.template.spec.containers[0].imagee", "spec.unknownField"]
        );
        assert_eq!(
            value,
            json!({"metadata": {}, "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}})
        );
    }

    #[test]
    fn wrong_types_are_told_in_gos_words() {
        let error = run(&mut json!({"spec": {"replicas": "3"}})).unwrap_err();
        assert_eq!(
            error,
            "json: cannot unmarshal string into Go struct field Deployment.spec.replicas of type int32"
        );
        assert!(run(&mut json!({"spec": []})).is_err());
        assert!(run(&mut json!({"metadata": {"creationTimestamp": "yesterday"}})).is_err());
    }
}
