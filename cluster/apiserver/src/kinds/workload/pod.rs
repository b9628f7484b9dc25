//! What must hold for pod specs, and what may change in a pod.

use std::collections::HashSet;

use cluster_machinery::{Quantity, name::check_label};
use serde_json::{Value, json};

use crate::{
    error::FieldError,
    kinds::validation as check,
    object::{child, integer, items, text},
};

/// Checks a Deployment's or ReplicaSet's common fields.
pub(crate) fn validate_workload(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    if integer(spec, "/replicas").is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid(
            "spec.replicas",
            spec["replicas"].clone(),
            "must be greater than or equal to 0",
        ));
    }
    let selector = &spec["selector"];
    let wanted = selector["matchLabels"].as_object();
    if !selector.is_object() {
        errors.push(FieldError::required("spec.selector", ""));
    } else if wanted.is_none_or(serde_json::Map::is_empty) && items(selector, "/matchExpressions").is_empty()
    {
        errors.push(FieldError::invalid(
            "spec.selector",
            selector.clone(),
            "empty selector is invalid for deployment",
        ));
    } else {
        let labels = &spec["template"]["metadata"]["labels"];
        if !wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
            let why = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid("spec.template.metadata.labels", labels.clone(), why));
        }
    }
    if !spec["template"]["spec"].is_object() {
        errors.push(FieldError::required("spec.template.spec.containers", ""));
        return;
    }
    check::labels(&spec["template"]["metadata"]["labels"], "spec.template.labels", errors);
    validate_spec(&spec["template"]["spec"], "spec.template.spec", errors);
    if spec["template"]["spec"]["restartPolicy"] != "Always" {
        errors.push(FieldError::not_supported(
            "spec.template.spec.restartPolicy",
            spec["template"]["spec"]["restartPolicy"].clone(),
            &["Always"],
        ));
    }
}

/// A selector cannot change once objects may match it.
pub(crate) fn selector_is_immutable(object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if object["spec"]["selector"] != old["spec"]["selector"] {
        errors.push(FieldError::invalid(
            "spec.selector",
            object["spec"]["selector"].clone(),
            "field is immutable",
        ));
    }
}

/// Checks a pod spec; `at` is its path.
pub(crate) fn validate_spec(spec: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        errors.push(FieldError::required(format!("{at}.containers"), ""));
        return;
    }
    let restart = ["Always", "OnFailure", "Never"];
    if !restart.contains(&text(spec, "/restartPolicy")) {
        errors.push(FieldError::not_supported(
            format!("{at}.restartPolicy"),
            spec["restartPolicy"].clone(),
            &restart,
        ));
    }
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    if !dns.contains(&text(spec, "/dnsPolicy")) {
        errors.push(FieldError::not_supported(format!("{at}.dnsPolicy"), spec["dnsPolicy"].clone(), &dns));
    }
    let volumes = validate_volumes(spec, at, errors);
    if items(spec, "/containers").is_empty() {
        errors.push(FieldError::required(format!("{at}.containers"), ""));
    }
    let mut names = HashSet::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in items(spec, &format!("/{list}")).iter().enumerate() {
            let at = format!("{at}.{list}[{index}]");
            validate_container(container, &at, &volumes, errors);
            if !names.insert(text(container, "/name")) {
                errors.push(FieldError::duplicate(format!("{at}.name"), container["name"].clone()));
            }
        }
    }
}

fn validate_volumes<'a>(spec: &'a Value, at: &str, errors: &mut Vec<FieldError>) -> HashSet<&'a str> {
    let mut volumes = HashSet::new();
    for (index, volume) in items(spec, "/volumes").iter().enumerate() {
        let name = text(volume, "/name");
        let field = format!("{at}.volumes[{index}].name");
        if name.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else {
            errors.extend(label_problems(&field, name));
        }
        if !volumes.insert(name) {
            errors.push(FieldError::duplicate(&field, volume["name"].clone()));
        }
        if volume.as_object().map_or(0, |map| map.keys().filter(|key| *key != "name").count()) > 1 {
            errors.push(FieldError::forbidden(
                format!("{at}.volumes[{index}]"),
                "may not specify more than 1 volume type",
            ));
        }
    }
    volumes
}

