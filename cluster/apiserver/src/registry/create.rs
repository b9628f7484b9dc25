//! POST: a new object.

use std::sync::Arc;

use cluster_machinery::name as machinery_name;
use cluster_store::{Op, Precondition, StoreError};
use serde_json::{Value, json};

use super::{body, modify::finish_defaults, render};
use crate::{
    admission::{self, Attributes, Operation},
    allocator::Claim,
    apply::managed,
    context::Context,
    error::{ApiError, ApiResult, FieldError},
    kinds::{Kind, validation},
    media::{BodyType, body_type},
    object::{self, child, name, now, text},
    server::Reply,
};

/// Handles a create.
///
/// # Errors
/// Every refusal of parsing, admission, validation and the store.
pub(crate) async fn create(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    if !ctx.info.name.is_empty() && !kind.is("", "namespaces") {
        return Err(ApiError::method_not_allowed());
    }
    let mut object = body::object(ctx, kind)?;
    body::check_namespace(ctx, kind, &mut object)?;
    let created = insert(ctx, kind, object).await?;
    render::value(ctx, kind, created, http::StatusCode::CREATED)
}

/// Runs a new object through admission and validation and stores it; the namespace is set already.
///
/// # Errors
/// As [`create`].
pub(crate) async fn insert(ctx: &Context, kind: &Arc<Kind>, mut object: Value) -> ApiResult<Value> {
    let generated = begin(kind, &mut object)?;
    let original = object.clone();
    for attempt in 0..8 {
        if generated {
            let made_up = machinery_name::generate(text(&original, "/metadata/generateName"));
            child(&mut object, "metadata").insert("name".to_owned(), json!(made_up));
        }
        match store(ctx, kind, object.clone()).await {
            Err(error) if generated && attempt < 7 && error.code() == 409 => {}
            result => return result,
        }
    }
    Err(ApiError::internal("no free name was found"))
}

/// Sets what the server owns; returns whether the name must be made up.
fn begin(kind: &Kind, object: &mut Value) -> ApiResult<bool> {
    if !text(object, "/metadata/resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let generated = name(object).is_empty();
    if generated && text(object, "/metadata/generateName").is_empty() {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(kind, "", &[error]));
    }
    let metadata = child(object, "metadata");
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        metadata.remove(key);
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(now()));
    if kind.generation || kind.custom.is_some() {
        metadata.insert("generation".to_owned(), json!(1));
    } else {
        metadata.remove("generation");
    }
    Ok(generated)
}

async fn store(ctx: &Context, kind: &Arc<Kind>, mut object: Value) -> ApiResult<Value> {
    let (namespace, name) = (object::namespace(&object).to_owned(), name(&object).to_owned());
    finish_defaults(kind, &mut object);
    let attributes = Attributes {
        kind,
        namespace: &namespace,
        name: &name,
        subresource: "",
        operation: Operation::Create,
    };
    admission::mutate(ctx, &attributes, &mut object, None).await?;
    finish_defaults(kind, &mut object);
    if let Some(custom) = &kind.custom
        && custom.has_status()
    {
        object::remove(&mut object, "status");
    }
    kind.strategy.prepare_create(&mut object);
    validate(kind, &object, &name)?;
    let claim = Claim::take(&ctx.api, kind, &mut object, None)?;
    managed::on_create(kind, body_type(&ctx.headers) == BodyType::ApplyPatch, &mut object);
    admission::validate(ctx, &attributes, &object, None).await?;
    if ctx.dry_run {
        return Ok(object);
    }
    let mut stored = object.clone();
    kind.store(&mut stored);
    let bytes = object::encode(&stored)?;
    let key = kind.key(&namespace, &name);
    match ctx.api.store.write(&key, Precondition::Absent, Op::Put(bytes)).await {
        Ok(written) => {
            claim.keep();
            object::set_revision(&mut object, written.revision);
            Ok(object)
        }
        Err(StoreError::Conflict { .. }) => Err(ApiError::already_exists(kind, &name)),
        Err(error) => Err(error.into()),
    }
}

fn validate(kind: &Kind, object: &Value, name: &str) -> ApiResult<()> {
    let mut errors = Vec::new();
    let problems = kind.strategy.validate_name(name).into_iter();
    errors.extend(problems.map(|why| FieldError::invalid("metadata.name", name, why)));
    validation::metadata(object, &mut errors);
    if let Some(custom) = &kind.custom {
        custom.validate(object, None, &mut errors);
    }
    kind.strategy.validate(object, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, name, &errors)) }
}
