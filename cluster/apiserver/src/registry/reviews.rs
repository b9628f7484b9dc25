//! Kinds that are questions: TokenReview and the SubjectAccessReview family. They are answered, never stored.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{body, pods, render};
use crate::{
    authn::{User, tokens},
    authz::{self, Question},
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    object::text,
    server::Reply,
};

/// Handles the create of a kind that can only be created.
///
/// # Errors
/// 400 and 404.
pub(crate) async fn create(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    if kind.resource == "bindings" {
        return pods::bind_by_name(ctx).await;
    }
    let mut object = body::object(ctx, kind)?;
    if kind.namespaced {
        body::check_namespace(ctx, kind, &mut object)?;
    }
    let status = match &*kind.resource {
        "selfsubjectreviews" => json!({"userInfo": ctx.user.to_value()}),
        "tokenreviews" => token_review(ctx, &object["spec"]),
        "selfsubjectaccessreviews" => access(ctx, &ctx.user, &object["spec"], None)?,
        "subjectaccessreviews" => access(ctx, &asked_user(&object["spec"]), &object["spec"], None)?,
        "localsubjectaccessreviews" => {
            access(ctx, &asked_user(&object["spec"]), &object["spec"], Some(&ctx.info.namespace))?
        }
        "selfsubjectrulesreviews" => rules(ctx, &object["spec"]),
        _ => return Err(ApiError::page_not_found()),
    };
    object["status"] = status;
    let metadata = crate::object::child(&mut object, "metadata");
    metadata.insert("creationTimestamp".to_owned(), Value::Null);
    render::plain(ctx, &object, StatusCode::CREATED)
}

fn token_review(ctx: &Context, spec: &Value) -> Value {
    let wanted = tokens::audiences(&ctx.api, spec);
    match tokens::authenticate(&ctx.api, text(spec, "/token"), &wanted) {
        Ok(found) => {
            json!({"authenticated": true, "user": found.user.to_value(), "audiences": found.audiences})
        }
        Err(why) => json!({"user": {}, "error": why}),
    }
}

fn asked_user(spec: &Value) -> User {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    User {
        name: text(spec, "/user").to_owned(),
        uid: text(spec, "/uid").to_owned(),
        groups: strings(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), strings(v)))
            .collect(),
    }
}

fn access(ctx: &Context, user: &User, spec: &Value, namespace: Option<&str>) -> ApiResult<Value> {
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    if resource.is_object() == path.is_object() {
        return Err(ApiError::unprocessable(
            "spec: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let question = if path.is_object() {
        Question { verb: text(path, "/verb"), path: Some(text(path, "/path")), ..Question::default() }
    } else {
        Question {
            verb: text(resource, "/verb"),
            group: text(resource, "/group"),
            resource: text(resource, "/resource"),
            subresource: text(resource, "/subresource"),
            namespace: namespace.unwrap_or_else(|| text(resource, "/namespace")),
            name: text(resource, "/name"),
            path: None,
        }
    };
    let allowed = authz::allowed(&ctx.api, user, &question);
    Ok(if allowed { json!({"allowed": true, "reason": "RBAC: allowed"}) } else { json!({"allowed": false}) })
}

fn rules(ctx: &Context, spec: &Value) -> Value {
    let mut resources = Vec::new();
    let mut paths = Vec::new();
    if ctx.user.is_in("system:masters") {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for rule in ctx.api.rbac.rules(&ctx.user, text(spec, "/namespace")) {
        if rule.is_path_rule() { paths.push(rule.to_value()) } else { resources.push(rule.to_value()) }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
