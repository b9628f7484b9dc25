//! Roles and bindings: names that need only fit a path, and required references.

use cluster_machinery::name;
use serde_json::{Value, json};

use super::strategy::Strategy;
use crate::{
    error::FieldError,
    object::{default, items, items_mut, text},
};

/// Roles of both scopes.
#[derive(Debug)]
pub(crate) struct Rbac;

impl Strategy for Rbac {
    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        for (at, rule) in items(object, "/rules").iter().enumerate() {
            if items(rule, "/verbs").is_empty() {
                errors.push(FieldError::required(
                    format!("rules[{at}].verbs"),
                    "verbs must contain at least one value",
                ));
            }
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        name::check_path_segment(name)
    }
}

/// Bindings of both scopes.
#[derive(Debug)]
pub(crate) struct RoleBindings;

impl Strategy for RoleBindings {
    fn defaults(&self, object: &mut Value) {
        if object["roleRef"].is_object() {
            default(&mut object["roleRef"], "apiGroup", json!("rbac.authorization.k8s.io"));
        }
        for subject in items_mut(object, "/subjects") {
            if matches!(text(subject, "/kind"), "User" | "Group") {
                default(subject, "apiGroup", json!("rbac.authorization.k8s.io"));
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let role_kinds: &[&str] =
            if object["kind"] == "ClusterRoleBinding" { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        if !role_kinds.contains(&text(object, "/roleRef/kind")) {
            errors.push(FieldError::not_supported(
                "roleRef.kind",
                object["roleRef"]["kind"].clone(),
                role_kinds,
            ));
        }
        if text(object, "/roleRef/name").is_empty() {
            errors.push(FieldError::required("roleRef.name", ""));
        }
        for (at, subject) in items(object, "/subjects").iter().enumerate() {
            if text(subject, "/name").is_empty() {
                errors.push(FieldError::required(format!("subjects[{at}].name"), ""));
            }
            let kinds = ["ServiceAccount", "User", "Group"];
            if !kinds.contains(&text(subject, "/kind")) {
                errors.push(FieldError::not_supported(
                    format!("subjects[{at}].kind"),
                    subject["kind"].clone(),
                    &kinds,
                ));
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if object["roleRef"] != old["roleRef"] {
            errors.push(FieldError::invalid("roleRef", object["roleRef"].clone(), "cannot change roleRef"));
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        name::check_path_segment(name)
    }
}