fn validate_container(container: &Value, at: &str, volumes: &HashSet<&str>, errors: &mut Vec<FieldError>) {
    let name = text(container, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{at}.name"), ""));
    } else {
        errors.extend(label_problems(&format!("{at}.name"), name));
    }
    if text(container, "/image").is_empty() {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    if !policies.contains(&text(container, "/imagePullPolicy")) {
        errors.push(FieldError::not_supported(
            format!("{at}.imagePullPolicy"),
            container["imagePullPolicy"].clone(),
            &policies,
        ));
    }
    for (index, port) in items(container, "/ports").iter().enumerate() {
        check::port(&port["containerPort"], &format!("{at}.ports[{index}].containerPort"), errors);
    }
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let at = format!("{at}.volumeMounts[{index}]");
        if !volumes.contains(text(mount, "/name")) {
            errors.push(FieldError::not_found(format!("{at}.name"), mount["name"].clone()));
        }
        if text(mount, "/mountPath").is_empty() {
            errors.push(FieldError::required(format!("{at}.mountPath"), ""));
        }
    }
    for (index, env) in items(container, "/env").iter().enumerate() {
        if text(env, "/name").is_empty() {
            errors.push(FieldError::required(format!("{at}.env[{index}].name"), ""));
        }
        if !text(env, "/value").is_empty() && env["valueFrom"].is_object() {
            let why = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(format!("{at}.env[{index}].valueFrom"), json!(""), why));
        }
    }
    validate_resources(&container["resources"], &format!("{at}.resources"), errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        validate_probe(&container[probe], &format!("{at}.{probe}"), errors);
    }
}

fn label_problems(field: &str, name: &str) -> impl Iterator<Item = FieldError> {
    check_label(name).into_iter().map(move |why| FieldError::invalid(field, name, why))
}

/// Nobody asks for more than they may use.
fn validate_resources(resources: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let quantity = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    for (name, request) in resources["requests"].as_object().into_iter().flatten() {
        let limit = &resources["limits"][name.as_str()];
        if let (Some(asked), Some(most)) = (quantity(request), quantity(limit))
            && asked.milli() > most.milli()
        {
            let why = format!(
                "must be less than or equal to {name} limit of {}",
                limit.as_str().unwrap_or_default()
            );
            errors.push(FieldError::invalid(format!("{at}.requests"), request.clone(), &why));
        }
    }
}

fn validate_probe(probe: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if !probe.is_object() {
        return;
    }
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"].iter().filter(|h| probe[**h].is_object()).count();
    match handlers {
        0 => errors.push(FieldError::required(at, "must specify a handler type")),
        1 => {}
        _ => errors.push(FieldError::forbidden(at, "may not specify more than 1 handler type")),
    }
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        if integer(probe, &format!("/{field}")).is_some_and(|n| n < 0) {
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(format!("{at}.{field}"), probe[field].clone(), why));
        }
    }
}

/// A pod's spec does not change but for images, deadlines and added tolerations.
pub(crate) fn validate_update(object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let mut spec = object["spec"].clone();
    let before = &old["spec"];
    for list in ["containers", "initContainers"] {
        let olds = items(before, &format!("/{list}"));
        for (container, old) in spec[list].as_array_mut().into_iter().flatten().zip(olds) {
            container["image"] = old["image"].clone();
        }
    }
    let map = child_of(&mut spec);
    for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"]
    {
        match before.get(field) {
            Some(value) => map.insert(field.to_owned(), value.clone()),
            None => map.remove(field),
        };
    }
    // Indexing has left nulls behind.
    map.retain(|_, value| !value.is_null());
    if spec != *before {
        errors.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    let kept = items(object, "/spec/tolerations");
    if items(before, "/tolerations").iter().any(|toleration| !kept.contains(toleration)) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

fn child_of(spec: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !spec.is_object() {
        *spec = json!({});
    }
    match spec {
        Value::Object(map) => map,
        other => child(other, "spec"),
    }
}

/// Guaranteed, Burstable or BestEffort, from requests and limits of cpu and memory.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in items(spec, "/containers").iter().chain(items(spec, "/initContainers")) {
        for resource in ["cpu", "memory"] {
            let limit = container.pointer(&format!("/resources/limits/{resource}"));
            let request = container.pointer(&format!("/resources/requests/{resource}"));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_change() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}], "nodeName": "n1"}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("x:2");
        let mut errors = Vec::new();
        validate_update(&new, &old, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        new["spec"]["nodeName"] = json!("n2");
        validate_update(&new, &old, &mut errors);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn empty_specs_are_refused() {
        let mut errors = Vec::new();
        validate_spec(&json!({"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}), "spec", &mut errors);
        assert_eq!(errors[0].field, "spec.containers");
        assert_eq!(errors[0].body(), "Required value");
    }
}
