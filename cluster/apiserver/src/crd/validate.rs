//! Validating custom resources, in the words of Kubernetes' validator.

use serde_json::Value;

use super::structural::{Checks, ListType, Structural, Type};
use crate::error::FieldError;

/// Checks an object against its schema.
pub(crate) fn validate(schema: &Structural, object: &Value, errors: &mut Vec<FieldError>) {
    node(schema, object, &mut String::new(), errors);
}

fn push(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

fn fits(kind: Type, value: &Value) -> bool {
    match kind {
        Type::Any => true,
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Boolean => value.is_boolean(),
        Type::Number => value.is_number(),
        Type::Integer => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
    }
}

fn type_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The root has no path.
fn place(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn invalid(path: &str, value: &Value, detail: impl Into<String>) -> FieldError {
    FieldError::invalid(place(path), value.clone(), detail)
}

fn wrong_type(path: &str, value: &Value, wanted: &str) -> FieldError {
    let word = type_word(value);
    FieldError::type_invalid(
        place(path),
        word,
        format!("{path} in body must be of type {wanted}: \"{word}\""),
    )
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn node(schema: &Structural, value: &Value, path: &mut String, errors: &mut Vec<FieldError>) {
    if errors.len() >= 32 {
        return;
    }
    if value.is_null() && schema.nullable {
        return;
    }
    if schema.int_or_string {
        if !(fits(Type::Integer, value) || value.is_string()) {
            errors.push(wrong_type(path, value, "integer,string"));
            return;
        }
    } else if !fits(schema.kind, value) {
        errors.push(wrong_type(path, value, schema.kind.word()));
        return;
    }
    let length = path.len();
    match value {
        Value::Object(map) => {
            for name in schema.required.iter().filter(|name| !map.contains_key(*name)) {
                push(path, name);
                errors.push(FieldError::required(path.as_str(), ""));
                path.truncate(length);
            }
            for (key, child) in map {
                if let Some(below) = schema.property(key) {
                    push(path, key);
                    node(below, child, path, errors);
                    path.truncate(length);
                }
            }
        }
        Value::Array(list) => {
            for (at, child) in list.iter().enumerate() {
                let Some(below) = &schema.items else { break };
                path.push_str(&format!("[{at}]"));
                node(below, child, path, errors);
                path.truncate(length);
            }
            duplicates(schema, list, path, errors);
        }
        _ => {}
    }
    if let Some(checks) = &schema.checks {
        checks.run(value, path, errors);
    }
}

fn duplicates(schema: &Structural, list: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let unique = schema.checks.as_ref().is_some_and(|checks| checks.unique);
    let key = |value: &Value| match &schema.list_type {
        ListType::Map(keys) => {
            keys.iter().map(|k| value[k.as_str()].to_string()).collect::<Vec<_>>().join("\u{1}")
        }
        _ => value.to_string(),
    };
    if schema.list_type == ListType::Atomic && !unique {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    for (at, value) in list.iter().enumerate() {
        if !seen.insert(key(value)) {
            errors.push(FieldError::duplicate(format!("{path}[{at}]"), value.clone()));
        }
    }
}

/// Whether a value fits a schema, for `anyOf` and its like.
fn valid(schema: &Structural, value: &Value) -> bool {
    let mut errors = Vec::new();
    node(schema, value, &mut String::new(), &mut errors);
    errors.is_empty()
}

// === impl Checks ===

impl Checks {
    fn run(&self, value: &Value, path: &mut String, errors: &mut Vec<FieldError>) {
        if !self.enumeration.is_empty() && !self.enumeration.contains(value) {
            let texts: Vec<String> = self
                .enumeration
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                .collect();
            let supported: Vec<&str> = texts.iter().map(String::as_str).collect();
            errors.push(FieldError::not_supported(place(path), value.clone(), &supported));
        }
        match value {
            Value::Number(number) => self.number(number.as_f64().unwrap_or(0.0), value, path, errors),
            Value::String(text) => self.text(text, value, path, errors),
            Value::Array(list) => {
                let (low, high) = self.counts;
                if let Some(low) = low.filter(|low| (list.len() as u64) < *low) {
                    errors.push(invalid(
                        path,
                        value,
                        format!("{path} in body should have at least {low} items"),
                    ));
                }
                if let Some(high) = high.filter(|high| list.len() as u64 > *high) {
                    errors.push(FieldError::too_many(place(path), list.len(), size(high)));
                }
            }
            Value::Object(map) => {
                let (low, high) = self.sizes;
                if let Some(low) = low.filter(|low| (map.len() as u64) < *low) {
                    errors.push(invalid(
                        path,
                        value,
                        format!("{path} in body should have at least {low} properties"),
                    ));
                }
                if let Some(high) = high.filter(|high| map.len() as u64 > *high) {
                    errors.push(FieldError::too_many(place(path), map.len(), size(high)));
                }
            }
            _ => {}
        }
        self.combined(value, path, errors);
    }

    fn number(&self, number: f64, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        if let Some((low, exclusive)) = self.minimum
            && (number < low || exclusive && number == low)
        {
            let or_equal = if exclusive { "" } else { " or equal to" };
            errors.push(invalid(
                path,
                value,
                format!("{path} in body should be greater than{or_equal} {low}"),
            ));
        }
        if let Some((high, exclusive)) = self.maximum
            && (number > high || exclusive && number == high)
        {
            let or_equal = if exclusive { "" } else { " or equal to" };
            errors.push(invalid(path, value, format!("{path} in body should be less than{or_equal} {high}")));
        }
        if let Some(factor) = self.multiple_of
            && factor != 0.0
            && (number / factor).fract() != 0.0
        {
            errors.push(invalid(path, value, format!("{path} in body should be a multiple of {factor}")));
        }
    }

    fn text(&self, text: &str, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let characters = text.chars().count() as u64;
        if let Some(low) = self.lengths.0.filter(|low| characters < *low) {
            errors.push(invalid(path, value, format!("{path} in body should be at least {low} chars long")));
        }
        if let Some(high) = self.lengths.1.filter(|high| characters > *high) {
            errors.push(FieldError::too_long(place(path), size(high)));
        }
        if let Some(pattern) = &self.pattern
            && !pattern.is_match(text)
        {
            errors.push(invalid(path, value, format!("{path} in body should match '{pattern}'")));
        }
        if !format_fits(&self.format, text) {
            let detail = format!("{path} in body must be of type {}: {text:?}", self.format);
            errors.push(invalid(path, value, detail));
        }
    }

    fn combined(&self, value: &Value, path: &mut String, errors: &mut Vec<FieldError>) {
        for schema in &self.all_of {
            node(schema, value, path, errors);
        }
        let place = place(path).to_owned();
        if !self.any_of.is_empty() && !self.any_of.iter().any(|schema| valid(schema, value)) {
            let detail = format!("{place:?} must validate at least one schema (anyOf)");
            errors.push(invalid(path, &Value::Null, detail));
        }
        if !self.one_of.is_empty() {
            let found = self.one_of.iter().filter(|schema| valid(schema, value)).count();
            if found != 1 {
                let found =
                    if found == 0 { "none valid".to_owned() } else { format!("{found} valid alternatives") };
                let detail =
                    format!("{place:?} must validate one and only one schema (oneOf). Found {found}");
                errors.push(invalid(path, &Value::Null, detail));
            }
        }
        if let Some(not) = &self.not
            && valid(not, value)
        {
            errors.push(invalid(path, &Value::Null, format!("{place:?} must not validate the schema (not)")));
        }
    }
}

/// The formats that Kubernetes checks and that custom resources use.
fn format_fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "byte" => base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        _ => true,
    }
}

/// Evaluates the rules of a schema over an object and, for rules about changes, the old object.
pub(crate) fn rules(schema: &Structural, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    rule_node(schema, object, old, &mut String::new(), errors);
}

fn rule_node(
    schema: &Structural,
    value: &Value,
    old: Option<&Value>,
    path: &mut String,
    errors: &mut Vec<FieldError>,
) {
    if !schema.has_rules || value.is_null() {
        return;
    }
    for rule in &schema.rules {
        if let Err(why) = rule.check(schema, value, old) {
            errors.push(invalid(path, &shown(value), why));
        }
    }
    let length = path.len();
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                let Some(below) = schema.property(key) else { continue };
                push(path, key);
                rule_node(below, child, old.and_then(|old| old.get(key)), path, errors);
                path.truncate(length);
            }
        }
        Value::Array(list) => {
            let Some(below) = &schema.items else { return };
            for (at, child) in list.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                rule_node(below, child, matching(schema, child, old), path, errors);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Objects and lists are named by their type in messages.
fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => Value::String(type_word(value).to_owned()),
        other => other.clone(),
    }
}

