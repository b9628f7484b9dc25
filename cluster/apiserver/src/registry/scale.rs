//! `/scale` of Deployments, ReplicaSets and custom resources: `autoscaling/v1` Scale.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{body, modify, patch, render};
use crate::{
    context::Context,
    error::{ApiError, ApiResult, FieldError},
    kinds::Kind,
    media::body_type,
    object::{self, child, integer},
    schema::parse,
    server::Reply,
};

/// Where a kind keeps what Scale shows, as JSON pointers.
struct Paths {
    spec: String,
    status: String,
    selector: Option<String>,
}

/// Handles get, update and patch of a scale.
///
/// # Errors
/// 400, 404, 409, 422.
pub(crate) async fn handle(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let Some(paths) = paths(kind) else { return Err(ApiError::page_not_found()) };
    let name = &ctx.info.name;
    if ctx.info.verb == "get" {
        let kv = ctx.api.store.get(&kind.key(&ctx.info.namespace, name)).0;
        let kv = kv.ok_or_else(|| ApiError::not_found(kind, name))?;
        return render::plain(ctx, &scale_of(&modify::read(kind, &kv)?, &paths), StatusCode::OK);
    }
    let sent = if ctx.info.verb == "update" {
        Some(body::typed(ctx, "autoscaling/v1", "Scale", "autoscaling.v1.Scale")?)
    } else {
        None
    };
    let patch = match sent {
        Some(_) => Value::Null,
        None => {
            parse::json(&ctx.body)
                .map_err(|why| ApiError::bad_request(format!("error decoding patch: {why}")))?
                .value
        }
    };
    let changed = modify::change(ctx, kind, name, "", |old| {
        let scale = match &sent {
            Some(sent) => sent.clone(),
            None => {
                let mut scale = scale_of(old, &paths);
                child(&mut scale, "metadata").remove("resourceVersion");
                patch::patch_value(kind, plain_form(ctx), &mut scale, &patch)?;
                scale
            }
        };
        let replicas = integer(&scale, "/spec/replicas").unwrap_or(0);
        if replicas < 0 {
            let why = "must be greater than or equal to 0";
            let errors = [FieldError::invalid("spec.replicas", json!(replicas), why)];
            return Err(ApiError::invalid(kind, name, &errors));
        }
        let mut new = old.clone();
        let metadata = child(&mut new, "metadata");
        match object::text(&scale, "/metadata/resourceVersion") {
            "" => metadata.remove("resourceVersion"),
            wanted => metadata.insert("resourceVersion".to_owned(), json!(wanted)),
        };
        set(&mut new, &paths.spec, json!(replicas));
        Ok(new)
    })
    .await?;
    render::plain(ctx, &scale_of(&changed.object, &paths), StatusCode::OK)
}

/// A Scale has no merge keys: strategic is merge.
fn plain_form(ctx: &Context) -> crate::media::BodyType {
    match body_type(&ctx.headers) {
        crate::media::BodyType::StrategicMergePatch => crate::media::BodyType::MergePatch,
        form => form,
    }
}

fn paths(kind: &Kind) -> Option<Paths> {
    if let Some(custom) = &kind.custom {
        let (spec, status, selector) = custom.scale_paths()?;
        return Some(Paths { spec, status, selector });
    }
    Some(Paths { spec: "/spec/replicas".to_owned(), status: "/status/replicas".to_owned(), selector: None })
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut slot = object;
    for name in pointer.split('/').skip(1) {
        if !slot.is_object() {
            *slot = json!({});
        }
        slot = &mut slot[name];
    }
    *slot = value;
}

fn scale_of(object: &Value, paths: &Paths) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": metadata["name"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {"replicas": integer(object, &paths.spec).unwrap_or(0)},
        "status": {"replicas": integer(object, &paths.status).unwrap_or(0)}});
    if let Some(namespace) = metadata.get("namespace") {
        scale["metadata"]["namespace"] = namespace.clone();
    }
    let selector = match &paths.selector {
        Some(pointer) => object::text(object, pointer).to_owned(),
        None => selector_text(&object["spec"]["selector"]),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// A label selector in the form of query parameters.
fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in object::items(selector, "/matchExpressions") {
        let key = object::text(expression, "/key");
        let values: Vec<&str> =
            object::items(expression, "/values").iter().filter_map(Value::as_str).collect();
        parts.push(match object::text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}
