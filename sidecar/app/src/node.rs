//! Who this proxy says it is: node identifier, metadata in Istio's form, workload labels.

use serde_json::{Map, Value, json};
use sidecar_proxy::NodeKind;
use sidecar_telemetry::Workload;

use crate::config::{Pod, Source};

/// Variables of the environment that become metadata, besides those that every pod has.
const META: &str = "ISTIO_META_";
/// Metadata that the injector passes on.
const META_NAMES: [&str; 9] = [
    "CLUSTER_ID",
    "MESH_ID",
    "NETWORK",
    "NODE_NAME",
    "WORKLOAD_NAME",
    "OWNER",
    "APP_CONTAINERS",
    "POD_PORTS",
    "INTERCEPTION_MODE",
];

/// `sidecar~<address>~<pod>.<namespace>~<namespace>.svc.cluster.local`
pub(crate) fn id(kind: NodeKind, pod: &Pod) -> String {
    let kind = match kind {
        NodeKind::Sidecar => "sidecar",
        NodeKind::Router => "router",
    };
    let address = pod.address.map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string());
    format!("{kind}~{address}~{}.{ns}~{ns}.svc.cluster.local", pod.name, ns = pod.namespace)
}

/// The node's metadata.
pub(crate) fn metadata(pod: &Pod, env: Source<'_>) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("NAME".into(), json!(pod.name));
    metadata.insert("NAMESPACE".into(), json!(pod.namespace));
    metadata.insert("SERVICE_ACCOUNT".into(), json!(pod.service_account));
    metadata.insert("LABELS".into(), json!(pod.labels));
    metadata.insert("ANNOTATIONS".into(), json!(pod.annotations));
    if let Some(ip) = pod.address {
        metadata.insert("INSTANCE_IPS".into(), json!(ip.to_string()));
    }
    for name in META_NAMES {
        if let Some(value) = env(&format!("{META}{name}")).filter(|value| !value.is_empty()) {
            metadata.insert(name.into(), json!(value));
        }
    }
    metadata
}

/// The canonical name of the workload: Istio's label, Kubernetes', `app`, or the workload's own name.
pub(crate) fn canonical_name<'a>(pod: &'a Pod, metadata: &'a Map<String, Value>) -> &'a str {
    let labels = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    let label = labels.into_iter().find_map(|name| pod.labels.get(name));
    label
        .map(String::as_str)
        .or_else(|| metadata.get("WORKLOAD_NAME").and_then(Value::as_str))
        .unwrap_or(&pod.name)
}

/// The workload, as metrics name it.
pub(crate) fn workload(pod: &Pod, metadata: &Map<String, Value>) -> Workload {
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    let label = |name: &str| pod.labels.get(name).map_or("", String::as_str);
    let revisions = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    let revision = revisions.into_iter().map(label).find(|value| !value.is_empty()).unwrap_or("latest");
    Workload {
        name: if text("WORKLOAD_NAME").is_empty() { pod.name.as_str() } else { text("WORKLOAD_NAME") }.into(),
        namespace: pod.namespace.as_str().into(),
        canonical_name: canonical_name(pod, metadata).into(),
        canonical_revision: revision.into(),
        app: label("app").into(),
        version: label("version").into(),
        cluster: text("CLUSTER_ID").into(),
    }
}
