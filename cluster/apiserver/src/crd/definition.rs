//! Checking definitions themselves.

use cluster_machinery::name::{check_service, check_subdomain};
use serde_json::Value;

use super::cel;
use crate::{
    error::FieldError,
    object::{items, text},
};

/// Checks a CustomResourceDefinition.
pub(crate) fn validate(object: &Value, errors: &mut Vec<FieldError>) {
    let (group, plural) = (text(object, "/spec/group"), text(object, "/spec/names/plural"));
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !check_subdomain(group).is_empty() || !group.contains('.') {
        errors.push(FieldError::invalid(
            "spec.group",
            object["spec"]["group"].clone(),
            "should be a domain with at least one dot",
        ));
    }
    let scopes = ["Cluster", "Namespaced"];
    if !scopes.contains(&text(object, "/spec/scope")) {
        errors.push(FieldError::not_supported("spec.scope", object["spec"]["scope"].clone(), &scopes));
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = text(object, &format!("/spec/names/{field}"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        } else {
            let problems = check_service(&name.to_lowercase()).into_iter();
            errors.extend(problems.map(|why| FieldError::invalid(format!("spec.names.{field}"), name, why)));
        }
    }
    let wanted = format!("{plural}.{group}");
    if text(object, "/metadata/name") != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", object["metadata"]["name"].clone(), why));
    }
    let versions = items(object, "/spec/versions");
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions", "must have at least one version"));
    }
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", Value::Null, why));
    }
    if text(object, "/spec/conversion/strategy") == "Webhook" {
        errors.push(FieldError::not_supported(
            "spec.conversion.strategy",
            object["spec"]["conversion"]["strategy"].clone(),
            &["None"],
        ));
    }
    for (at, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema") {
            None => errors.push(FieldError::required(field, "schemas are required")),
            Some(schema) => validate_schema(schema, &field, true, 0, errors),
        }
    }
}

/// A schema is structural when every node has a type, or says why not.
fn validate_schema(schema: &Value, at: &str, root: bool, depth: usize, errors: &mut Vec<FieldError>) {
    if depth > 64 || errors.len() > 32 {
        return;
    }
    let flag = |key: &str| schema[key] == true;
    let kind = text(schema, "/type");
    if kind.is_empty() && !flag("x-kubernetes-int-or-string") && !flag("x-kubernetes-preserve-unknown-fields")
    {
        let place = if root {
            "must not be empty at the root"
        } else {
            "must not be empty for specified object fields"
        };
        errors.push(FieldError::required(format!("{at}.type"), place));
    }
    if root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(
            format!("{at}.type"),
            schema["type"].clone(),
            "must be object at the root",
        ));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(why) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(format!("{at}.pattern"), schema["pattern"].clone(), &why));
    }
    if kind == "array" && !schema["items"].is_object() {
        errors.push(FieldError::required(format!("{at}.items"), "must be specified"));
    }
    for (index, rule) in items(schema, "/x-kubernetes-validations").iter().enumerate() {
        if let Err(why) = cel::compiles(text(rule, "/rule")) {
            let field = format!("{at}.x-kubernetes-validations[{index}].rule");
            errors.push(FieldError::invalid(
                field,
                rule["rule"].clone(),
                format!("compilation failed: {why}"),
            ));
        }
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        // Root metadata may only be restricted by name; its own schema is the server's.
        if !(root && name == "metadata") {
            validate_schema(child, &format!("{at}.properties[{name}]"), false, depth + 1, errors);
        }
    }
    if schema["items"].is_object() {
        validate_schema(&schema["items"], &format!("{at}.items"), false, depth + 1, errors);
    }
    if schema["additionalProperties"].is_object() {
        validate_schema(
            &schema["additionalProperties"],
            &format!("{at}.additionalProperties"),
            false,
            depth + 1,
            errors,
        );
    }
}
