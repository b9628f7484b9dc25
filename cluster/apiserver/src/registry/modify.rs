//! PUT, and the one read-change-write loop that every change of an existing object goes through.

use std::sync::Arc;

use cluster_store::{KeyValue, Op, Precondition, StoreError};
use serde_json::{Value, json};

use super::{body, render};
use crate::{
    admission::{self, Attributes, Operation},
    allocator::Claim,
    apply::managed,
    context::Context,
    error::{ApiError, ApiResult, FieldError},
    kinds::{Kind, validation},
    object::{self, child, finalizers, integer, is_deleting, text},
    server::Reply,
};

/// How often a change without a resourceVersion is tried again when somebody was faster.
const ATTEMPTS: usize = 16;

/// What the loop made of an object.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) object: Value,
}

/// Who brings `managedFields` up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// The loop does.
    Due,
    /// Apply has done it.
    Done,
}

/// Handles an update of the object or of a part of it.
///
/// # Errors
/// Every refusal of parsing, admission, validation and the store.
pub(crate) async fn update(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let mut sent = body::object(ctx, kind)?;
    body::check_namespace(ctx, kind, &mut sent)?;
    let name = object::name(&sent).to_owned();
    if name.is_empty() {
        child(&mut sent, "metadata").insert("name".to_owned(), json!(ctx.info.name));
    } else if name != ctx.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            ctx.info.name
        )));
    }
    let changed = change(ctx, kind, &ctx.info.name, &ctx.info.subresource, |_| Ok(sent.clone())).await?;
    render::value(ctx, kind, changed.object, http::StatusCode::OK)
}

/// Reads an object, lets `make` change it, runs the result through admission and validation, and writes it; again when somebody else
/// wrote in between, unless the new object names a resourceVersion.
///
/// # Errors
/// 404, 409, and what the steps refuse.
pub(crate) async fn change(
    ctx: &Context,
    kind: &Arc<Kind>,
    name: &str,
    subresource: &str,
    make: impl FnMut(&Value) -> ApiResult<Value> + Send,
) -> ApiResult<Changed> {
    change_tracked(ctx, kind, name, subresource, Tracking::Due, make).await
}

/// [`change`], for callers that may have brought `managedFields` up to date themselves.
///
/// # Errors
/// As [`change`].
pub(crate) async fn change_tracked(
    ctx: &Context,
    kind: &Arc<Kind>,
    name: &str,
    subresource: &str,
    tracking: Tracking,
    mut make: impl FnMut(&Value) -> ApiResult<Value> + Send,
) -> ApiResult<Changed> {
    let key = kind.key(&ctx.info.namespace, name);
    for _ in 0..ATTEMPTS {
        let Some(kv) = ctx.api.store.get(&key).0 else { return Err(ApiError::not_found(kind, name)) };
        let old = read(kind, &kv)?;
        let mut new = make(&old)?;
        let wanted = text(&new, "/metadata/resourceVersion").to_owned();
        let conditional = !wanted.is_empty() && wanted != "0";
        if conditional && wanted != kv.mod_revision.to_string() {
            return Err(ApiError::modified(kind, name));
        }
        let uid = object::uid(&new);
        if !uid.is_empty() && uid != object::uid(&old) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(&old)
            );
            return Err(ApiError::conflict(kind, name, &why));
        }
        let claim = prepare(ctx, kind, (name, subresource, tracking), &mut new, &old).await?;
        match write(ctx, kind, &key, &kv, new, &old).await {
            Ok(changed) => {
                claim.keep();
                return Ok(changed);
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Err(ApiError::modified(kind, name))
}

/// A stored object in the kind's version.
pub(crate) fn read(kind: &Kind, kv: &KeyValue) -> ApiResult<Value> {
    let mut object = object::decode(kv)?;
    kind.show(&mut object);
    Ok(object)
}

/// Defaults of built-in and custom kinds.
pub(crate) fn finish_defaults(kind: &Kind, object: &mut Value) {
    kind.strategy.defaults(object);
    match &kind.custom {
        Some(custom) => custom.apply_defaults(object),
        None => object::prune_nulls(object, 4),
    }
}

/// Everything between what the client wants and what is written.
async fn prepare(
    ctx: &Context,
    kind: &Arc<Kind>,
    (name, subresource, tracking): (&str, &str, Tracking),
    new: &mut Value,
    old: &Value,
) -> ApiResult<Claim> {
    keep_server_fields(new, old);
    select_part(kind, subresource, new, old);
    finish_defaults(kind, new);
    let operation = Operation::Update;
    let attributes = Attributes { kind, namespace: &ctx.info.namespace, name, subresource, operation };
    admission::mutate(ctx, &attributes, new, Some(old)).await?;
    finish_defaults(kind, new);
    keep_server_fields(new, old);
    if subresource.is_empty() {
        kind.strategy.prepare_update(new, old);
    }
    count_generation(kind, new, old);
    validate(kind, subresource, new, old, name)?;
    let claim = Claim::take(&ctx.api, kind, new, Some(old))?;
    if tracking == Tracking::Due {
        managed::on_update(ctx, kind, subresource, new, old);
    }
    admission::validate(ctx, &attributes, new, Some(old)).await?;
    Ok(claim)
}

/// What no update changes.
fn keep_server_fields(new: &mut Value, old: &Value) {
    let before = &old["metadata"];
    let metadata = child(new, "metadata");
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "name",
        "namespace",
        "generateName",
    ] {
        match before.get(key) {
            Some(value) => metadata.insert(key.to_owned(), value.clone()),
            None => metadata.remove(key),
        };
    }
    metadata.remove("selfLink");
}

