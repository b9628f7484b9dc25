//! What a few kinds do differently: defaults, preparation, validation, field selectors. Most do nothing.

use std::fmt;

use base64::Engine as _;
use cluster_machinery::name;
use serde_json::{Value, json};

use super::validation as check;
use crate::{
    error::FieldError,
    object::{child, default, integer, items, items_mut, remove, text},
};

/// The ways in which a kind differs. All methods are pure.
pub(crate) trait Strategy: Send + Sync + fmt::Debug {
    /// Writes the values that Kubernetes writes where the user left them out.
    fn defaults(&self, _object: &mut Value) {}

    /// Removes what a creator may not set and adds what the server sets.
    fn prepare_create(&self, _object: &mut Value) {}

    /// The same for an update through the main resource.
    fn prepare_update(&self, _object: &mut Value, _old: &Value) {}

    /// Checks an object, new or changed.
    fn validate(&self, _object: &Value, _errors: &mut Vec<FieldError>) {}

    /// Checks what may change.
    fn validate_update(&self, _object: &Value, _old: &Value, _errors: &mut Vec<FieldError>) {}

    /// Checks `metadata.name`; returns what is wrong with it.
    fn validate_name(&self, name: &str) -> Vec<String> {
        name::check_subdomain(name)
    }

    /// The value of a field that selectors may name, beyond `metadata.*`; `None` when they may not.
    fn selectable(&self, _object: &Value, _field: &str) -> Option<String> {
        None
    }
}

/// Nothing special.
#[derive(Debug)]
pub(crate) struct Plain;

impl Strategy for Plain {}

/// ConfigMaps.
#[derive(Debug)]
pub(crate) struct ConfigData;

impl Strategy for ConfigData {
    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        check::data_keys(object, "data", errors);
        check::data_keys(object, "binaryData", errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        immutable_data(object, old, &["data", "binaryData"], errors);
    }
}

