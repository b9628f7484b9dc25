//! Validation shared by kinds, in Kubernetes' words.

use std::{collections::HashSet, net::Ipv4Addr};

use serde_json::{Value, json};

use crate::{
    error::FieldError,
    object::{integer, items, text},
};

fn label_shape(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(edge) && name.ends_with(edge) && name.chars().all(|c| edge(c) || c == '-')
}

/// What is wrong with a DNS-1123 label.
pub(crate) fn dns1123_label(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!label_shape(name)).then(|| {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
         with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            .to_owned()
    })
}

/// What is wrong with a DNS-1123 subdomain.
pub(crate) fn dns1123_subdomain(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    (!name.split('.').all(label_shape)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .to_owned()
    })
}

/// What is wrong with a DNS-1035 label.
pub(crate) fn dns1035_label(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!label_shape(name) || !name.starts_with(|c: char| c.is_ascii_lowercase())).then(|| {
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
         is '[a-z]([-a-z0-9]*[a-z0-9])?')"
            .to_owned()
    })
}

/// What is wrong with a name that must only fit a path.
pub(crate) fn path_segment(name: &str) -> Option<String> {
    if matches!(name, "." | "..") {
        return Some(format!("may not be '{name}'"));
    }
    ['/', '%'].into_iter().find(|c| name.contains(*c)).map(|c| format!("may not contain '{c}'"))
}

/// What is wrong with the name part of a label or annotation key.
fn qualified_name(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    if let Some(prefix) = prefix
        && let Some(why) = dns1123_subdomain(prefix)
    {
        return Some(format!("prefix part {why}"));
    }
    let edge = |c: char| c.is_ascii_alphanumeric();
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 characters".to_owned());
    }
    let inner = |c: char| edge(c) || matches!(c, '-' | '_' | '.');
    (!name.starts_with(edge) || !name.ends_with(edge) || !name.chars().all(inner)).then(|| {
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            .to_owned()
    })
}

fn label_value(value: &str) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    if value.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || matches!(c, '-' | '_' | '.');
    (!value.starts_with(edge) || !value.ends_with(edge) || !value.chars().all(inner)).then(|| {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
         and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            .to_owned()
    })
}

/// Checks a map of labels.
pub(crate) fn labels(labels: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Some(why) = qualified_name(key) {
            errors.push(FieldError::invalid(field, &json!(key), &why));
        }
        if let Some(why) = label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(field, value, &why));
        }
    }
}

/// Checks `metadata` apart from the name.
pub(crate) fn metadata(object: &Value, errors: &mut Vec<FieldError>) {
    let metadata = &object["metadata"];
    labels(&metadata["labels"], "metadata.labels", errors);
    let mut bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        if let Some(why) = qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &json!(key), &why));
        }
    }
    if bytes > 256 * 1024 {
        errors.push(FieldError {
            reason: "FieldValueTooLong",
            field: "metadata.annotations".to_owned(),
            message: "Too long: may not be more than 262144 bytes".to_owned(),
        });
    }
    for (at, owner) in items(metadata, "/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{field}")).is_empty() {
                errors.push(FieldError::invalid(
                    format!("metadata.ownerReferences[{at}].{field}"),
                    &json!(""),
                    &format!("{field} must not be empty"),
                ));
            }
        }
    }
    for finalizer in items(metadata, "/finalizers") {
        let name = finalizer.as_str().unwrap_or_default();
        if let Some(why) = qualified_name(name) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, &why));
        }
    }
}

/// Checks the keys of a ConfigMap's or Secret's map.
pub(crate) fn data_keys(object: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for key in object[field].as_object().into_iter().flatten().map(|(key, _)| key) {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if key.is_empty() || key.len() > 253 || !key.chars().all(fits) || key == "." || key.starts_with("..") {
            let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
                       or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
            errors.push(FieldError::invalid(format!("{field}[{key}]"), &json!(key), why));
        }
    }
}

/// Checks that a number is a port.
pub(crate) fn port(value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    if !value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
        errors.push(FieldError::invalid(field, value, "must be between 1 and 65535, inclusive"));
    }
}

/// Checks a Service.
pub(crate) fn service(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let kind = text(spec, "/type");
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::unsupported("spec.type", &spec["type"], &kinds));
    }
    let headless = spec["clusterIP"] == "None";
    let ports = items(spec, "/ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" {
        let name = text(spec, "/externalName").trim_end_matches('.');
        if name.is_empty() {
            errors.push(FieldError::required("spec.externalName", ""));
        } else if let Some(why) = dns1123_subdomain(name) {
            errors.push(FieldError::invalid("spec.externalName", &spec["externalName"], &why));
        }
    }
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    for (at, entry) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        let name = text(entry, "/name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(field("name"), ""));
        } else if !name.is_empty() {
            if let Some(why) = dns1123_label(name) {
                errors.push(FieldError::invalid(field("name"), &entry["name"], &why));
            }
            if !names.insert(name) {
                errors.push(FieldError::duplicate(field("name"), &entry["name"]));
            }
        }
        port(&entry["port"], &field("port"), errors);
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&text(entry, "/protocol")) {
            errors.push(FieldError::unsupported(field("protocol"), &entry["protocol"], &protocols));
        }
        if entry["targetPort"].is_number() {
            port(&entry["targetPort"], &field("targetPort"), errors);
        }
        if !numbers.insert((integer(entry, "/port"), text(entry, "/protocol"))) {
            errors.push(FieldError::duplicate(format!("spec.ports[{at}]"), entry));
        }
    }
    labels(&spec["selector"], "spec.selector", errors);
    let address = text(spec, "/clusterIP");
    if !matches!(address, "" | "None") && address.parse::<Ipv4Addr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &spec["clusterIP"], why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(dns1123_subdomain("a.b-c.d1").is_none());
        for bad in ["", "A", "a..b", "-a", "a_", "a."] {
            assert!(dns1123_subdomain(bad).is_some(), "{bad}");
        }
        assert!(dns1035_label("1a").is_some());
        assert!(path_segment("system:node").is_none());
        let mut errors = Vec::new();
        labels(&json!({"app.kubernetes.io/name": "x", "bad key": "y", "k": "bad value"}), "metadata.labels", &mut errors);
        assert_eq!(errors.len(), 2);
    }
}