/// Takes from `new` only the part that the URL names.
fn select_part(kind: &Kind, subresource: &str, new: &mut Value, old: &Value) {
    let copy = |target: &mut Value, source: &Value, key: &str| match source.get(key) {
        Some(value) => target[key] = value.clone(),
        None => drop(object::remove(target, key)),
    };
    match subresource {
        "" if kind.has_status() => copy(new, old, "status"),
        "status" => {
            let sent = new.take();
            *new = old.clone();
            copy(new, &sent, "status");
            // Metadata may carry managed fields, and pods' and nodes' status writers also label.
            for key in ["managedFields", "resourceVersion"] {
                copy(&mut new["metadata"], &sent["metadata"], key);
            }
            if kind.is("", "nodes") || kind.is("", "pods") {
                for key in ["labels", "annotations"] {
                    copy(&mut new["metadata"], &sent["metadata"], key);
                }
            }
        }
        "finalize" => {
            let sent = new.take();
            *new = old.clone();
            copy(new, &sent, "spec");
        }
        _ => {}
    }
}

fn count_generation(kind: &Kind, new: &mut Value, old: &Value) {
    if !kind.generation && kind.custom.is_none() {
        return;
    }
    let with_status = kind.custom.as_ref().is_some_and(|custom| !custom.has_status());
    let same = |a: &Value, b: &Value| {
        a.as_object().into_iter().flatten().all(|(key, value)| {
            matches!(key.as_str(), "metadata" | "apiVersion" | "kind")
                || (key == "status" && !with_status)
                || b.get(key) == Some(value)
        })
    };
    if !(same(new, old) && same(old, new)) {
        let generation = integer(old, "/metadata/generation").unwrap_or(0) + 1;
        child(new, "metadata").insert("generation".to_owned(), json!(generation));
    }
}

fn validate(kind: &Kind, subresource: &str, new: &Value, old: &Value, name: &str) -> ApiResult<()> {
    let mut errors = Vec::new();
    validation::metadata(new, &mut errors);
    if is_deleting(old) {
        let before = finalizers(old);
        let added: Vec<_> = finalizers(new).iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {}",
                json!(added)
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &why));
        }
    }
    if let Some(custom) = &kind.custom {
        custom.validate(new, Some(old), &mut errors);
    }
    if subresource.is_empty() {
        kind.strategy.validate(new, &mut errors);
        kind.strategy.validate_update(new, old, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, name, &errors)) }
}

/// Whether nothing holds a deleted object any more.
fn may_go(kind: &Kind, object: &Value) -> bool {
    let grace = integer(object, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    let namespace_done = !kind.is("", "namespaces") || object::items(object, "/spec/finalizers").is_empty();
    is_deleting(object) && finalizers(object).is_empty() && grace == 0 && namespace_done
}

async fn write(
    ctx: &Context,
    kind: &Kind,
    key: &str,
    kv: &KeyValue,
    mut new: Value,
    old: &Value,
) -> ApiResult<Changed> {
    let removed = may_go(kind, &new);
    let mut stored = new.clone();
    kind.store(&mut stored);
    let bytes = object::encode(&stored)?;
    if ctx.dry_run {
        object::set_revision(&mut new, kv.mod_revision);
        return Ok(Changed { object: new });
    }
    if bytes == kv.value && !removed {
        object::set_revision(&mut new, kv.mod_revision);
        return Ok(Changed { object: new });
    }
    let op = if removed { Op::Delete } else { Op::Put(bytes) };
    match ctx.api.store.write(key, Precondition::ModRevision(kv.mod_revision), op).await {
        Ok(written) => {
            if removed {
                crate::allocator::release(&ctx.api, kind, old);
            }
            object::set_revision(&mut new, written.revision);
            Ok(Changed { object: new })
        }
        Err(StoreError::Conflict { .. } | StoreError::NotFound) => {
            Err(ApiError::modified(kind, object::name(old)))
        }
        Err(error) => Err(error.into()),
    }
}
