//! Walking a value together with what its schema says of merging.

use serde_json::{Map, Value, json};

use crate::{
    crd::structural::{ListType, Structural},
    kinds::Kind,
    schema::{Shape, Topology, facts},
};

/// A place in a schema.
#[derive(Clone)]
pub(crate) enum Nav<'a> {
    BuiltIn(Shape, Topology),
    Custom(&'a Structural, Root),
    /// Nothing is known: maps are granular, lists atomic.
    Free,
}

/// Whether a custom node is a whole object, whose metadata is the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Yes,
    No,
}

/// How a value is owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As a whole.
    Atomic,
    /// Field by field.
    Map,
    /// A list whose elements are owned each.
    Set,
    /// A list of objects told apart by these keys.
    ListMap(Vec<String>),
}

// === impl Nav ===

impl<'a> Nav<'a> {
    pub(crate) fn of(kind: &'a Kind) -> Self {
        match (&kind.custom, kind.type_id) {
            (Some(custom), _) => Nav::Custom(custom.schema(), Root::Yes),
            (None, Some(id)) => Nav::BuiltIn(Shape::Ref(id), Topology::Default),
            (None, None) => Nav::Free,
        }
    }

    pub(crate) fn mode(&self, value: &Value) -> Mode {
        match value {
            Value::Object(_) => match self {
                Nav::BuiltIn(Shape::Ref(id), topology) => {
                    let atomic = *topology == Topology::Atomic
                        || facts().get(*id).atomic
                        || facts().get(*id).alias.is_some();
                    if atomic { Mode::Atomic } else { Mode::Map }
                }
                Nav::BuiltIn(Shape::Map(_), Topology::Default) | Nav::Free => Mode::Map,
                Nav::BuiltIn(Shape::Object, Topology::Default) => Mode::Map,
                Nav::BuiltIn(..) => Mode::Atomic,
                Nav::Custom(schema, _) if schema.atomic_map => Mode::Atomic,
                Nav::Custom(..) => Mode::Map,
            },
            Value::Array(_) => match self {
                Nav::BuiltIn(_, Topology::Set) => Mode::Set,
                Nav::BuiltIn(_, Topology::ListMap(keys)) => {
                    Mode::ListMap(keys.split(',').map(str::to_owned).collect())
                }
                Nav::Custom(schema, _) => match &schema.list_type {
                    ListType::Atomic => Mode::Atomic,
                    ListType::Set => Mode::Set,
                    ListType::Map(keys) => Mode::ListMap(keys.clone()),
                },
                _ => Mode::Atomic,
            },
            _ => Mode::Atomic,
        }
    }

    /// Whether `name` is a field of the type, rather than a key of a map.
    pub(crate) fn declares(&self, name: &str) -> bool {
        match self {
            Nav::BuiltIn(Shape::Ref(id), _) => facts().get(*id).field(name).is_some(),
            Nav::Custom(schema, root) => schema.properties.contains_key(name) || *root == Root::Yes,
            _ => false,
        }
    }

    pub(crate) fn field(&self, name: &str) -> Nav<'a> {
        match self {
            Nav::BuiltIn(Shape::Ref(id), _) => match facts().get(*id).field(name) {
                Some(field) => Nav::BuiltIn(field.shape.clone(), field.topology),
                None => Nav::Free,
            },
            Nav::BuiltIn(Shape::Map(item), _) => Nav::BuiltIn((**item).clone(), Topology::Default),
            Nav::Custom(_, Root::Yes) if name == "metadata" => {
                let id = facts().find("meta.v1.ObjectMeta");
                id.map_or(Nav::Free, |id| Nav::BuiltIn(Shape::Ref(id), Topology::Default))
            }
            Nav::Custom(schema, _) => {
                schema.property(name).map_or(Nav::Free, |below| Nav::Custom(below, Root::No))
            }
            _ => Nav::Free,
        }
    }

    pub(crate) fn item(&self) -> Nav<'a> {
        match self {
            Nav::BuiltIn(Shape::List(item), _) => Nav::BuiltIn((**item).clone(), Topology::Default),
            Nav::Custom(schema, _) => {
                schema.items.as_deref().map_or(Nav::Free, |below| Nav::Custom(below, Root::No))
            }
            _ => Nav::Free,
        }
    }

    /// The path element of a list's item.
    pub(crate) fn element(&self, mode: &Mode, item: &Value) -> String {
        let Mode::ListMap(keys) = mode else { return format!("v:{item}") };
        let mut map = Map::new();
        for key in keys {
            let value =
                item.get(key).filter(|value| !value.is_null()).cloned().or_else(|| self.key_default(key));
            if let Some(value) = value {
                map.insert(key.clone(), value);
            }
        }
        format!("k:{}", Value::Object(map))
    }

    /// Keys that may be left out because they have a default.
    fn key_default(&self, key: &str) -> Option<Value> {
        match self {
            Nav::BuiltIn(..) if key == "protocol" => Some(json!("TCP")),
            Nav::Custom(schema, _) => schema.items.as_ref()?.properties.get(key)?.default.clone(),
            _ => None,
        }
    }
}
