//! Structural schemas, compiled from `openAPIV3Schema`.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::cel::Rule;
use crate::object::{items, text};

/// The depth at which a schema stops being looked at.
const DEPTH_MAX: usize = 64;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Type {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// How a list is merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Structural {
    pub(crate) kind: Type,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(crate) atomic_map: bool,
    pub(crate) list_type: ListType,
    pub(crate) properties: BTreeMap<Box<str>, Structural>,
    pub(crate) items: Option<Box<Structural>>,
    pub(crate) additional: Option<Box<Structural>>,
    pub(crate) default: Option<Value>,
    pub(crate) required: Vec<String>,
    pub(crate) checks: Option<Box<Checks>>,
    pub(crate) rules: Vec<Rule>,
    /// This node or one below has rules.
    pub(crate) has_rules: bool,
    /// This node or one below has a default.
    pub(crate) has_defaults: bool,
}

/// Validations beyond the type.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) enumeration: Vec<Value>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) lengths: (Option<u64>, Option<u64>),
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: String,
    pub(crate) counts: (Option<u64>, Option<u64>),
    pub(crate) unique: bool,
    pub(crate) sizes: (Option<u64>, Option<u64>),
    pub(crate) all_of: Vec<Structural>,
    pub(crate) any_of: Vec<Structural>,
    pub(crate) one_of: Vec<Structural>,
    pub(crate) not: Option<Structural>,
}

// === impl Type ===

impl Type {
    fn parse(text: &str) -> Self {
        match text {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => Type::Any,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Type::Any => "any",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

// === impl Structural ===

impl Structural {
    /// Compiles a schema.
    pub(crate) fn compile(schema: &Value) -> Self {
        Self::at_depth(schema, 0)
    }

    fn at_depth(schema: &Value, depth: usize) -> Self {
        if depth > DEPTH_MAX || !schema.is_object() {
            return Self { preserve: true, ..Self::default() };
        }
        let below = |value: &Value| Self::at_depth(value, depth + 1);
        let flag = |key: &str| schema[key] == true;
        let properties: BTreeMap<Box<str>, Self> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str().into(), below(schema)))
            .collect();
        let additional = match &schema["additionalProperties"] {
            Value::Bool(true) => Some(Box::new(Self { preserve: true, ..Self::default() })),
            Value::Object(_) => Some(Box::new(below(&schema["additionalProperties"]))),
            _ => None,
        };
        let items_schema = schema["items"].is_object().then(|| Box::new(below(&schema["items"])));
        let list_type = match text(schema, "/x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map(strings(schema, "/x-kubernetes-list-map-keys")),
            _ => ListType::Atomic,
        };
        let mut node = Self {
            kind: Type::parse(text(schema, "/type")),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            atomic_map: text(schema, "/x-kubernetes-map-type") == "atomic",
            list_type,
            properties,
            items: items_schema,
            additional,
            default: schema.get("default").cloned(),
            required: strings(schema, "/required"),
            checks: Checks::read(schema, depth).map(Box::new),
            rules: items(schema, "/x-kubernetes-validations").iter().map(Rule::read).collect(),
            has_rules: false,
            has_defaults: false,
        };
        let children =
            || node.properties.values().chain(node.items.as_deref()).chain(node.additional.as_deref());
        let has_rules = !node.rules.is_empty() || children().any(|child| child.has_rules);
        let has_defaults = node.default.is_some() || children().any(|child| child.has_defaults);
        (node.has_rules, node.has_defaults) = (has_rules, has_defaults);
        node
    }

    /// The schema of a map's entry.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}

fn strings(value: &Value, pointer: &str) -> Vec<String> {
    items(value, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

// === impl Checks ===

impl Checks {
    fn read(schema: &Value, depth: usize) -> Option<Self> {
        const KEYS: &[&str] = &[
            "enum",
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "pattern",
            "format",
            "minItems",
            "maxItems",
            "uniqueItems",
            "minProperties",
            "maxProperties",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !KEYS.iter().any(|key| schema.get(key).is_some()) {
            return None;
        }
        let number = |key: &str| schema[key].as_u64();
        let list = |key: &str| -> Vec<Structural> {
            schema[key].as_array().into_iter().flatten().map(|s| Structural::at_depth(s, depth + 1)).collect()
        };
        let bound = |key: &str, exclusive: &str| schema[key].as_f64().map(|n| (n, schema[exclusive] == true));
        Some(Self {
            enumeration: schema["enum"].as_array().cloned().unwrap_or_default(),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema["multipleOf"].as_f64(),
            lengths: (number("minLength"), number("maxLength")),
            pattern: schema["pattern"].as_str().and_then(|p| Regex::new(p).ok()),
            format: text(schema, "/format").to_owned(),
            counts: (number("minItems"), number("maxItems")),
            unique: schema["uniqueItems"] == true,
            sizes: (number("minProperties"), number("maxProperties")),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: schema["not"].is_object().then(|| Structural::at_depth(&schema["not"], depth + 1)),
        })
    }
}
