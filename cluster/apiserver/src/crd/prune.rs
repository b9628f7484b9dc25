//! Dropping unknown fields of custom resources, and filling in defaults.

use serde_json::Value;

use super::structural::Structural;

/// Drops what the schema does not know; returns the paths.
pub(crate) fn prune(schema: &Structural, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    walk(schema, object, &mut String::new(), true, &mut dropped);
    dropped
}

fn walk(
    schema: &Structural,
    value: &mut Value,
    path: &mut String,
    resource: bool,
    dropped: &mut Vec<String>,
) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            let mut unknown = Vec::new();
            for (key, child) in map.iter_mut() {
                if resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match schema.property(key) {
                    Some(below) => walk(below, child, path, below.embedded, dropped),
                    None if schema.preserve => {}
                    None => {
                        dropped.push(path.clone());
                        unknown.push(key.clone());
                    }
                }
                path.truncate(length);
            }
            for key in unknown {
                map.remove(&key);
            }
        }
        Value::Array(list) => {
            let Some(below) = &schema.items else { return };
            for (at, child) in list.iter_mut().enumerate() {
                path.push_str(&format!("[{at}]"));
                walk(below, child, path, below.embedded, dropped);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Fills in defaults; nulls that may not be null give way to them.
pub(crate) fn defaults(schema: &Structural, value: &mut Value) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, below) in &schema.properties {
                if let Some(default) = &below.default {
                    let give_way = map.get(&**name).is_none_or(|v| v.is_null() && !below.nullable);
                    if give_way {
                        map.insert(name.to_string(), default.clone());
                    }
                }
            }
            for (key, child) in map.iter_mut() {
                if let Some(below) = schema.property(key) {
                    defaults(below, child);
                }
            }
        }
        Value::Array(list) => {
            if let Some(below) = &schema.items {
                list.iter_mut().for_each(|child| defaults(below, child));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_goes_and_defaults_come() {
        let schema = Structural::compile(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "n": {"type": "integer", "default": 3},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}}}}}),
        );
        let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"}, "other": 1,
            "spec": {"n": null, "x": 1, "free": {"any": [1]}, "list": [{"a": "b", "c": 1}]}});
        assert_eq!(prune(&schema, &mut object), ["other", "spec.list[0].c", "spec.x"]);
        defaults(&schema, &mut object);
        assert_eq!(object["spec"], json!({"n": 3, "free": {"any": [1]}, "list": [{"a": "b"}]}));
    }
}
