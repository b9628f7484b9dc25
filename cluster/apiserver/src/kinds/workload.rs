//! Pods, Nodes and the kinds that hold pod templates.

pub(crate) mod defaults;
pub(crate) mod pod;

use serde_json::{Value, json};

use super::strategy::Strategy;
use crate::{
    error::FieldError,
    object::{child, default, integer, text},
};

/// Pods.
#[derive(Debug)]
pub(crate) struct Pods;

impl Strategy for Pods {
    fn defaults(&self, object: &mut Value) {
        defaults::pod_spec(&mut object["spec"]);
    }

    fn prepare_create(&self, object: &mut Value) {
        let qos = pod::qos_class(&object["spec"]);
        object["status"] = json!({"phase": "Pending", "qosClass": qos});
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        pod::validate_spec(&object["spec"], "spec", errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        pod::validate_update(object, old, errors);
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        let value = |pointer: &str| Some(text(object, pointer).to_owned());
        match field {
            "spec.nodeName" => value("/spec/nodeName"),
            "spec.restartPolicy" => value("/spec/restartPolicy"),
            "spec.schedulerName" => value("/spec/schedulerName"),
            "spec.serviceAccountName" => value("/spec/serviceAccountName"),
            "spec.hostNetwork" => Some((object["spec"]["hostNetwork"] == true).to_string()),
            "status.phase" => value("/status/phase"),
            "status.podIP" => value("/status/podIP"),
            "status.podIPs" => value("/status/podIP"),
            "status.nominatedNodeName" => value("/status/nominatedNodeName"),
            _ => None,
        }
    }
}

/// Nodes.
#[derive(Debug)]
pub(crate) struct Nodes;

impl Strategy for Nodes {
    fn prepare_update(&self, object: &mut Value, old: &Value) {
        // A pod range is given once.
        if let Some(range) = old["spec"].get("podCIDR") {
            let spec = child(object, "spec");
            spec.entry("podCIDR").or_insert_with(|| range.clone());
        }
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        (field == "spec.unschedulable").then(|| (object["spec"]["unschedulable"] == true).to_string())
    }
}

/// Deployments.
#[derive(Debug)]
pub(crate) struct Deployments;

impl Strategy for Deployments {
    fn defaults(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        default(spec, "replicas", json!(1));
        default(spec, "revisionHistoryLimit", json!(10));
        default(spec, "progressDeadlineSeconds", json!(600));
        default(spec, "strategy", json!({}));
        let strategy = &mut spec["strategy"];
        default(strategy, "type", json!("RollingUpdate"));
        if strategy["type"] == "RollingUpdate" {
            default(strategy, "rollingUpdate", json!({}));
            default(&mut strategy["rollingUpdate"], "maxUnavailable", json!("25%"));
            default(&mut strategy["rollingUpdate"], "maxSurge", json!("25%"));
        }
        defaults::template(&mut spec["template"]);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        pod::validate_workload(object, errors);
        let strategy = &object["spec"]["strategy"];
        let kinds = ["Recreate", "RollingUpdate"];
        if !kinds.contains(&text(strategy, "/type")) {
            errors.push(FieldError::not_supported("spec.strategy.type", strategy["type"].clone(), &kinds));
        }
        if strategy["type"] == "Recreate" && strategy["rollingUpdate"].is_object() {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", why));
        }
        let zero = |value: &Value| *value == json!(0) || *value == json!("0%") || *value == json!("0");
        let rolling = &strategy["rollingUpdate"];
        if rolling.is_object() && zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
            let why = "may not be 0 when `maxSurge` is 0";
            errors.push(FieldError::invalid(
                "spec.strategy.rollingUpdate.maxUnavailable",
                rolling["maxUnavailable"].clone(),
                why,
            ));
        }
        if integer(object, "/spec/progressDeadlineSeconds") <= integer(object, "/spec/minReadySeconds") {
            errors.push(FieldError::invalid(
                "spec.progressDeadlineSeconds",
                object["spec"]["progressDeadlineSeconds"].clone(),
                "must be greater than minReadySeconds",
            ));
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        pod::selector_is_immutable(object, old, errors);
    }
}

/// ReplicaSets.
#[derive(Debug)]
pub(crate) struct ReplicaSets;

impl Strategy for ReplicaSets {
    fn defaults(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        default(spec, "replicas", json!(1));
        defaults::template(&mut spec["template"]);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        pod::validate_workload(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        pod::selector_is_immutable(object, old, errors);
    }

    fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        (field == "status.replicas").then(|| integer(object, "/status/replicas").unwrap_or(0).to_string())
    }
}
