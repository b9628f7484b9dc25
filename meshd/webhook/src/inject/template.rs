//! The sidecar's container and volumes.

use super::{Config, Template, metadata::Workload};
use policies_api::names::{
    PROXY_UID, ROOT_CERT_CONFIG_MAP, ROOT_CERT_KEY, SIDECAR_CONTAINER, TOKEN_AUDIENCE, ports,
};
use serde_json::{Map, Value, json};

/// Life of the token that the sidecar shows to the control plane; the kubelet renews it.
const TOKEN_SECONDS: u32 = 43_200;

/// The whole container for `pod`.
pub(super) fn container(
    config: &Config,
    template: Template,
    workload: &Workload,
    pod: &Value,
    probers: Map<String, Value>,
) -> Value {
    let mut container = json!({
        "name": SIDECAR_CONTAINER,
        "image": config.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["proxy", if template == Template::Gateway { "router" } else { "sidecar" }],
        "env": environment(config, workload, pod, &probers),
        "ports": [{"containerPort": ports::METRICS, "protocol": "TCP", "name": "http-envoy-prom"}],
        "resources": resources(&pod["metadata"]["annotations"]),
        "readinessProbe": health(15, 4),
        "securityContext": {
            "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true, "runAsUser": PROXY_UID, "runAsGroup": PROXY_UID,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"},
            {"name": "istio-data", "mountPath": "/var/lib/istio/data"},
            {"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
            {"name": "istio-podinfo", "mountPath": "/etc/istio/pod"},
        ],
    });
    if template == Template::Sidecar {
        container["restartPolicy"] = json!("Always");
        container["startupProbe"] = health(1, 600);
        // While the application still runs: what is under way ends, and nobody's connection is cut.
        container["lifecycle"] = json!({"preStop": {"exec": {"command": ["/sidecar", "drain"]}}});
    }
    container
}

/// Puts into a gateway's own container what it leaves open; its environment and mounts come first.
pub(super) fn fill(own: &mut Value, template: &Value) {
    let Some((own, template)) = own.as_object_mut().zip(template.as_object()) else { return };
    for (key, value) in template {
        match own.get_mut(key) {
            Some(Value::Array(list)) if matches!(key.as_str(), "env" | "volumeMounts" | "ports") => {
                let missing = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|new| !list.iter().any(|old| old["name"] == new["name"]));
                let missing: Vec<Value> = missing.cloned().collect();
                list.extend(missing);
            }
            Some(image) if key == "image" && *image != "auto" => {}
            Some(_) if key != "image" => {}
            _ => {
                own.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The volumes that the container mounts.
pub(super) fn volumes() -> Vec<Value> {
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    vec![
        json!({"name": "istio-data", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [field("labels", "metadata.labels"), field("annotations", "metadata.annotations")]}}),
        json!({"name": "istio-token", "projected": {"sources": [
            {"serviceAccountToken": {"path": "istio-token", "audience": TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS}},
        ]}}),
        json!({"name": "istiod-ca-cert", "configMap": {"name": ROOT_CERT_CONFIG_MAP, "items": [{"key": ROOT_CERT_KEY, "path": ROOT_CERT_KEY}]}}),
    ]
}

fn environment(
    config: &Config,
    workload: &Workload,
    pod: &Value,
    probers: &Map<String, Value>,
) -> Vec<Value> {
    let text = |name: &str, value: &str| json!({"name": name, "value": value});
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let own = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = own.iter().filter_map(|c| c["name"].as_str()).collect();
    let pod_ports: Vec<&Value> = own.iter().filter_map(|c| c["ports"].as_array()).flatten().collect();
    let mut all = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("INSTANCE_IP", "status.podIP"),
        field("HOST_IP", "status.hostIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        text("DISCOVERY_ADDRESS", &config.discovery_address),
        text("TRUST_DOMAIN", &config.trust_domain),
        text(
            "LOG_LEVEL",
            pod["metadata"]["annotations"]["sidecar.istio.io/logLevel"].as_str().unwrap_or(&config.log_level),
        ),
        text("ISTIO_META_CLUSTER_ID", &config.cluster_id),
        text("ISTIO_META_MESH_ID", &config.trust_domain),
        text("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        text("ISTIO_META_WORKLOAD_NAME", &workload.name),
        text("ISTIO_META_OWNER", &workload.owner),
        text("ISTIO_META_APP_CONTAINERS", &names.join(",")),
        text("ISTIO_META_POD_PORTS", &json!(pod_ports).to_string()),
    ];
    if !probers.is_empty() {
        all.push(text("ISTIO_KUBE_APP_PROBERS", &json!(probers).to_string()));
    }
    let notes = &pod["metadata"]["annotations"];
    if notes["prometheus.io/scrape"] == "true" {
        let scrape = json!({"scrape": "true", "path": notes["prometheus.io/path"].as_str().unwrap_or("/metrics"), "port": notes["prometheus.io/port"].as_str().unwrap_or("80")});
        all.push(text("ISTIO_PROMETHEUS_ANNOTATIONS", &scrape.to_string()));
    }
    all
}

/// Istio's requests and limits, or what the pod's annotations say.
fn resources(annotations: &Value) -> Value {
    let or = |key: &str, default: &str| annotations[key].as_str().unwrap_or(default).to_owned();
    json!({
        "requests": {"cpu": or("sidecar.istio.io/proxyCPU", "100m"), "memory": or("sidecar.istio.io/proxyMemory", "128Mi")},
        "limits": {"cpu": or("sidecar.istio.io/proxyCPULimit", "2000m"), "memory": or("sidecar.istio.io/proxyMemoryLimit", "1024Mi")},
    })
}

fn health(period_seconds: u32, failures: u32) -> Value {
    json!({"httpGet": {"path": "/healthz/ready", "port": ports::HEALTH, "scheme": "HTTP"}, "periodSeconds": period_seconds, "timeoutSeconds": 3, "failureThreshold": failures})
}