/// The element of the old list that is the same one; only list-maps can tell.
fn matching<'a>(schema: &Structural, child: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let ListType::Map(keys) = &schema.list_type else { return None };
    old?.as_array()?.iter().find(|o| keys.iter().all(|key| o[key.as_str()] == child[key.as_str()]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, object: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        crate::crd::version_with(schema).validate(object, None, &mut errors);
        errors.into_iter().map(|e| format!("{}: {}", e.field, e.body())).collect()
    }

    #[test]
    fn kubernetes_words() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["host"], "properties": {
            "host": {"type": "string", "pattern": "^[a-z]+$"}, "n": {"type": "integer", "minimum": 1},
            "mode": {"type": "string", "enum": ["A", "B"]}}}}});
        assert_eq!(check(&schema, &json!({"spec": {}})), ["spec.host: Required value"]);
        let errors = check(&schema, &json!({"spec": {"host": "A", "n": 0, "mode": "C"}}));
        assert_eq!(
            errors,
            [
                "spec.host: Invalid value: \"A\": spec.host in body should match '^[a-z]+$'",
                "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
                "spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1",
            ]
        );
        let errors = check(&schema, &json!({"spec": {"host": 1}}));
        assert_eq!(
            errors,
            ["spec.host: Invalid value: \"integer\": spec.host in body must be of type string: \"integer\""]
        );
    }

    #[test]
    fn alternatives() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}}});
        assert!(check(&schema, &json!({"spec": {"a": "x"}})).is_empty());
        assert_eq!(check(&schema, &json!({"spec": {"a": "x", "b": "y"}})).len(), 1);
    }
}
