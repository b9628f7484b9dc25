//! The values that Kubernetes writes into pod specs.

use serde_json::{Value, json};

use crate::object::{default, items_mut, text};

/// Defaults of a pod template.
pub(crate) fn template(template: &mut Value) {
    if template.is_object() {
        pod_spec(&mut template["spec"]);
    }
}

/// Defaults of a pod spec.
pub(crate) fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    service_account(spec);
    let host_network = spec["hostNetwork"] == true;
    for list in ["/initContainers", "/containers", "/ephemeralContainers"] {
        for item in items_mut(spec, list) {
            container(item, host_network);
        }
    }
    for volume in items_mut(spec, "/volumes") {
        volume_source(volume);
    }
    for constraint in items_mut(spec, "/topologySpreadConstraints") {
        default(constraint, "whenUnsatisfiable", json!("DoNotSchedule"));
    }
}

/// The old and the new name of one field stay equal.
fn service_account(spec: &mut Value) {
    let (new, old) = (text(spec, "/serviceAccountName").to_owned(), text(spec, "/serviceAccount").to_owned());
    if !new.is_empty() {
        spec["serviceAccount"] = json!(new);
    } else if !old.is_empty() {
        spec["serviceAccountName"] = json!(old);
    }
}

fn container(container: &mut Value, host_network: bool) {
    default(container, "terminationMessagePath", json!("/dev/termination-log"));
    default(container, "terminationMessagePolicy", json!("File"));
    default(container, "resources", json!({}));
    let policy = if is_latest(text(container, "/image")) { "Always" } else { "IfNotPresent" };
    default(container, "imagePullPolicy", json!(policy));
    for port in items_mut(container, "/ports") {
        default(port, "protocol", json!("TCP"));
        if host_network {
            let number = port["containerPort"].clone();
            default(port, "hostPort", number);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[key].is_object() {
            probe(&mut container[key]);
        }
    }
    for hook in ["/lifecycle/postStart/httpGet", "/lifecycle/preStop/httpGet"] {
        if let Some(action) = container.pointer_mut(hook) {
            http_get(action);
        }
    }
    for env in items_mut(container, "/env") {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", json!("v1"));
        }
    }
    if let Some(resources) = container.get_mut("resources") {
        requests_from_limits(resources);
    }
    // serde_json's index operator leaves nulls where it looked.
    if let Some(map) = container.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

/// A limit without a request is also the request.
fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    default(resources, "requests", json!({}));
    for (name, quantity) in limits {
        default(&mut resources["requests"], &name, quantity);
    }
}

/// Whether an image reference has the tag `latest`, said or implied.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn probe(probe: &mut Value) {
    default(probe, "timeoutSeconds", json!(1));
    default(probe, "periodSeconds", json!(10));
    default(probe, "successThreshold", json!(1));
    default(probe, "failureThreshold", json!(3));
    // Zero means the default, as in Go.
    for (key, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe[key] == 0 {
            probe[key] = json!(value);
        }
    }
    if let Some(action) = probe.get_mut("httpGet") {
        http_get(action);
    }
    if let Some(action) = probe.get_mut("grpc") {
        default(action, "service", json!(""));
    }
}

fn http_get(action: &mut Value) {
    default(action, "path", json!("/"));
    default(action, "scheme", json!("HTTP"));
}

fn volume_source(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |map| map.keys().filter(|key| *key != "name").count());
    if sources == 0 {
        volume["emptyDir"] = json!({});
    }
    for key in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key) {
            default(source, "defaultMode", json!(0o644));
        }
    }
    if let Some(source) = volume.get_mut("hostPath")
        && source.get("type").is_none()
    {
        source["type"] = json!("");
    }
    field_refs(volume, "/downwardAPI/items");
    for source in items_mut(volume, "/projected/sources") {
        field_refs(source, "/downwardAPI/items");
        if let Some(token) = source.get_mut("serviceAccountToken") {
            default(token, "expirationSeconds", json!(3600));
        }
    }
}

fn field_refs(owner: &mut Value, list: &str) {
    for item in items_mut(owner, list) {
        if let Some(field) = item.get_mut("fieldRef") {
            default(field, "apiVersion", json!("v1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_writes() {
        let mut spec = json!({"containers": [{"name": "a", "image": "web:1", "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}}, "resources": {"limits": {"cpu": "1"}}}],
            "volumes": [{"name": "tmp"}, {"name": "c", "configMap": {"name": "x"}}]});
        pod_spec(&mut spec);
        assert_eq!(spec["restartPolicy"], "Always");
        let container = &spec["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["readinessProbe"]["httpGet"]["scheme"], "HTTP");
        assert_eq!(container["readinessProbe"]["failureThreshold"], 3);
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
        assert!(container.get("livenessProbe").is_none());
        assert_eq!(
            spec["volumes"],
            json!([{"name": "tmp", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}])
        );
        assert!(is_latest("localhost:5000/web") && is_latest("web:latest") && !is_latest("web@sha256:0"));
    }
}
