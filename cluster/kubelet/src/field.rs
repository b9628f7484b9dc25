//! Values of `fieldRef`: what a pod may know of itself.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// Addresses a pod can be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// The pod's own, once it has one.
    pub(crate) pod: Option<IpAddr>,
    /// The node's.
    pub(crate) host: IpAddr,
}

/// The value at `path` (`metadata.labels['app']`, `status.podIP`); `None` when there is no such field.
pub(crate) fn value(pod: &Pod, path: &str, addresses: Addresses) -> Option<String> {
    let spec = pod::spec(pod);
    let text = match path {
        "metadata.name" => pod::name(pod).to_owned(),
        "metadata.namespace" => pod::namespace(pod).to_owned(),
        "metadata.uid" => pod::uid(pod).to_owned(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" | "status.hostIPs" => addresses.host.to_string(),
        "status.podIP" | "status.podIPs" => addresses.pod.map(|ip| ip.to_string()).unwrap_or_default(),
        _ => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match map {
                "metadata.labels" => pod.metadata.labels.as_ref(),
                "metadata.annotations" => pod.metadata.annotations.as_ref(),
                _ => return None,
            };
            map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
        }
    };
    Some(text)
}

/// `key="value"` lines in key order, quoted as Go quotes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _written = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u", "labels": {"b": "x\"y\n", "app": "web"}},
            "spec": {"containers": [], "nodeName": "node1"},
        }))
        .unwrap();
        let addresses =
            Addresses { pod: Some("10.0.0.2".parse().unwrap()), host: "172.30.0.11".parse().unwrap() };
        for (path, expected) in [
            ("metadata.labels", Some("app=\"web\"\nb=\"x\\\"y\\n\"")),
            ("metadata.labels['app']", Some("web")),
            ("metadata.annotations['none']", Some("")),
            ("status.podIP", Some("10.0.0.2")),
            ("status.hostIP", Some("172.30.0.11")),
            ("spec.nodeName", Some("node1")),
            ("spec.serviceAccountName", Some("default")),
            ("spec.unknown", None),
        ] {
            assert_eq!(value(&pod, path, addresses).as_deref(), expected, "{path}");
        }
    }
}
