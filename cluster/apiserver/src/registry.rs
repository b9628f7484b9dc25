//! The generic registry: one set of handlers for all kinds.

pub(crate) mod body;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod list;
pub(crate) mod modify;
pub(crate) mod patch;
pub(crate) mod pods;
pub(crate) mod render;
pub(crate) mod reviews;
pub(crate) mod scale;
pub(crate) mod selection;
pub(crate) mod tokens;
pub(crate) mod watch;

use std::sync::Arc;

use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    server::Reply,
};

/// Dispatches a request on a resource.
///
/// # Errors
/// What the handler refuses.
pub(crate) async fn handle(ctx: &Context) -> ApiResult<Reply> {
    let kind = ctx.kind()?;
    if kind.namespaced
        && ctx.info.namespace.is_empty()
        && !matches!(ctx.info.verb, "list" | "watch" | "get" | "deletecollection")
    {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    if !kind.namespaced && !ctx.info.namespace.is_empty() && !kind.is("", "namespaces") {
        return Err(ApiError::page_not_found());
    }
    if !ctx.info.subresource.is_empty() {
        return subresource(ctx, kind).await;
    }
    let nameless = ctx.info.name.is_empty() && matches!(ctx.info.verb, "update" | "patch");
    if nameless || !kind.verbs.contains(&ctx.info.verb) {
        return Err(ApiError::method_not_allowed());
    }
    match ctx.info.verb {
        "get" => render::get(ctx, &kind),
        "list" => list::list(ctx, &kind),
        "watch" => watch::watch(ctx, kind).await,
        "create" if kind.verbs.len() == 1 => reviews::create(ctx, &kind).await,
        "create" => create::create(ctx, &kind).await,
        "update" => modify::update(ctx, &kind).await,
        "patch" => patch::patch(ctx, &kind).await,
        "delete" => delete::delete(ctx, &kind).await,
        "deletecollection" => delete::collection(ctx, &kind).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn subresource(ctx: &Context, kind: Arc<Kind>) -> ApiResult<Reply> {
    let Some(subresource) = kind.subresource(&ctx.info.subresource) else {
        return Err(ApiError::page_not_found());
    };
    let verb = if ctx.info.verb == "watch" { "get" } else { ctx.info.verb };
    if !subresource.verbs.contains(&verb) {
        return Err(ApiError::method_not_allowed());
    }
    match (subresource.name, verb) {
        ("status", "get") => render::get(ctx, &kind),
        ("status" | "finalize", "update") => modify::update(ctx, &kind).await,
        ("status", "patch") => patch::patch(ctx, &kind).await,
        ("scale", _) => scale::handle(ctx, &kind).await,
        ("binding", _) => pods::bind(ctx, &kind).await,
        ("eviction", _) => pods::evict(ctx, &kind).await,
        ("token", _) => tokens::create(ctx, &kind).await,
        ("log", _) => crate::kubelet::logs(ctx).await,
        ("proxy", _) => crate::pod_proxy::forward(ctx).await,
        _ => Err(ApiError::page_not_found()),
    }
}
