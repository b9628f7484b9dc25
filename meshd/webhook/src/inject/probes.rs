//! Probes of the application go to the sidecar, which asks the application over loopback: the kubelet has no identity of the mesh.

use policies_api::names::{annotations, ports::MERGED_METRICS};
use serde_json::{Map, Value, json};

const KINDS: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
const OPT_OUT: &str = "sidecar.istio.io/rewriteAppHTTPProbers";

/// Rewrites http, tcp and gRPC probes of all containers; returns the originals by path, for the sidecar's environment.
pub(super) fn rewrite(pod: &mut Value) -> Map<String, Value> {
    let mut originals = Map::new();
    if pod["metadata"]["annotations"][OPT_OUT] == "false"
        || pod["metadata"]["annotations"][annotations::STATUS].is_string()
    {
        return originals;
    }
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let ports = container["ports"].clone();
            for (kind, short) in KINDS {
                if let Some(original) =
                    take(&mut container[kind], &ports, &format!("/app-health/{name}/{short}"))
                {
                    originals.insert(format!("/app-health/{name}/{short}"), original);
                }
            }
        }
    }
    // `container[kind]` above put nulls where there was no probe.
    for list in ["containers", "initContainers"] {
        for container in
            pod["spec"][list].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut)
        {
            container.retain(|_, value| !value.is_null());
        }
    }
    originals
}

/// Points one probe at `path` on the sidecar; returns what it was, with ports as numbers. Exec probes stay.
fn take(probe: &mut Value, ports: &Value, path: &str) -> Option<Value> {
    let probe = probe.as_object_mut()?;
    let action = ["httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .find(|action| probe.get(*action).is_some_and(Value::is_object))?;
    let mut original = probe.remove(action)?;
    if action == "httpGet" && original["host"].as_str().is_some_and(|host| !host.is_empty()) {
        // It asks another host: not the application's own health.
        probe.insert(action.into(), original);
        return None;
    }
    original["port"] = number(&original["port"], ports);
    probe.insert("httpGet".into(), json!({"path": path, "port": MERGED_METRICS, "scheme": "HTTP"}));
    let timeout = probe.get("timeoutSeconds").cloned().unwrap_or(json!(1));
    Some(json!({action: original, "timeoutSeconds": timeout}))
}

/// A named port becomes the container's number for it.
fn number(port: &Value, ports: &Value) -> Value {
    let Some(name) = port.as_str() else { return port.clone() };
    let found = ports
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| p["name"] == name)
        .map(|p| p["containerPort"].clone());
    found.or_else(|| name.parse::<u16>().ok().map(Into::into)).unwrap_or_else(|| port.clone())
}
