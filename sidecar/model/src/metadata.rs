//! Metadata carried by routes, clusters, endpoints and requests: one JSON object for each namespace.

pub(crate) mod proto;

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Values by namespace, each namespace a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Metadata {
    namespaces: BTreeMap<Box<str>, Value>,
}

// === impl Metadata ===

impl Metadata {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// The object of one namespace.
    pub fn namespace(&self, namespace: &str) -> Option<&Value> {
        self.namespaces.get(namespace)
    }

    /// The value under `namespace` at `path`.
    pub fn find<'a>(&self, namespace: &str, path: impl IntoIterator<Item = &'a str>) -> Option<&Value> {
        path.into_iter().try_fold(self.namespace(namespace)?, |value, key| value.get(key))
    }

    /// The text at `namespace` / `key`.
    pub fn text(&self, namespace: &str, key: &str) -> Option<&str> {
        self.namespace(namespace)?.get(key)?.as_str()
    }

    /// Sets fields in the object of one namespace, beside what is there.
    pub fn extend(&mut self, namespace: &str, fields: impl IntoIterator<Item = (String, Value)>) {
        let object = self.namespaces.entry(namespace.into()).or_insert_with(|| Value::Object(Map::new()));
        match object {
            Value::Object(object) => object.extend(fields),
            other => *other = Value::Object(fields.into_iter().collect()),
        }
    }

    /// Takes over all of `other`; where both have a namespace, the fields of `other` stand beside those that are there.
    pub fn merge(&mut self, other: Self) {
        for (namespace, value) in other.namespaces {
            match value {
                Value::Object(fields) => self.extend(&namespace, fields),
                value => self.set(&namespace, value),
            }
        }
    }

    /// Sets the object of one namespace.
    pub fn set(&mut self, namespace: &str, value: Value) {
        self.namespaces.insert(namespace.into(), value);
    }
}
