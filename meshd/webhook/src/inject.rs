//! Adds the sidecar to a pod: the decision, the container, its volumes, labels and annotations, and rewritten probes.
//!
//! Names, mounts, environment and annotations are Istio's, so that dashboards, queries and habits work. The sidecar is a native one (an
//! init container that stays), needs no capability, and its interception rules are made by the node: pods pass Pod Security *restricted*.

mod decision;
mod metadata;
mod probes;
mod proxy_config;
mod template;

pub use decision::{Decision, decide};

use crate::review::Answer;
use policies_api::names::{SIDECAR_CONTAINER, annotations, labels};
use serde_json::{Map, Value, json};

/// What the mesh says about all sidecars.
#[derive(Debug, Clone)]
pub struct Config {
    /// Image of the sidecar with its tag.
    pub image: String,
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Name of the cluster in metrics.
    pub cluster_id: String,
    /// Where sidecars find the control plane: `host:port`.
    pub discovery_address: String,
    /// Level of the sidecars' own logs, such as `info`.
    pub log_level: String,
}

/// Which of the two shapes a pod gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// A sidecar beside the pod's own containers.
    Sidecar,
    /// The pod's own container `istio-proxy` becomes a gateway.
    Gateway,
}

/// Answers a review about a pod. `namespace` is the request's: a pod to be created need not name it.
#[must_use]
pub fn pod(config: &Config, namespace: &str, pod: &Value) -> Answer {
    match decide(namespace, pod) {
        Decision::Skip(_) => Answer::Allow(Vec::new()),
        Decision::Refuse(message) => Answer::Deny { code: 400, message },
        Decision::Inject(template) => match injected(config, template, namespace, pod) {
            Ok(injected) => Answer::Patch(json_patch::diff(pod, &injected)),
            Err(message) => Answer::Deny { code: 400, message },
        },
    }
}

/// The pod with its sidecar.
///
/// # Errors
/// When the pod's annotations ask for what a sidecar cannot do: says which.
pub fn injected(config: &Config, template: Template, namespace: &str, pod: &Value) -> Result<Value, String> {
    let mut pod = pod.clone();
    let workload = metadata::Workload::of(namespace, &pod);
    let probers = if template == Template::Sidecar { probes::rewrite(&mut pod) } else { Map::new() };
    let mut container = template::container(config, template, &workload, &pod, probers);
    let own = proxy_config::environment(&pod)?;
    let environment = list(&mut container, "env");
    environment.retain(|one| own.iter().all(|other| one["name"] != other["name"]));
    environment.extend(own);
    match template {
        Template::Sidecar => {
            let first = list(&mut pod["spec"], "initContainers");
            first.insert(0, container);
        }
        Template::Gateway => {
            for own in list(&mut pod["spec"], "containers") {
                if own["name"] == SIDECAR_CONTAINER {
                    template::fill(own, &container);
                }
            }
        }
    }
    let volumes = template::volumes();
    let names: Vec<Value> = volumes.iter().map(|volume| volume["name"].clone()).collect();
    list(&mut pod["spec"], "volumes").extend(volumes);
    annotate(&mut pod, &workload, template, &names);
    Ok(pod)
}

fn annotate(pod: &mut Value, workload: &metadata::Workload, template: Template, volumes: &[Value]) {
    let own = object(&mut pod["metadata"], "labels");
    own.entry(labels::TLS_MODE).or_insert(json!("istio"));
    own.entry(labels::CANONICAL_NAME).or_insert(json!(workload.canonical_name));
    own.entry(labels::CANONICAL_REVISION).or_insert(json!(workload.canonical_revision));
    own.entry(labels::REVISION).or_insert(json!("default"));
    let (init, plain) = match template {
        Template::Sidecar => (json!([SIDECAR_CONTAINER]), Value::Null),
        Template::Gateway => (Value::Null, json!([SIDECAR_CONTAINER])),
    };
    let status = json!({"initContainers": init, "containers": plain, "volumes": volumes, "imagePullSecrets": null, "revision": "default"});
    let notes = object(&mut pod["metadata"], "annotations");
    if template == Template::Sidecar {
        // The node's network code takes this annotation as the order to intercept; a gateway is not intercepted.
        notes.insert(annotations::STATUS.into(), json!(status.to_string()));
        if let Some(first) = workload.first_container.as_deref() {
            notes.entry("kubectl.kubernetes.io/default-container").or_insert(json!(first));
            notes.entry("kubectl.kubernetes.io/default-logs-container").or_insert(json!(first));
        }
    }
    // Metrics of application and sidecar come merged from the sidecar, which reads the original annotations from its environment.
    notes.insert("prometheus.io/scrape".into(), json!("true"));
    notes.insert("prometheus.io/port".into(), json!(policies_api::names::ports::MERGED_METRICS.to_string()));
    notes.insert("prometheus.io/path".into(), json!("/stats/prometheus"));
}

/// The list under `key`, made if it is missing.
fn list<'a>(value: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    let slot = &mut value[key];
    if !slot.is_array() {
        *slot = json!([]);
    }
    slot.as_array_mut().expect("an array was put there if there was none")
}

/// The object under `key`, made if it is missing.
fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = &mut value[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("an object was put there if there was none")
}

#[cfg(test)]
mod tests;
