//! Objects as Kubernetes has them, read loosely.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshd_model::{ObjectKey, Secret};
use policies_api::Kind;
use serde_json::Value;

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Namespaces.
    Namespace,
    /// Nodes.
    Node,
    /// Pods.
    Pod,
    /// Services.
    Service,
    /// Endpoint slices.
    EndpointSlice,
    /// The mesh's configuration.
    MeshConfig,
    /// Certificates of gateways.
    Secret,
    /// Policy objects.
    Policy(Kind),
}

/// What is needed of an object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its namespace, empty when it has none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its generation.
    pub generation: i64,
    /// Its resource version.
    pub resource_version: Arc<str>,
    /// Seconds since 1970 of its creation.
    pub created: i64,
    /// When its deletion was asked to be complete, as the object says it; none while it is to stay.
    pub deleted: Option<Arc<str>>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Kind and name of the controller that owns it.
    pub owner: Option<(String, String)>,
}

/// An object: metadata, and everything else as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// Metadata.
    pub meta: Meta,
    /// `spec`, `status`, `data` and whatever else it has.
    pub data: Value,
}

// === impl Source ===

impl Source {
    /// Every kind that is watched.
    pub fn all() -> impl Iterator<Item = Self> {
        let core = [
            Self::Namespace,
            Self::Node,
            Self::Pod,
            Self::Service,
            Self::EndpointSlice,
            Self::MeshConfig,
            Self::Secret,
        ];
        core.into_iter().chain(Kind::ALL.into_iter().map(Self::Policy))
    }

    /// The source of an object by its `kind`; none when the mesh does not read it.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<Self> {
        Some(match kind {
            "Namespace" => Self::Namespace,
            "Node" => Self::Node,
            "Pod" => Self::Pod,
            "Service" => Self::Service,
            "EndpointSlice" => Self::EndpointSlice,
            "ConfigMap" => Self::MeshConfig,
            "Secret" => Self::Secret,
            other => Self::Policy(Kind::by_name(other)?),
        })
    }
}

// === impl Meta ===

impl Meta {
    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        (Arc::clone(&self.namespace), Arc::clone(&self.name))
    }
}

// === impl Object ===

impl Object {
    /// Reads a whole object; for files, where no API server has filled anything in.
    #[must_use]
    pub fn from_json(mut value: Value) -> Self {
        let metadata = value.as_object_mut().and_then(|it| it.remove("metadata")).unwrap_or_default();
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        let texts = |key: &str| {
            let map = metadata.get(key).and_then(Value::as_object);
            map.into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect()
        };
        let owners = metadata.get("ownerReferences").and_then(Value::as_array);
        let owner = owners.into_iter().flatten().find(|it| it["controller"] == true);
        let created =
            text("creationTimestamp").parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
        let meta = Meta {
            namespace: text("namespace").into(),
            name: text("name").into(),
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or_default(),
            resource_version: text("resourceVersion").into(),
            created,
            deleted: Some(text("deletionTimestamp")).filter(|it| !it.is_empty()).map(Into::into),
            labels: texts("labels"),
            annotations: texts("annotations"),
            owner: owner
                .and_then(|it| Some((it["kind"].as_str()?.to_owned(), it["name"].as_str()?.to_owned()))),
        };
        Self { meta, data: value }
    }

    /// Text at a JSON pointer; empty when there is none.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.data.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The entries of a list at a JSON pointer.
    pub(super) fn list(&self, pointer: &str) -> &[Value] {
        self.data.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Certificate, key and roots of a secret, under Kubernetes' or Istio's keys; none when it holds no certificate.
    pub(super) fn certificates(&self) -> Option<Secret> {
        use base64::Engine;
        let entry = |names: &[&str]| -> Vec<u8> {
            let encoded = names.iter().find_map(|name| self.data.get("data")?.get(*name)?.as_str());
            encoded
                .and_then(|it| base64::engine::general_purpose::STANDARD.decode(it).ok())
                .unwrap_or_default()
        };
        let secret = Secret {
            certificate: entry(&["tls.crt", "cert"]),
            private_key: entry(&["tls.key", "key"]),
            ca_certificate: entry(&["ca.crt", "cacert"]),
        };
        let has_pair = !secret.certificate.is_empty() && !secret.private_key.is_empty();
        (has_pair || !secret.ca_certificate.is_empty()).then_some(secret)
    }
}
