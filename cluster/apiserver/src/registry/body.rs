//! Reading an object from a request's body: encoding, unknown fields, apiVersion and kind, namespace.

use serde_json::{Value, json};

use crate::{
    context::{Context, FieldValidation},
    error::{ApiError, ApiResult},
    kinds::Kind,
    media::{BodyType, body_type},
    object::{child, namespace, text},
    schema::{
        TypeId,
        decode::decode,
        facts,
        parse::{self, Parsed},
        protobuf,
    },
};

/// The object in the body of a create or update, checked and cleaned.
///
/// # Errors
/// 400, 415, and 400 for unknown fields when validation is strict.
pub(crate) fn object(ctx: &Context, kind: &Kind) -> ApiResult<Value> {
    let parsed = parse(ctx)?;
    let mut value = parsed.value;
    if !value.is_object() {
        return Err(ApiError::bad_request("the body must be an object"));
    }
    type_meta(&mut value, &kind.api_version(), &kind.kind)?;
    conform(ctx, kind, &mut value, parsed.duplicates)?;
    Ok(value)
}

/// The object in the body as a built-in type other than the resource's own (Binding, Eviction, TokenRequest, Scale …).
///
/// # Errors
/// 400 and 415.
pub(crate) fn typed(ctx: &Context, api_version: &str, kind: &str, type_name: &str) -> ApiResult<Value> {
    let mut value = parse(ctx)?.value;
    if value.is_null() {
        value = json!({});
    }
    type_meta(&mut value, api_version, kind)?;
    if let Some(id) = facts().find(type_name) {
        decode(facts(), id, kind, &mut value)
            .map_err(|error| cannot_handle(kind, api_version, &error.to_string()))?;
    }
    Ok(value)
}

/// Parses the body by its content type.
///
/// # Errors
/// 400 and 415.
pub(crate) fn parse(ctx: &Context) -> ApiResult<Parsed> {
    let parsed = match body_type(&ctx.headers) {
        BodyType::Json => {
            if ctx.body.iter().all(u8::is_ascii_whitespace) {
                return Ok(Parsed { value: Value::Null, duplicates: Vec::new() });
            }
            parse::json(&ctx.body)
        }
        BodyType::Yaml | BodyType::ApplyPatch => parse::yaml(&ctx.body),
        BodyType::Protobuf => {
            protobuf::decode(&ctx.body).map(|value| Parsed { value, duplicates: Vec::new() })
        }
        _ => {
            return Err(ApiError::unsupported_media_type(&[
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
            ]));
        }
    };
    parsed.map_err(|error| {
        ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
    })
}

fn type_meta(value: &mut Value, api_version: &str, kind: &str) -> ApiResult<()> {
    let (given_version, given_kind) =
        (text(value, "/apiVersion").to_owned(), text(value, "/kind").to_owned());
    if !given_version.is_empty() && given_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({given_kind}) does not match the expected kind ({kind})"
        )));
    }
    value["apiVersion"] = json!(api_version);
    value["kind"] = json!(kind);
    Ok(())
}

fn cannot_handle(kind: &str, api_version: &str, why: &str) -> ApiError {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

/// Checks an object against the kind's schema, drops what it does not know, and says so as asked.
///
/// # Errors
/// 400 for wrong types, and for unknown or duplicate fields when validation is strict.
pub(crate) fn conform(
    ctx: &Context,
    kind: &Kind,
    value: &mut Value,
    duplicates: Vec<String>,
) -> ApiResult<()> {
    let mut notes: Vec<String> =
        unknown_fields(kind, value)?.iter().map(|f| format!("unknown field \"{f}\"")).collect();
    notes.extend(duplicates.iter().map(|f| format!("duplicate field \"{f}\"")));
    if notes.is_empty() {
        return Ok(());
    }
    match ctx.field_validation()? {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            for note in notes {
                ctx.warn(note);
            }
            Ok(())
        }
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", notes.join(", "));
            Err(if kind.custom.is_some() {
                ApiError::bad_request(why)
            } else {
                cannot_handle(&kind.kind, &kind.api_version(), &why)
            })
        }
    }
}

/// Decodes by facts or by the custom schema; returns what was unknown and is dropped.
///
/// # Errors
/// 400 for wrong types.
pub(crate) fn unknown_fields(kind: &Kind, value: &mut Value) -> ApiResult<Vec<String>> {
    if let Some(custom) = &kind.custom {
        let metadata = facts().find("meta.v1.ObjectMeta");
        let mut unknown = Vec::new();
        if let (Some(id), Some(slot)) = (metadata, value.get_mut("metadata")) {
            let found = by_facts(id, kind, slot)?;
            unknown.extend(found.into_iter().map(|field| format!("metadata.{field}")));
        }
        unknown.extend(custom.prune(value));
        return Ok(unknown);
    }
    match kind.type_id {
        Some(id) => by_facts(id, kind, value),
        None => Ok(Vec::new()),
    }
}

fn by_facts(id: TypeId, kind: &Kind, value: &mut Value) -> ApiResult<Vec<String>> {
    decode(facts(), id, &kind.kind, value)
        .map_err(|error| cannot_handle(&kind.kind, &kind.api_version(), &error.to_string()))
}

/// Makes the object's namespace the request's.
///
/// # Errors
/// 400 when they differ.
pub(crate) fn check_namespace(ctx: &Context, kind: &Kind, value: &mut Value) -> ApiResult<()> {
    child(value, "metadata");
    if !kind.namespaced {
        child(value, "metadata").remove("namespace");
        return Ok(());
    }
    let given = namespace(value);
    if !given.is_empty() && given != ctx.info.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    child(value, "metadata").insert("namespace".to_owned(), json!(ctx.info.namespace));
    Ok(())
}
