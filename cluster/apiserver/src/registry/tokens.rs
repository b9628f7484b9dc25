//! `serviceaccounts/NAME/token`: TokenRequest.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{body, render};
use crate::{
    authn::tokens::{Grant, audiences, lookup},
    context::Context,
    error::{ApiError, ApiResult, FieldError},
    kinds::Kind,
    object::{self, integer, text},
    server::Reply,
};

/// Kubernetes' bounds of a token's life, in seconds.
const SECONDS: std::ops::RangeInclusive<i64> = 600..=(1 << 32);

/// Handles a token request.
///
/// # Errors
/// 404 when the account or the bound object is not there, 409 for another UID, 422 for a life out of bounds.
pub(crate) async fn create(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let api = &ctx.api;
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    let mut request =
        body::typed(ctx, "authentication.k8s.io/v1", "TokenRequest", "authentication.v1.TokenRequest")?;
    let account =
        lookup(api, "serviceaccounts", namespace, name).ok_or_else(|| ApiError::not_found(kind, name))?;
    let seconds = integer(&request, "/spec/expirationSeconds").unwrap_or(3600);
    if !SECONDS.contains(&seconds) {
        let why = "may not specify a duration less than 10 minutes";
        let errors = [FieldError::invalid("spec.expirationSeconds", json!(seconds), why)];
        return Err(ApiError::invalid(kind, name, &errors));
    }
    let bound = bound_objects(ctx, &request["spec"]["boundObjectRef"])?;
    let audiences = audiences(api, &request["spec"]);
    let grant = Grant { namespace, account: &account, audiences: audiences.clone(), seconds, bound };
    let (token, expires) = api.keys.sign(&grant)?;
    request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": object::now()});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({"token": token, "expirationTimestamp": object::stamp(expires)});
    if request["spec"]["boundObjectRef"].is_null() {
        object::remove(&mut request["spec"], "boundObjectRef");
    }
    render::plain(ctx, &request, StatusCode::CREATED)
}

fn bound_objects(ctx: &Context, reference: &Value) -> ApiResult<Vec<(&'static str, Value)>> {
    let namespace = &ctx.info.namespace;
    let (key, resource, scope) = match text(reference, "/kind") {
        "" => return Ok(Vec::new()),
        "Pod" => ("pod", "pods", namespace.as_str()),
        "Secret" => ("secret", "secrets", namespace.as_str()),
        "Node" => ("node", "nodes", ""),
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to object kind {other:?}"
            )));
        }
    };
    let name = text(reference, "/name");
    let kind = ctx.api.kinds.get("", "v1", resource).ok_or_else(ApiError::page_not_found)?;
    let object = lookup(&ctx.api, resource, scope, name).ok_or_else(|| ApiError::not_found(&kind, name))?;
    let uid = text(reference, "/uid");
    if !uid.is_empty() && uid != object::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(&kind, name, &why));
    }
    let node =
        if key == "pod" { lookup(&ctx.api, "nodes", "", text(&object, "/spec/nodeName")) } else { None };
    let mut bound = vec![(key, object)];
    bound.extend(node.map(|node| ("node", node)));
    Ok(bound)
}
