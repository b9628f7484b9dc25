//! Server-side apply: PATCH with `application/apply-patch+yaml`, and who owns which field.

pub(crate) mod fields;
pub(crate) mod managed;
mod merge;
mod nav;

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    object::{self, child, name, text},
    registry::{body, create, modify, render},
    schema::parse,
    server::Reply,
};
use fields::Fields;
use managed::{Manager, Managers};
use nav::Nav;

/// Handles an apply: creates the object or merges into it.
///
/// # Errors
/// 400, 409 with one cause for each conflict, 422.
pub(crate) async fn apply(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let config = read(ctx, kind)?;
    let force = ctx.query.flag("force");
    for _ in 0..4 {
        let key = kind.key(&ctx.info.namespace, &ctx.info.name);
        if ctx.api.store.get(&key).0.is_none() {
            if !ctx.info.subresource.is_empty() {
                return Err(ApiError::not_found(kind, &ctx.info.name));
            }
            let mut object = config.clone();
            let manager = manager(ctx, kind, set_of(ctx, kind, &config));
            managed::write(&mut object, &Managers(vec![manager]));
            match create::insert(ctx, kind, object).await {
                Err(error) if error.code() == 409 => continue,
                created => return render::value(ctx, kind, created?, StatusCode::CREATED),
            }
        }
        let tracking = modify::Tracking::Done;
        let subresource = &ctx.info.subresource;
        let changed = modify::change_tracked(ctx, kind, &ctx.info.name, subresource, tracking, |live| {
            merge_into(ctx, kind, live, &config, force)
        });
        match changed.await {
            // It went away in between: it is created.
            Err(error) if error.is_not_found() && subresource.is_empty() => {}
            changed => return render::value(ctx, kind, changed?.object, StatusCode::OK),
        }
    }
    Err(ApiError::modified(kind, &ctx.info.name))
}

fn read(ctx: &Context, kind: &Kind) -> ApiResult<Value> {
    let manager = ctx.query.get("fieldManager").unwrap_or_default();
    if manager.is_empty() {
        return Err(ApiError::unprocessable(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let parsed = parse::json(&ctx.body).or_else(|_| parse::yaml(&ctx.body));
    let mut config =
        parsed.map_err(|why| ApiError::bad_request(format!("error decoding YAML: {why}")))?.value;
    if !config.is_object() {
        return Err(ApiError::bad_request("error decoding YAML: the body must be an object"));
    }
    if text(&config, "/apiVersion") != kind.api_version() || text(&config, "/kind") != kind.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({}, {}) does not match the expected kind ({}, {})",
            text(&config, "/apiVersion"),
            text(&config, "/kind"),
            kind.api_version(),
            kind.kind
        )));
    }
    if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    body::check_namespace(ctx, kind, &mut config)?;
    if name(&config).is_empty() {
        child(&mut config, "metadata").insert("name".to_owned(), json!(ctx.info.name));
    } else if name(&config) != ctx.info.name {
        return Err(ApiError::bad_request("the name of the object does not match the name on the URL"));
    }
    let unknown = body::unknown_fields(kind, &mut config)?;
    if let Some(first) = unknown.first() {
        let place = format!("{}/{}", ctx.info.namespace, ctx.info.name);
        return Err(ApiError::bad_request(format!(
            "failed to create typed patch object ({place}; {}, Kind={}): .{first}: field not declared in schema",
            kind.api_version(),
            kind.kind
        )));
    }
    object::prune_nulls(&mut config, 64);
    Ok(config)
}

/// The fields that a configuration names and this part of the object has.
fn set_of(ctx: &Context, kind: &Kind, config: &Value) -> Fields {
    let mut set = merge::set_of(config, &Nav::of(kind));
    managed::restrict(&mut set, kind, &ctx.info.subresource);
    set
}

fn manager(ctx: &Context, kind: &Kind, fields: Fields) -> Manager {
    Manager {
        name: ctx.field_manager(),
        applied: true,
        api_version: kind.api_version(),
        subresource: ctx.info.subresource.clone(),
        time: object::now(),
        fields,
    }
}

/// The live object with the configuration merged in and ownership brought up to date.
fn merge_into(ctx: &Context, kind: &Kind, live: &Value, config: &Value, force: bool) -> ApiResult<Value> {
    let nav = Nav::of(kind);
    let mut managers = Managers::read(live);
    if managers.0.is_empty() {
        let mut all = merge::set_of(live, &nav);
        managed::restrict(&mut all, kind, "");
        managers.0.push(Manager::before_first_apply(kind, live, all));
    }
    let mine = manager(ctx, kind, set_of(ctx, kind, config));
    let wanted = &mine.fields;
    let mut merged = merge::merge(live, config, &nav);
    let (changed, _) = merge::diff(live, &merged, &nav);
    let contested = changed.intersection(wanted);
    let mut conflicts = Vec::new();
    for other in managers.0.iter_mut().filter(|other| !other.is_same(&mine)) {
        let lost = other.fields.intersection(&contested);
        if lost.is_empty() {
            continue;
        }
        if force {
            other.fields = other.fields.difference(&lost);
        } else {
            conflicts.extend(lost.paths().into_iter().map(|path| (other.title(), path)));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflict_error(kind, &ctx.info.name, &conflicts));
    }
    let previous =
        managers.0.iter().find(|other| other.is_same(&mine)).map(|m| m.fields.clone()).unwrap_or_default();
    let dropped = previous.difference(wanted);
    let kept = managers
        .0
        .iter()
        .filter(|other| !other.is_same(&mine))
        .fold(wanted.clone(), |all, m| all.union(&m.fields));
    merge::remove(&mut merged, &dropped, &kept, &nav);
    managers.replace(mine);
    // What is gone is owned by nobody.
    let existing = merge::set_of(&merged, &nav);
    managers.keep_existing(&existing);
    managed::write(&mut merged, &managers);
    let metadata = child(&mut merged, "metadata");
    match text(config, "/metadata/resourceVersion") {
        "" => metadata.remove("resourceVersion"),
        wanted => metadata.insert("resourceVersion".to_owned(), json!(wanted)),
    };
    Ok(merged)
}

fn conflict_error(kind: &Kind, name: &str, conflicts: &[(String, String)]) -> ApiError {
    let plural = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    let mut lines: Vec<String> =
        conflicts.iter().map(|(who, path)| format!("conflict with {who}: {path}")).collect();
    lines.dedup();
    let message = if let [one] = lines.as_slice() {
        format!("Apply failed with 1 conflict: {one}")
    } else {
        format!("Apply failed with {} {plural}: {}", conflicts.len(), lines.join("\n"))
    };
    let error = ApiError::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name);
    conflicts.iter().fold(error, |error, (who, path)| {
        error.cause("FieldManagerConflict", &format!("conflict with {who}"), path)
    })
}
