//! Sets of fields as trees, and their `fieldsV1` form.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of field paths. Keys are path elements as `fieldsV1` writes them: `f:name`, `k:{"key":"value"}`, `v:"value"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) BTreeMap<String, Node>);

/// One element: whether the path itself is in the set, and what is below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) owned: bool,
    pub(crate) below: Fields,
}

// === impl Node ===

impl Node {
    fn is_empty(&self) -> bool {
        !self.owned && self.below.is_empty()
    }
}

// === impl Fields ===

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let mut result = BTreeMap::new();
        let nothing = Node::default();
        for key in self.0.keys().chain(other.0.keys().filter(|key| !self.0.contains_key(*key))) {
            let (a, b) = (self.0.get(key).unwrap_or(&nothing), other.0.get(key).unwrap_or(&nothing));
            let node = Node { owned: keep(a.owned, b.owned), below: a.below.combine(&b.below, keep) };
            if !node.is_empty() {
                result.insert(key.clone(), node);
            }
        }
        Self(result)
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    /// Every path as people write it: `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(&mut String::new(), &mut paths);
        paths
    }

    fn walk(&self, path: &mut String, paths: &mut Vec<String>) {
        let length = path.len();
        for (key, node) in &self.0 {
            match key.split_once(':') {
                Some(("f", name)) => {
                    path.push('.');
                    path.push_str(name);
                }
                Some(("k", keys)) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let list: Vec<String> =
                        keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    path.push_str(&format!("[{}]", list.join(",")));
                }
                Some((_, value)) => path.push_str(&format!("[={value}]")),
                None => {}
            }
            if node.owned {
                paths.push(path.clone());
            }
            node.below.walk(path, paths);
            path.truncate(length);
        }
    }

    /// Reads `fieldsV1`.
    pub(crate) fn read(value: &Value) -> Self {
        Self::read_at(value, 0)
    }

    fn read_at(value: &Value, depth: usize) -> Self {
        let mut result = BTreeMap::new();
        if depth < 64 {
            for (key, below) in value.as_object().into_iter().flatten().filter(|(key, _)| *key != ".") {
                let fields = Self::read_at(below, depth + 1);
                let owned = fields.is_empty() || below.get(".").is_some();
                result.insert(key.clone(), Node { owned, below: fields });
            }
        }
        Self(result)
    }

    /// The `fieldsV1` form.
    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, node) in &self.0 {
            let mut below = node.below.to_value();
            if node.owned && !node.below.is_empty() {
                below["."] = json!({});
            }
            map.insert(key.clone(), below);
        }
        Value::Object(map)
    }

    /// Removes a path of plain names and all below it.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let key = format!("f:{first}");
        if rest.is_empty() {
            self.0.remove(&key);
        } else if let Some(node) = self.0.get_mut(&key) {
            node.below.remove(rest);
            if node.is_empty() {
                self.0.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_and_combine() {
        let text = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}}, "f:replicas": {}}});
        let set = Fields::read(&text);
        assert_eq!(set.to_value(), text);
        let other = Fields::read(&json!({"f:spec": {"f:replicas": {}}}));
        assert_eq!(set.intersection(&other), other);
        assert_eq!(set.difference(&other).union(&other), set);
        assert_eq!(other.paths(), [".spec.replicas"]);
        assert!(set.paths().contains(&".spec.containers[name=\"a\"].image".to_owned()));
    }
}
