//! What only pods have: binding to a node, eviction.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    body,
    delete::{self, Options},
    modify, render,
};
use crate::{
    context::Context,
    error::{ApiError, ApiResult, FieldError},
    kinds::Kind,
    object::{self, child, text},
    server::Reply,
};

fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// POST `/binding`: the scheduler's decision.
///
/// # Errors
/// 409 when the pod is bound already.
pub(crate) async fn bind(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let binding = body::typed(ctx, "v1", "Binding", "core.v1.Binding")?;
    assign(ctx, kind, &ctx.info.name, &binding).await
}

/// POST `/bindings`: the same, with the pod named by the Binding itself.
///
/// # Errors
/// As [`bind`].
pub(crate) async fn bind_by_name(ctx: &Context) -> ApiResult<Reply> {
    let binding = body::typed(ctx, "v1", "Binding", "core.v1.Binding")?;
    let kind = ctx.api.kinds.get("", "v1", "pods").ok_or_else(ApiError::page_not_found)?;
    let name = object::name(&binding).to_owned();
    assign(ctx, &kind, &name, &binding).await
}

async fn assign(ctx: &Context, kind: &Arc<Kind>, name: &str, binding: &Value) -> ApiResult<Reply> {
    let node = text(binding, "/target/name").to_owned();
    if node.is_empty() {
        let errors = [FieldError::required("target.name", "")];
        return Err(ApiError::invalid(kind, name, &errors));
    }
    let uid = object::uid(binding).to_owned();
    modify::change(ctx, kind, name, "binding", |old| {
        if object::is_deleting(old) {
            return Err(ApiError::conflict(
                kind,
                name,
                &format!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        let bound = text(old, "/spec/nodeName");
        if !bound.is_empty() {
            return Err(ApiError::conflict(
                kind,
                name,
                &format!("pod {name} is already assigned to node {bound:?}"),
            ));
        }
        let mut new = old.clone();
        let metadata = child(&mut new, "metadata");
        metadata.remove("resourceVersion");
        if !uid.is_empty() {
            metadata.insert("uid".to_owned(), json!(uid));
        }
        for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
            child(&mut new["metadata"], "annotations").insert(key.clone(), value.clone());
        }
        child(&mut new, "spec").insert("nodeName".to_owned(), json!(node));
        object::set_condition(&mut new, "PodScheduled", "True", "", "");
        for condition in object::items_mut(&mut new, "/status/conditions") {
            for key in ["reason", "message"] {
                if condition[key] == "" {
                    object::remove(condition, key);
                }
            }
        }
        Ok(new)
    })
    .await?;
    render::plain(ctx, &success(), StatusCode::CREATED)
}

/// POST `/eviction`: a delete that asks first. There are no disruption budgets here, so it is allowed.
///
/// # Errors
/// As a delete.
pub(crate) async fn evict(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let eviction = body::typed(ctx, "policy/v1", "Eviction", "policy.v1.Eviction")?;
    let options = Options::from_body(&eviction["deleteOptions"]);
    delete::remove_quietly(ctx, kind, &ctx.info.name, &options).await?;
    render::plain(ctx, &success(), StatusCode::CREATED)
}
