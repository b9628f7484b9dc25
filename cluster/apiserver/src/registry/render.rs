//! Shaping objects for a client: whole, as metadata only, or as a table; one, a list, or watch events.

use std::sync::Arc;

use bytes::Bytes;
use cluster_store::KeyValue;
use http::StatusCode;
use serde_json::{Value, json};

use super::{modify, watch::bookmark_object};
use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    media::{Accepted, Encoding, Form},
    object,
    server::Reply,
};

/// What stands in a list's metadata.
#[derive(Debug)]
pub(crate) struct ListMeta {
    pub(crate) revision: u64,
    pub(crate) token: Option<String>,
    pub(crate) remaining: Option<u64>,
}

/// What a table row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// Handles a get.
///
/// # Errors
/// 404 and 406.
pub(crate) fn get(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let accepted = ctx.accepted()?;
    let key = kind.key(&ctx.info.namespace, &ctx.info.name);
    let Some(kv) = ctx.api.store.get(&key).0 else { return Err(ApiError::not_found(kind, &ctx.info.name)) };
    if accepted.form == Form::Whole && accepted.encoding == Encoding::Json && !kind.converts() {
        let mut out = Vec::new();
        object::splice(&kv.value, kv.mod_revision, &mut out);
        out.push(b'\n');
        return Ok(Reply::bytes(StatusCode::OK, "application/json", Bytes::from(out)));
    }
    value(ctx, kind, modify::read(kind, &kv)?, StatusCode::OK)
}

/// Answers with one object.
///
/// # Errors
/// 406.
pub(crate) fn value(ctx: &Context, kind: &Kind, object: Value, status: StatusCode) -> ApiResult<Reply> {
    let accepted = ctx.accepted()?;
    let shaped = match accepted.form {
        Form::Whole => object,
        Form::Metadata => partial(&object),
        Form::Table => {
            let revision = object["metadata"]["resourceVersion"].clone();
            table(kind, &[object], json!({"resourceVersion": revision}), include(ctx)?, true)
        }
    };
    Ok(encoded(&accepted, status, &shaped))
}

/// Answers with an object that is not the kind's own (Scale, Status, reviews).
pub(crate) fn plain(ctx: &Context, object: &Value, status: StatusCode) -> ApiResult<Reply> {
    Ok(encoded(&ctx.accepted_plain()?, status, object))
}

fn encoded(accepted: &Accepted, status: StatusCode, value: &Value) -> Reply {
    match accepted.encoding {
        Encoding::Json => Reply::json(status, value),
        Encoding::Yaml => {
            let text = serde_saphyr::to_string(value).unwrap_or_default();
            Reply::bytes(status, Encoding::Yaml.content_type(), Bytes::from(text))
        }
    }
}

/// Answers with a list.
///
/// # Errors
/// 406.
pub(crate) fn list(ctx: &Context, kind: &Arc<Kind>, items: &[KeyValue], meta: &ListMeta) -> ApiResult<Reply> {
    let accepted = ctx.accepted()?;
    let mut metadata = json!({"resourceVersion": meta.revision.to_string()});
    if let Some(token) = &meta.token {
        metadata["continue"] = json!(token);
    }
    if let Some(remaining) = meta.remaining.filter(|n| *n > 0) {
        metadata["remainingItemCount"] = json!(remaining);
    }
    if accepted.form == Form::Whole && accepted.encoding == Encoding::Json && !kind.converts() {
        return Ok(spliced_list(kind, items, &metadata));
    }
    let objects = items.iter().map(|kv| modify::read(kind, kv)).collect::<ApiResult<Vec<_>>>()?;
    let shaped = match accepted.form {
        Form::Whole => {
            json!({"kind": kind.list_kind, "apiVersion": kind.api_version(), "metadata": metadata, "items": objects})
        }
        Form::Metadata => {
            let items: Vec<Value> = objects.iter().map(partial).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        }
        Form::Table => table(kind, &objects, metadata, include(ctx)?, true),
    };
    Ok(encoded(&accepted, StatusCode::OK, &shaped))
}

fn spliced_list(kind: &Kind, items: &[KeyValue], metadata: &Value) -> Reply {
    let bytes: usize = items.iter().map(|kv| kv.value.len() + 48).sum();
    let mut out = Vec::with_capacity(bytes + 256);
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        json!(kind.list_kind),
        json!(kind.api_version())
    );
    out.extend_from_slice(head.as_bytes());
    for (at, kv) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        object::splice(&kv.value, kv.mod_revision, &mut out);
    }
    out.extend_from_slice(b"]}\n");
    Reply::bytes(StatusCode::OK, "application/json", Bytes::from(out))
}

/// Only the metadata of an object.
fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn include(ctx: &Context) -> ApiResult<Include> {
    match ctx.query.get("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

fn table(kind: &Kind, objects: &[Value], metadata: Value, include: Include, columns: bool) -> Value {
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": kind.printer.cells(object, now)});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    let definitions = if columns { kind.printer.columns() } else { json!([]) };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows})
}

/// Shapes watch events for one client.
#[derive(Debug)]
pub(crate) struct Shaper {
    kind: Arc<Kind>,
    form: Form,
    include: Include,
    /// The columns have been sent.
    columns_sent: bool,
}

// === impl Shaper ===

impl Shaper {
    pub(crate) fn new(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Self> {
        let form = ctx.accepted()?.form;
        Ok(Self { kind: Arc::clone(kind), form, include: include(ctx)?, columns_sent: false })
    }

    /// Appends one event.
    pub(crate) fn event(&mut self, event: &str, kv: &KeyValue, out: &mut Vec<u8>) {
        if self.form == Form::Whole && !self.kind.converts() {
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(event.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            object::splice(&kv.value, kv.mod_revision, out);
            out.extend_from_slice(b"}\n");
            return;
        }
        match modify::read(&self.kind, kv) {
            Ok(object) => self.shaped(event, object, out),
            Err(error) => write_event("ERROR", &error.status(), out),
        }
    }

    fn shaped(&mut self, event: &str, object: Value, out: &mut Vec<u8>) {
        let shaped = match self.form {
            Form::Whole => object,
            Form::Metadata => partial(&object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                table(&self.kind, &[object], metadata, self.include, columns)
            }
        };
        write_event(event, &shaped, out);
    }

    /// Appends a bookmark.
    pub(crate) fn bookmark(&mut self, revision: u64, initial_end: bool, out: &mut Vec<u8>) {
        let object = bookmark_object(&self.kind, revision, initial_end);
        let shaped = match self.form {
            Form::Whole => object,
            Form::Metadata => partial(&object),
            Form::Table => {
                let row = json!({"cells": [], "object": partial(&object)});
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": [],
                    "metadata": {"resourceVersion": revision.to_string()}, "rows": [row]})
            }
        };
        write_event("BOOKMARK", &shaped, out);
    }
}

fn write_event(event: &str, object: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(json!({"type": event, "object": object}).to_string().as_bytes());
    out.push(b'\n');
}
