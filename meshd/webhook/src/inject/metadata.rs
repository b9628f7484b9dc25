//! Who a pod belongs to: the names that metrics and policies use.

use policies_api::names::labels;
use serde_json::Value;

/// The workload of a pod.
#[derive(Debug)]
pub(super) struct Workload {
    /// Name of the Deployment (or other owner), or of the pod itself.
    pub(super) name: String,
    /// Istio's form of the owner: `kubernetes://apis/apps/v1/namespaces/<ns>/deployments/<name>`.
    pub(super) owner: String,
    pub(super) canonical_name: String,
    pub(super) canonical_revision: String,
    pub(super) first_container: Option<String>,
}

impl Workload {
    pub(super) fn of(namespace: &str, pod: &Value) -> Self {
        let metadata = &pod["metadata"];
        let own_name = metadata["name"]
            .as_str()
            .or_else(|| metadata["generateName"].as_str())
            .unwrap_or_default()
            .trim_end_matches('-');
        let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let controller = owners.iter().find(|owner| owner["controller"] == true).or(owners.first());
        let (name, kind, api) = match controller {
            Some(owner) => {
                let (name, kind) =
                    (owner["name"].as_str().unwrap_or(own_name), owner["kind"].as_str().unwrap_or("Pod"));
                match (
                    kind,
                    metadata["labels"]["pod-template-hash"]
                        .as_str()
                        .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-')),
                ) {
                    // A ReplicaSet's name is its Deployment's and the hash of the template.
                    ("ReplicaSet", Some(deployment)) => (deployment, "Deployment", "apis/apps/v1"),
                    _ => (
                        name,
                        kind,
                        owner["apiVersion"]
                            .as_str()
                            .map_or("api/v1", |api| if api.contains('/') { api } else { "api/v1" }),
                    ),
                }
            }
            None => (own_name, "Pod", "api/v1"),
        };
        let api = if api.starts_with("api") { api.to_owned() } else { format!("apis/{api}") };
        let label = |keys: &[&str]| {
            keys.iter()
                .find_map(|key| metadata["labels"][*key].as_str().filter(|v| !v.is_empty()))
                .map(str::to_owned)
        };
        Self {
            owner: format!("kubernetes://{api}/namespaces/{namespace}/{}s/{name}", kind.to_ascii_lowercase()),
            canonical_name: label(&[labels::CANONICAL_NAME, labels::APP_NAME, "app"])
                .unwrap_or_else(|| name.to_owned()),
            canonical_revision: label(&[labels::CANONICAL_REVISION, labels::APP_VERSION, "version"])
                .unwrap_or_else(|| "latest".into()),
            first_container: pod["spec"]["containers"][0]["name"].as_str().map(str::to_owned),
            name: name.to_owned(),
        }
    }
}
