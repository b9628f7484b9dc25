//! Validation shared by kinds, in Kubernetes' words.

use std::{collections::HashSet, net::Ipv4Addr};

use cluster_machinery::name;
use serde_json::{Value, json};

use crate::{
    error::FieldError,
    object::{integer, items, text},
};

/// All keys and values of annotations together (Kubernetes: 256 KiB).
const ANNOTATION_BYTES_MAX: usize = 256 * 1024;

/// Checks a map of labels.
pub(crate) fn labels(labels: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        let of_key = name::check_label_key(key).into_iter().map(|why| (json!(key), why));
        let of_value = name::check_label_value(value.as_str().unwrap_or_default())
            .into_iter()
            .map(|why| (value.clone(), why));
        errors.extend(of_key.chain(of_value).map(|(wrong, why)| FieldError::invalid(field, wrong, why)));
    }
}

/// Checks `metadata` apart from the name.
pub(crate) fn metadata(object: &Value, errors: &mut Vec<FieldError>) {
    let metadata = &object["metadata"];
    labels(&metadata["labels"], "metadata.labels", errors);
    let mut bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let problems = name::check_label_key(&key.to_lowercase()).into_iter();
        errors.extend(problems.map(|why| FieldError::invalid("metadata.annotations", key.as_str(), why)));
    }
    if bytes > ANNOTATION_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATION_BYTES_MAX));
    }
    for (at, owner) in items(metadata, "/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{field}")).is_empty() {
                errors.push(FieldError::invalid(
                    format!("metadata.ownerReferences[{at}].{field}"),
                    json!(""),
                    format!("{field} must not be empty"),
                ));
            }
        }
    }
    for finalizer in items(metadata, "/finalizers") {
        let problems = name::check_label_key(finalizer.as_str().unwrap_or_default()).into_iter();
        errors.extend(problems.map(|why| FieldError::invalid("metadata.finalizers", finalizer.clone(), why)));
    }
}

/// Checks the keys of a ConfigMap's or Secret's map.
pub(crate) fn data_keys(object: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for key in object[field].as_object().into_iter().flatten().map(|(key, _)| key) {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || key.len() > 253 || !key.chars().all(fits) || key == "." || key.starts_with("..")
        {
            let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
                       or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
            errors.push(FieldError::invalid(format!("{field}[{key}]"), json!(key), why));
        }
    }
}

/// Checks that a number is a port.
pub(crate) fn port(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    if !value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
        errors.push(FieldError::invalid(field, value.clone(), "must be between 1 and 65535, inclusive"));
    }
}

/// Checks a Service.
pub(crate) fn service(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let kind = text(spec, "/type");
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported("spec.type", spec["type"].clone(), &kinds));
    }
    let headless = spec["clusterIP"] == "None";
    let ports = items(spec, "/ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" {
        let external = text(spec, "/externalName").trim_end_matches('.');
        if external.is_empty() {
            errors.push(FieldError::required("spec.externalName", ""));
        }
        let problems = name::check_subdomain(external).into_iter();
        errors.extend(problems.map(|why| FieldError::invalid("spec.externalName", external, why)));
    }
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    for (at, entry) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        let label = text(entry, "/name");
        if label.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(field("name"), ""));
        } else if !label.is_empty() {
            let problems = name::check_label(label).into_iter();
            errors.extend(problems.map(|why| FieldError::invalid(field("name"), label, why)));
            if !names.insert(label) {
                errors.push(FieldError::duplicate(field("name"), label));
            }
        }
        port(&entry["port"], &field("port"), errors);
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&text(entry, "/protocol")) {
            errors.push(FieldError::not_supported(field("protocol"), entry["protocol"].clone(), &protocols));
        }
        if entry["targetPort"].is_number() {
            port(&entry["targetPort"], &field("targetPort"), errors);
        }
        if !numbers.insert((integer(entry, "/port"), text(entry, "/protocol"))) {
            errors.push(FieldError::duplicate(format!("spec.ports[{at}]"), entry.clone()));
        }
    }
    labels(&spec["selector"], "spec.selector", errors);
    let address = text(spec, "/clusterIP");
    if !matches!(address, "" | "None") && address.parse::<Ipv4Addr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", spec["clusterIP"].clone(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_maps() {
        let mut errors = Vec::new();
        labels(
            &json!({"app.kubernetes.io/name": "x", "bad key": "y", "k": "bad value"}),
            "metadata.labels",
            &mut errors,
        );
        assert_eq!(errors.len(), 2);
    }
}
