//! PATCH: JSON patch, merge patch, strategic merge patch; apply goes to its own module.

use std::sync::Arc;

use cluster_machinery::patch::{self as patches, PatchError};
use serde_json::Value;

use super::{body, modify, render};
use crate::{
    apply,
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    media::{BodyType, body_type},
    object::{self, child},
    schema::{merge::BuiltIn, parse},
    server::Reply,
};

/// Handles a patch of an object or its status.
///
/// # Errors
/// 400, 404, 409, 415, 422.
pub(crate) async fn patch(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let form = body_type(&ctx.headers);
    if form == BodyType::ApplyPatch {
        return apply::apply(ctx, kind).await;
    }
    let patch = read(ctx, kind, form)?;
    let changed = modify::change(ctx, kind, &ctx.info.name, &ctx.info.subresource, |old| {
        let mut new = old.clone();
        // A resourceVersion counts only when the patch itself names one.
        if form != BodyType::JsonPatch {
            child(&mut new, "metadata").remove("resourceVersion");
        }
        patch_value(kind, form, &mut new, &patch)?;
        if form == BodyType::JsonPatch
            && new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]
        {
            child(&mut new, "metadata").remove("resourceVersion");
        }
        check_identity(ctx, kind, &new)?;
        body::conform(ctx, kind, &mut new, Vec::new())?;
        Ok(new)
    })
    .await?;
    render::value(ctx, kind, changed.object, http::StatusCode::OK)
}

fn read(ctx: &Context, kind: &Kind, form: BodyType) -> ApiResult<Value> {
    let accepted = match form {
        BodyType::JsonPatch | BodyType::MergePatch => true,
        BodyType::StrategicMergePatch => kind.type_id.is_some(),
        _ => false,
    };
    if !accepted {
        let mut types = vec![
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ];
        if kind.type_id.is_some() {
            types.insert(2, "application/strategic-merge-patch+json");
        }
        return Err(ApiError::unsupported_media_type(&types));
    }
    let parsed = parse::json(&ctx.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    Ok(parsed.value)
}

/// Applies a patch of any of the three forms.
///
/// # Errors
/// 400 and 422.
pub(crate) fn patch_value(kind: &Kind, form: BodyType, object: &mut Value, patch: &Value) -> ApiResult<()> {
    let result = match (form, kind.type_id) {
        (BodyType::JsonPatch, _) => patches::json(object, patch),
        (BodyType::StrategicMergePatch, Some(id)) => patches::strategic(object, patch, &BuiltIn(id)),
        _ => patches::merge(object, patch),
    };
    result.map_err(|error| match error {
        PatchError::Malformed(why) => ApiError::bad_request(why),
        PatchError::Inapplicable(why) => ApiError::unprocessable(why),
    })
}

fn check_identity(ctx: &Context, kind: &Kind, new: &Value) -> ApiResult<()> {
    if object::text(new, "/apiVersion") != kind.api_version() || object::text(new, "/kind") != kind.kind {
        return Err(ApiError::bad_request("a patch may not change apiVersion or kind"));
    }
    if object::name(new) != ctx.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(new),
            ctx.info.name
        )));
    }
    if kind.namespaced && object::namespace(new) != ctx.info.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
