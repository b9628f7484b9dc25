//! Whether a pod gets a sidecar. The webhook configuration has already asked the namespace's label; here the pod itself is asked.

use super::Template;
use policies_api::names::{SIDECAR_CONTAINER, annotations, labels};
use serde_json::Value;

/// What is done with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It gets a sidecar, or becomes a gateway.
    Inject(Template),
    /// It stays as it is, for this reason.
    Skip(&'static str),
    /// It cannot be created, for this reason.
    Refuse(String),
}

/// Namespaces whose pods never get a sidecar.
const NEVER: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
const TEMPLATES: &str = "inject.istio.io/templates";

/// Decides. The label `sidecar.istio.io/inject` beats the annotation of the same name.
#[must_use]
pub fn decide(namespace: &str, pod: &Value) -> Decision {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    if spec["hostNetwork"] == true {
        return Decision::Skip("the pod uses the node's network");
    }
    if NEVER.contains(&namespace) {
        return Decision::Skip("the namespace belongs to the cluster");
    }
    let says = metadata["labels"][labels::INJECT]
        .as_str()
        .or_else(|| metadata["annotations"][annotations::INJECT].as_str());
    if says.is_some_and(|value| matches!(value, "false" | "n" | "no" | "off" | "0")) {
        return Decision::Skip("the pod says no");
    }
    if metadata["annotations"][annotations::STATUS].is_string() {
        return Decision::Skip("the pod has a sidecar already");
    }
    let has = |list: &str| {
        spec[list].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == SIDECAR_CONTAINER))
    };
    match metadata["annotations"][TEMPLATES].as_str().map(str::trim) {
        None | Some("" | "sidecar") if has("containers") || has("initContainers") => {
            Decision::Refuse(format!(
                "a container is named `{SIDECAR_CONTAINER}`; rename it, or set the annotation {TEMPLATES}: gateway"
            ))
        }
        None | Some("" | "sidecar") => Decision::Inject(Template::Sidecar),
        Some("gateway") if has("containers") => Decision::Inject(Template::Gateway),
        Some("gateway") => {
            Decision::Refuse(format!("a gateway pod must have a container named `{SIDECAR_CONTAINER}`"))
        }
        Some(other) => {
            Decision::Refuse(format!("{TEMPLATES} is `{other}`; it must be `sidecar` or `gateway`"))
        }
    }
}
