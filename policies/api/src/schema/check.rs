//! Checks a value against a schema: unknown fields, wrong types, values out of bounds.

use serde_json::{Map, Value};

use super::{Schema, Shape};
use crate::document::field_path;

/// A part of a value that its schema forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub fix: String,
    /// The field is not known at all.
    pub unknown_field: bool,
}

/// Everything in `value` that `schema` forbids; `path` is where the value stands.
#[must_use]
pub fn check(schema: &Schema, value: &Value, path: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    visit(schema, value, path, &mut found);
    found
}

fn visit(schema: &Schema, value: &Value, path: &str, found: &mut Vec<Violation>) {
    // The API server drops nulls where they are not allowed, so they count as absent.
    if value.is_null() {
        return;
    }
    match (&schema.shape, value) {
        (Shape::Object { fields, required, one_of }, Value::Object(object)) => {
            known_fields(fields, object, path, found);
            present(required, one_of, object, path, found);
        }
        (Shape::Open(fields), Value::Object(object)) => {
            for (name, schema) in fields {
                if let Some(value) = object.get(*name) {
                    visit(schema, value, &field_path(path, name), found);
                }
            }
        }
        (Shape::Map(values), Value::Object(object)) => {
            object.iter().for_each(|(key, value)| visit(values, value, &field_path(path, key), found));
        }
        (Shape::List(items), Value::Array(list)) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| visit(items, value, &format!("{path}[{index}]"), found));
            if schema.max_items.is_some_and(|most| list.len() > most) {
                let most = schema.max_items.unwrap_or_default();
                found.push(violation(
                    path,
                    format!("has {} entries", list.len()),
                    format!("use at most {most}"),
                ));
            }
        }
        (Shape::Text, Value::String(text)) => in_values(schema, text, path, found),
        (Shape::Integer, Value::Number(number)) if number.as_f64().is_some_and(|it| it.fract() == 0.0) => {
            in_bounds(schema, number.as_f64().unwrap_or_default(), path, found);
        }
        (Shape::Number, Value::Number(number)) => {
            in_bounds(schema, number.as_f64().unwrap_or_default(), path, found)
        }
        (Shape::Boolean, Value::Bool(_)) => {}
        (shape, value) => {
            let wanted = expected(shape);
            found.push(violation(
                path,
                format!("is {}", actual(value)),
                format!("write {wanted}{}", example(shape, value)),
            ));
        }
    }
}

fn known_fields(
    fields: &[(&'static str, Schema)],
    object: &Map<String, Value>,
    path: &str,
    found: &mut Vec<Violation>,
) {
    for (name, value) in object {
        let inner = field_path(path, name);
        match fields.iter().find(|(known, _)| known == name) {
            Some((_, schema)) => visit(schema, value, &inner, found),
            None => {
                let nearest = nearest(name, fields.iter().map(|(known, _)| *known));
                let fix = nearest.map_or_else(
                    || format!("remove it; known fields are {}", listed(fields)),
                    |known| format!("did you mean `{known}`?"),
                );
                found.push(Violation {
                    unknown_field: true,
                    ..violation(&inner, format!("unknown field \"{inner}\""), fix)
                });
            }
        }
    }
}

fn present(
    required: &[&str],
    one_of: &[&str],
    object: &Map<String, Value>,
    path: &str,
    found: &mut Vec<Violation>,
) {
    let is_there = |name: &str| object.get(name).is_some_and(|it| !it.is_null());
    for name in required.iter().filter(|name| !is_there(name)) {
        found.push(violation(&field_path(path, name), "is missing".to_owned(), format!("add `{name}`")));
    }
    let given: Vec<&str> = one_of.iter().copied().filter(|name| is_there(name)).collect();
    if given.len() > 1 {
        let reason = format!("has {} at once", given.join(" and "));
        found.push(violation(path, reason, format!("keep one of {}", one_of.join(", "))));
    }
}

fn in_values(schema: &Schema, text: &str, path: &str, found: &mut Vec<Violation>) {
    if !schema.values.is_empty() && !schema.values.contains(&text) {
        let nearest = nearest(text, schema.values.iter().copied())
            .map(|it| format!("; did you mean {it}?"))
            .unwrap_or_default();
        found.push(violation(
            path,
            format!("\"{text}\" is not a known value"),
            format!("use one of {}{nearest}", schema.values.join(", ")),
        ));
    }
    if schema.min_length.is_some_and(|least| text.len() < least) {
        found.push(violation(path, "is empty".to_owned(), "write a value".to_owned()));
    }
}

fn in_bounds(schema: &Schema, number: f64, path: &str, found: &mut Vec<Violation>) {
    if schema.minimum.is_some_and(|least| number < least) {
        let least = schema.minimum.unwrap_or_default();
        found.push(violation(path, format!("is {number}"), format!("use at least {least}")));
    } else if schema.maximum.is_some_and(|most| number > most) {
        let most = schema.maximum.unwrap_or_default();
        found.push(violation(path, format!("is {number}"), format!("use at most {most}")));
    }
}

fn violation(path: &str, reason: String, fix: String) -> Violation {
    Violation { path: path.to_owned(), reason, fix, unknown_field: false }
}

fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::Object { .. } | Shape::Open(_) => "an object",
        Shape::Map(_) => "an object of keys and values",
        Shape::List(_) => "a list",
        Shape::Text => "text",
        Shape::Integer => "a whole number",
        Shape::Number => "a number",
        Shape::Boolean => "true or false",
    }
}

fn actual(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("{value}, a boolean"),
        Value::Number(value) => format!("{value}, a number"),
        Value::String(value) => format!("\"{}\", text", value.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn example(shape: &Shape, value: &Value) -> String {
    match (shape, value) {
        (Shape::Text, Value::Number(_) | Value::Bool(_)) => format!(": \"{value}\""),
        (Shape::Integer | Shape::Number | Shape::Boolean, Value::String(text)) => {
            format!(" without quotes: {text}")
        }
        (Shape::List(_), _) => ", each entry on its own line after \"- \"".to_owned(),
        _ => String::new(),
    }
}

fn listed(fields: &[(&'static str, Schema)]) -> String {
    fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The known name that is at most two letters, or a third of them, away.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|it| (distance(&name.to_ascii_lowercase(), &it.to_ascii_lowercase()), it))
        .filter(|(distance, it)| *distance <= (it.len() / 3).max(2) && *distance < it.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, it)| it)
}

/// Edit distance, bounded by the length of field names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a_char) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b_char) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(a_char != *b_char);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
