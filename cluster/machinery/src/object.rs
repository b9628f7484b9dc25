//! Metadata of an object that is kept as JSON.

use serde_json::{Map, Value, json};

use crate::gvk::GroupVersionKind;

/// Reading and writing the metadata of an object. Reading never fails: what is absent or of the wrong type reads as empty.
pub trait Object {
    /// A string field of `metadata`; empty if absent.
    fn meta_str(&self, field: &str) -> &str;
    /// `metadata`, if it is there.
    fn meta(&self) -> Option<&Map<String, Value>>;
    /// `metadata`, created if it is not there.
    fn meta_mut(&mut self) -> &mut Map<String, Value>;
    /// `apiVersion`.
    fn api_version(&self) -> &str;
    /// `kind`.
    fn kind(&self) -> &str;

    /// `apiVersion` and `kind` together; `None` if either is missing.
    fn gvk(&self) -> Option<GroupVersionKind> {
        let version: crate::GroupVersion = self.api_version().parse().ok()?;
        if self.kind().is_empty() { None } else { Some(version.kind(self.kind().to_owned())) }
    }

    /// `metadata.name`.
    fn name(&self) -> &str {
        self.meta_str("name")
    }
    /// `metadata.namespace`; empty for cluster-scoped objects.
    fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }
    /// `metadata.uid`.
    fn uid(&self) -> &str {
        self.meta_str("uid")
    }
    /// `metadata.resourceVersion` as it is written.
    fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }
    /// `metadata.generation`, 0 if absent.
    fn generation(&self) -> i64 {
        self.meta().and_then(|meta| meta.get("generation")).and_then(Value::as_i64).unwrap_or(0)
    }
    /// Whether `metadata.deletionTimestamp` is set.
    fn is_terminating(&self) -> bool {
        !self.meta_str("deletionTimestamp").is_empty()
    }
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str> {
        self.meta()?.get("labels")?.get(key)?.as_str()
    }
    /// The value of an annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta()?.get("annotations")?.get(key)?.as_str()
    }
    /// `metadata.finalizers`.
    fn finalizers(&self) -> Vec<&str> {
        let list = self.meta().and_then(|meta| meta.get("finalizers")).and_then(Value::as_array);
        list.map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }
    /// `metadata.ownerReferences`.
    fn owner_references(&self) -> &[Value] {
        let list = self.meta().and_then(|meta| meta.get("ownerReferences")).and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    }
    /// The owner reference with `controller: true`.
    fn controller(&self) -> Option<&Value> {
        self.owner_references().iter().find(|owner| owner["controller"] == true)
    }
    /// Sets a field of `metadata`; null removes it.
    fn set_meta(&mut self, field: &str, value: impl Into<Value>)
    where
        Self: Sized,
    {
        match value.into() {
            Value::Null => {
                self.meta_mut().remove(field);
            }
            value => {
                self.meta_mut().insert(field.to_owned(), value);
            }
        }
    }
    /// Sets `metadata.resourceVersion`.
    fn set_resource_version(&mut self, revision: u64)
    where
        Self: Sized,
    {
        self.set_meta("resourceVersion", revision.to_string());
    }
}

impl Object for Value {
    fn meta_str(&self, field: &str) -> &str {
        self.meta().and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or_default()
    }

    fn meta(&self) -> Option<&Map<String, Value>> {
        self.get("metadata")?.as_object()
    }

    fn meta_mut(&mut self) -> &mut Map<String, Value> {
        if !self.is_object() {
            *self = json!({});
        }
        if !self["metadata"].is_object() {
            self["metadata"] = json!({});
        }
        self["metadata"].as_object_mut().expect("metadata was just made an object")
    }

    fn api_version(&self) -> &str {
        self.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    fn kind(&self) -> &str {
        self.get("kind").and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}, "finalizers": ["f"],
            "ownerReferences": [{"uid": "1"}, {"uid": "2", "controller": true}], "generation": 3}});
        assert_eq!((pod.name(), pod.namespace(), pod.generation()), ("a", "", 3));
        assert_eq!(pod.label("x"), Some("y"));
        assert_eq!(pod.finalizers(), ["f"]);
        assert_eq!(pod.controller().unwrap()["uid"], "2");
        assert_eq!(pod.gvk().unwrap().to_string(), "v1, Kind=Pod");
        pod.set_resource_version(7);
        assert_eq!(pod.resource_version(), "7");
        pod.set_meta("resourceVersion", Value::Null);
        assert!(pod.meta().unwrap().get("resourceVersion").is_none());
        assert!(!pod.is_terminating());
    }

    #[test]
    fn rubbish_reads_as_empty() {
        for mut value in
            [json!(null), json!(3), json!([]), json!({"metadata": 3}), json!({"metadata": {"name": 1}})]
        {
            assert_eq!(value.name(), "");
            assert!(value.gvk().is_none() && value.finalizers().is_empty() && value.controller().is_none());
            value.set_meta("name", "x");
            assert_eq!(value.name(), "x");
        }
    }
}
