//! Structural schemas: one description of a kind's fields, from which its CRD is written and by which objects are checked.

mod check;

use serde_json::{Map, Value, json};

pub(crate) use check::nearest;
pub use check::{Violation, check};

/// A field's type and bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    pub(crate) shape: Shape,
    pub(crate) values: &'static [&'static str],
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) min_length: Option<usize>,
    pub(crate) max_items: Option<usize>,
    pub(crate) format: Option<&'static str>,
    pub(crate) nullable: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// Fields by name; those that must be there; groups of which at most one may be there.
    Object {
        fields: Vec<(&'static str, Schema)>,
        required: &'static [&'static str],
        one_of: &'static [&'static str],
    },
    /// Any keys, values alike.
    Map(Box<Schema>),
    List(Box<Schema>),
    Text,
    Integer,
    Number,
    Boolean,
    /// Anything at all; unknown fields stay.
    Open(Vec<(&'static str, Schema)>),
}

/// An object with these fields and no others.
#[must_use]
pub fn object(fields: Vec<(&'static str, Schema)>) -> Schema {
    Schema::of(Shape::Object { fields, required: &[], one_of: &[] })
}

/// An object of which some fields are known and others may be there.
#[must_use]
pub fn open(fields: Vec<(&'static str, Schema)>) -> Schema {
    Schema::of(Shape::Open(fields))
}

/// Values under any keys.
#[must_use]
pub fn map(values: Schema) -> Schema {
    Schema::of(Shape::Map(Box::new(values)))
}

/// A list.
#[must_use]
pub fn list(items: Schema) -> Schema {
    Schema::of(Shape::List(Box::new(items)))
}

/// Text.
#[must_use]
pub fn text() -> Schema {
    Schema::of(Shape::Text)
}

/// Text that is one of these.
#[must_use]
pub fn one_of(values: &'static [&'static str]) -> Schema {
    Schema { values, ..text() }
}

/// A 32-bit integer.
#[must_use]
pub fn int32() -> Schema {
    Schema { format: Some("int32"), ..Schema::of(Shape::Integer) }
}

/// An unsigned 32-bit integer.
#[must_use]
pub fn uint32() -> Schema {
    Schema { minimum: Some(0.0), maximum: Some(f64::from(u32::MAX)), ..Schema::of(Shape::Integer) }
}

/// An unsigned integer.
#[must_use]
pub fn unsigned() -> Schema {
    Schema { minimum: Some(0.0), ..Schema::of(Shape::Integer) }
}

/// A number with fractions.
#[must_use]
pub fn number() -> Schema {
    Schema { format: Some("double"), ..Schema::of(Shape::Number) }
}

/// True or false.
#[must_use]
pub fn boolean() -> Schema {
    Schema::of(Shape::Boolean)
}

// === impl Schema ===

impl Schema {
    fn of(shape: Shape) -> Self {
        Self {
            shape,
            values: &[],
            minimum: None,
            maximum: None,
            min_length: None,
            max_items: None,
            format: None,
            nullable: false,
        }
    }

    /// Fields that must be there.
    #[must_use]
    pub fn required(mut self, names: &'static [&'static str]) -> Self {
        if let Shape::Object { required, .. } = &mut self.shape {
            *required = names;
        }
        self
    }

    /// Fields of which at most one may be there.
    #[must_use]
    pub fn exclusive(mut self, names: &'static [&'static str]) -> Self {
        if let Shape::Object { one_of, .. } = &mut self.shape {
            *one_of = names;
        }
        self
    }

    /// Bounds of a number.
    #[must_use]
    pub fn between(self, minimum: f64, maximum: f64) -> Self {
        Self { minimum: Some(minimum), maximum: Some(maximum), ..self }
    }

    /// Text that must not be empty.
    #[must_use]
    pub fn filled(self) -> Self {
        Self { min_length: Some(1), ..self }
    }

    /// Bound of a list.
    #[must_use]
    pub fn at_most(self, items: usize) -> Self {
        Self { max_items: Some(items), ..self }
    }

    /// May be null.
    #[must_use]
    pub fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }

    /// The schema as `openAPIV3Schema` has it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut schema = match &self.shape {
            Shape::Object { fields, required, one_of } => object_json(fields, required, one_of),
            Shape::Open(fields) => {
                let mut schema = object_json(fields, &[], &[]);
                schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
                schema
            }
            Shape::Map(values) => typed("object", [("additionalProperties", values.to_json())]),
            Shape::List(items) => typed("array", [("items", items.to_json())]),
            Shape::Text => typed("string", []),
            Shape::Integer => typed("integer", []),
            Shape::Number => typed("number", []),
            Shape::Boolean => typed("boolean", []),
        };
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                schema.insert(key.to_owned(), value);
            }
        };
        set("enum", (!self.values.is_empty()).then(|| json!(self.values)));
        set("minimum", self.minimum.map(whole));
        set("maximum", self.maximum.map(whole));
        set("minLength", self.min_length.map(Value::from));
        set("maxItems", self.max_items.map(Value::from));
        set("format", self.format.map(Value::from));
        set("nullable", self.nullable.then_some(Value::Bool(true)));
        Value::Object(schema)
    }
}

fn typed<const N: usize>(name: &str, more: [(&str, Value); N]) -> Map<String, Value> {
    let mut schema = Map::from_iter([("type".to_owned(), Value::from(name))]);
    schema.extend(more.map(|(key, value)| (key.to_owned(), value)));
    schema
}

fn object_json(fields: &[(&'static str, Schema)], required: &[&str], one_of: &[&str]) -> Map<String, Value> {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.to_json())).collect();
    let mut schema = typed("object", []);
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), Value::Object(properties));
    }
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if !one_of.is_empty() {
        let each: Vec<Value> = one_of.iter().map(|name| json!({ "required": [name] })).collect();
        let none = json!({ "not": { "anyOf": each } });
        schema.insert("oneOf".to_owned(), std::iter::once(none).chain(each.clone()).collect());
    }
    schema
}

/// Bounds are whole numbers, and JSON readers want them without a fraction.
fn whole(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "bounds are at most 2^32")]
    let whole = value as i64;
    Value::from(whole)
}