fn immutable_data(object: &Value, old: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    if old["immutable"] != true {
        return;
    }
    if object["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if object.get(field) != old.get(field) {
            errors.push(FieldError::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
}

/// Secrets: `stringData` goes into `data`.
#[derive(Debug)]
pub(crate) struct Secrets;

impl Strategy for Secrets {
    fn defaults(&self, object: &mut Value) {
        default(object, "type", json!("Opaque"));
        if let Some(Value::Object(texts)) = remove(object, "stringData") {
            let data = child(object, "data");
            for (key, value) in texts {
                let bytes = value.as_str().unwrap_or_default().as_bytes();
                data.insert(key, Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)));
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        check::data_keys(object, "data", errors);
        let required: &[&str] = match text(object, "/type") {
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            _ => &[],
        };
        for key in required {
            if object["data"].get(key).is_none() {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if text(object, "/type") != text(old, "/type") {
            errors.push(FieldError::invalid("type", object["type"].clone(), "field is immutable"));
        }
        immutable_data(object, old, &["data"], errors);
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        (field == "type").then(|| text(object, "/type").to_owned())
    }
}

/// ServiceAccounts.
#[derive(Debug)]
pub(crate) struct ServiceAccounts;

impl Strategy for ServiceAccounts {}

/// Namespaces: a label with the name, a phase, and their own finalizers.
#[derive(Debug)]
pub(crate) struct Namespaces;

impl Strategy for Namespaces {
    fn defaults(&self, object: &mut Value) {
        let name = text(object, "/metadata/name").to_owned();
        if !name.is_empty() {
            let metadata = &mut object["metadata"];
            child(metadata, "labels").insert("kubernetes.io/metadata.name".to_owned(), Value::String(name));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        let finalizers = child(object, "spec").entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(list) = finalizers
            && !list.iter().any(|f| f == "kubernetes")
        {
            list.push(json!("kubernetes"));
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        // Only /finalize changes the finalizers.
        object["spec"] = old["spec"].clone();
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        name::check_label(name)
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        (field == "status.phase").then(|| text(object, "/status/phase").to_owned())
    }
}

/// Events of both groups, in the stored (core) form.
#[derive(Debug)]
pub(crate) struct Events;

impl Strategy for Events {
    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        let object_of = |o: &Value| if o.get("regarding").is_some() { "regarding" } else { "involvedObject" };
        let referred = match field.split_once('.') {
            Some(("involvedObject" | "regarding", rest)) => Some(rest),
            _ => None,
        };
        if let Some(rest) = referred {
            return Some(text(object, &format!("/{}/{rest}", object_of(object))).to_owned());
        }
        match field {
            "reason" | "type" | "action" | "reportingComponent" | "reportingController" => {
                Some(text(object, &format!("/{field}")).to_owned())
            }
            "source" => Some(text(object, "/source/component").to_owned()),
            _ => None,
        }
    }
}

/// Services: ports, types; addresses are allocated elsewhere.
#[derive(Debug)]
pub(crate) struct Services;

impl Strategy for Services {
    fn defaults(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            *spec = json!({});
        }
        default(spec, "sessionAffinity", json!("None"));
        default(spec, "type", json!("ClusterIP"));
        let kind = text(spec, "/type").to_owned();
        if spec["sessionAffinity"] == "ClientIP"
            && spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").is_none()
        {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
        }
        if kind != "ExternalName" {
            default(spec, "internalTrafficPolicy", json!("Cluster"));
            default(spec, "ipFamilyPolicy", json!("SingleStack"));
            default(spec, "ipFamilies", json!(["IPv4"]));
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            default(spec, "externalTrafficPolicy", json!("Cluster"));
        }
        if kind == "LoadBalancer" {
            default(spec, "allocateLoadBalancerNodePorts", json!(true));
        }
        for port in items_mut(spec, "/ports") {
            default(port, "protocol", json!("TCP"));
            let number = port["port"].clone();
            default(port, "targetPort", number);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        check::service(object, errors);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        name::check_service(name)
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        match field {
            "spec.clusterIP" => Some(text(object, "/spec/clusterIP").to_owned()),
            "spec.type" => Some(text(object, "/spec/type").to_owned()),
            _ => None,
        }
    }
}

/// Webhook configurations of both kinds.
#[derive(Debug)]
pub(crate) struct Webhooks;

impl Strategy for Webhooks {
    fn defaults(&self, object: &mut Value) {
        let mutating = object["kind"] == "MutatingWebhookConfiguration";
        for hook in items_mut(object, "/webhooks") {
            default(hook, "failurePolicy", json!("Fail"));
            default(hook, "matchPolicy", json!("Equivalent"));
            default(hook, "namespaceSelector", json!({}));
            default(hook, "objectSelector", json!({}));
            default(hook, "timeoutSeconds", json!(10));
            if mutating {
                default(hook, "reinvocationPolicy", json!("Never"));
            }
            for rule in items_mut(hook, "/rules") {
                default(rule, "scope", json!("*"));
            }
            if let Some(service) = hook.pointer_mut("/clientConfig/service") {
                default(service, "port", json!(443));
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        for (at, hook) in items(object, "/webhooks").iter().enumerate() {
            let field = |name: &str| format!("webhooks[{at}].{name}");
            let name = text(hook, "/name");
            if name.split('.').count() < 3 || !name::check_subdomain(name).is_empty() {
                let detail = "should be a domain with at least three segments separated by dots";
                errors.push(FieldError::invalid(field("name"), hook["name"].clone(), detail));
            }
            let side_effects = text(hook, "/sideEffects");
            if !matches!(side_effects, "None" | "NoneOnDryRun") {
                errors.push(FieldError::not_supported(
                    field("sideEffects"),
                    hook["sideEffects"].clone(),
                    &["None", "NoneOnDryRun"],
                ));
            }
            if !items(hook, "/admissionReviewVersions").iter().any(|v| v == "v1") {
                errors.push(FieldError::invalid(
                    field("admissionReviewVersions"),
                    hook["admissionReviewVersions"].clone(),
                    "must include at least one of v1",
                ));
            }
            let config = &hook["clientConfig"];
            if config.get("url").is_some() == config.get("service").is_some() {
                errors.push(FieldError::required(
                    field("clientConfig"),
                    "exactly one of url or service is required",
                ));
            }
            if !integer(hook, "/timeoutSeconds").is_some_and(|s| (1..=30).contains(&s)) {
                let detail = "the timeout value must be between 1 and 30 seconds";
                errors.push(FieldError::invalid(
                    field("timeoutSeconds"),
                    hook["timeoutSeconds"].clone(),
                    detail,
                ));
            }
        }
    }
}

/// Custom resource definitions.
#[derive(Debug)]
pub(crate) struct CustomDefinitions;

impl Strategy for CustomDefinitions {
    fn defaults(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        default(spec, "conversion", json!({"strategy": "None"}));
        if let Some(names) = spec.get_mut("names").filter(|n| n.is_object()) {
            let kind = text(names, "/kind").to_owned();
            default(names, "singular", json!(kind.to_lowercase()));
            default(names, "listKind", json!(format!("{kind}List")));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let stored = items(object, "/spec/versions").iter().filter(|v| v["storage"] == true);
        let stored: Vec<Value> = stored.map(|v| v["name"].clone()).collect();
        object["status"] =
            json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
        let metadata = &mut object["metadata"];
        let finalizers = child_list(metadata, "finalizers");
        let cleanup = json!("customresourcecleanup.apiextensions.k8s.io");
        if !finalizers.contains(&cleanup) {
            finalizers.push(cleanup);
        }
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        let storage = items(object, "/spec/versions").iter().find(|v| v["storage"] == true);
        let Some(storage) = storage.map(|v| v["name"].clone()) else { return };
        if object["status"].is_object() {
            let stored = child_list(&mut object["status"], "storedVersions");
            if !stored.contains(&storage) {
                stored.push(storage);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        crate::crd::validate_definition(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for field in ["group", "scope"] {
            if object["spec"][field] != old["spec"][field] {
                errors.push(FieldError::invalid(
                    format!("spec.{field}"),
                    object["spec"][field].clone(),
                    "field is immutable",
                ));
            }
        }
    }
}

/// The array under `key`, made when it is not there.
pub(crate) fn child_list<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    let slot = &mut object[key];
    if !slot.is_array() {
        *slot = json!([]);
    }
    match slot {
        Value::Array(list) => list,
        _ => unreachable!("it was made an array above"),
    }
}
