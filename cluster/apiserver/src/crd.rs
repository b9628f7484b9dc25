//! Custom resources: definitions become kinds; their schemas prune, default and validate.

pub(crate) mod cel;
mod columns;
mod controller;
mod definition;
mod prune;
pub(crate) mod structural;
mod validate;

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Value, json};

pub(crate) use controller::{Definitions, follow};
pub(crate) use definition::validate as validate_definition;

use crate::{
    error::FieldError,
    object::{items, text},
};
use structural::Structural;

/// One served version of a definition. The schema is compiled when it is first needed.
pub(crate) struct CustomVersion {
    /// The definition as it is stored; shared with the store.
    definition: Bytes,
    version: String,
    pub(crate) storage_version: String,
    /// Changes with the definition.
    pub(crate) revision: u64,
    several: bool,
    has_defaults: bool,
    status: bool,
    scale: Option<(String, String, Option<String>)>,
    selectable: Vec<String>,
    compiled: OnceLock<Compiled>,
}

struct Compiled {
    schema: Structural,
    preserve: bool,
}

// === impl CustomVersion ===

impl CustomVersion {
    /// `version` is an entry of `spec.versions`.
    fn new(definition: &Bytes, object: &Value, version: &Value, revision: u64) -> Self {
        let storage = items(object, "/spec/versions").iter().find(|v| v["storage"] == true);
        let pointer = |path: &str| path.replace('.', "/");
        let scale = version.pointer("/subresources/scale").map(|scale| {
            let selector = text(scale, "/labelSelectorPath");
            let selector = (!selector.is_empty()).then(|| pointer(selector));
            (pointer(text(scale, "/specReplicasPath")), pointer(text(scale, "/statusReplicasPath")), selector)
        });
        let fields = items(version, "/selectableFields").iter();
        Self {
            definition: definition.clone(),
            version: text(version, "/name").to_owned(),
            storage_version: storage.map_or("", |v| text(v, "/name")).to_owned(),
            revision,
            several: items(object, "/spec/versions").len() > 1,
            has_defaults: version["schema"].to_string().contains("\"default\":"),
            status: version.pointer("/subresources/status").is_some(),
            scale,
            selectable: fields.map(|f| text(f, "/jsonPath").trim_start_matches('.').to_owned()).collect(),
            compiled: OnceLock::new(),
        }
    }

    /// The schema as written.
    fn raw_schema(&self) -> (Value, bool) {
        let object: Value = serde_json::from_slice(&self.definition).unwrap_or_default();
        let preserve = object["spec"]["preserveUnknownFields"] == true;
        let version = items(&object, "/spec/versions").iter().find(|v| v["name"] == self.version.as_str());
        let schema = version.and_then(|v| v.pointer("/schema/openAPIV3Schema")).cloned();
        (
            schema.unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
            preserve,
        )
    }

    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            let (raw, preserve) = self.raw_schema();
            Compiled { schema: Structural::compile(&raw), preserve }
        })
    }

    /// Whether stored objects differ from what is shown.
    pub(crate) fn rewrites(&self) -> bool {
        self.several || self.has_defaults
    }

    pub(crate) fn has_status(&self) -> bool {
        self.status
    }

    /// JSON pointers of spec replicas, status replicas and selector.
    pub(crate) fn scale_paths(&self) -> Option<(String, String, Option<String>)> {
        self.scale.clone()
    }

    /// Fills in the schema's defaults.
    pub(crate) fn apply_defaults(&self, object: &mut Value) {
        if self.has_defaults {
            prune::defaults(&self.compiled().schema, object);
        }
    }

    /// Drops what the schema does not know; returns the paths.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let compiled = self.compiled();
        if compiled.preserve { Vec::new() } else { prune::prune(&compiled.schema, object) }
    }

    /// Checks an object against schema and rules.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let schema = &self.compiled().schema;
        validate::validate(schema, object, errors);
        if errors.is_empty() {
            validate::rules(schema, object, old, errors);
        }
    }

    /// The value of a field that selectors may name.
    pub(crate) fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        let known = self.selectable.iter().any(|f| f == field);
        known.then(|| match object.pointer(&format!("/{}", field.replace('.', "/"))) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        })
    }

    /// How server-side apply merges the field at `path`.
    pub(crate) fn schema(&self) -> &Structural {
        &self.compiled().schema
    }

    /// The schema as OpenAPI publishes it.
    pub(crate) fn openapi(&self) -> Value {
        self.raw_schema().0
    }
}

impl std::fmt::Debug for CustomVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CustomVersion").field("version", &self.version).finish_non_exhaustive()
    }
}

/// For tests: a version with this schema.
#[cfg(test)]
fn version_with(schema: &Value) -> CustomVersion {
    let version =
        json!({"name": "v1", "storage": true, "served": true, "schema": {"openAPIV3Schema": schema}});
    let object = json!({"spec": {"versions": [version]}});
    CustomVersion::new(&Bytes::from(object.to_string()), &object, &version, 1)
}
