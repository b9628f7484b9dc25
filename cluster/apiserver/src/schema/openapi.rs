//! OpenAPI documents, made from the facts and from custom schemas when they are asked for.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Shape, Topology, TypeId, facts, gnostic};
use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::{Kind, Kinds},
    server::Reply,
};

/// `/openapi/v3`: the documents there are.
pub(crate) fn index(ctx: &Context) -> Reply {
    let kinds = ctx.api.kinds.load();
    let mut paths = Map::new();
    for (group, versions) in kinds.groups() {
        for version in versions {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let hash = hash(&kinds, &group, &version);
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    Reply::json(StatusCode::OK, &json!({"paths": paths}))
}

/// Changes when the kinds of a group version change.
fn hash(kinds: &Kinds, group: &str, version: &str) -> String {
    let mut digest = Sha256::new();
    for kind in kinds.iter().filter(|kind| kind.group == group && kind.version == version) {
        digest.update(kind.kind.as_bytes());
        if let Some(custom) = &kind.custom {
            digest.update(custom.revision.to_be_bytes());
        }
    }
    digest.update(env!("CARGO_PKG_VERSION"));
    format!("{:X}", digest.finalize())
}

/// `/openapi/v3/…`: one group version.
///
/// # Errors
/// 404.
pub(crate) fn document(ctx: &Context, group: &str, version: &str) -> ApiResult<Reply> {
    let kinds = ctx.api.kinds.load();
    let served: Vec<_> = kinds.iter().filter(|kind| kind.group == group && kind.version == version).collect();
    if served.is_empty() {
        return Err(ApiError::page_not_found());
    }
    let mut schemas = Schemas::new("#/components/schemas/", true);
    let mut paths = Map::new();
    for kind in served {
        let name = schemas.add_kind(kind);
        add_paths(kind, &name, &mut paths);
    }
    schemas.add_named("meta.v1.DeleteOptions");
    schemas.finish();
    let document = json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": ctx.api.version},
        "paths": paths, "components": {"schemas": schemas.done}});
    let mut reply = Reply::bytes(StatusCode::OK, "application/json", Bytes::from(document.to_string()));
    if ctx.query.get("hash").is_some_and(|asked| asked == hash(&kinds, group, version)) {
        reply = reply.header(header::CACHE_CONTROL, "public, immutable, max-age=31536000");
    }
    Ok(reply.header(header::VARY, "Accept"))
}

/// `/openapi/v2`: everything in one document, as JSON or, as kubectl asks for it, as protobuf.
///
/// # Errors
/// 406 when something else is wanted.
pub(crate) fn v2(ctx: &Context) -> ApiResult<Reply> {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2";
    let accepted = crate::media::clauses(&ctx.headers);
    let json = |media: &str| matches!(media, "application/json" | "*/*" | "application/*");
    let protobuf = accepted.iter().any(|(media, _)| media.starts_with(PROTOBUF));
    if !protobuf && !accepted.is_empty() && !accepted.iter().any(|(media, _)| json(media)) {
        return Err(ApiError::not_acceptable());
    }
    let kinds = ctx.api.kinds.load();
    let mut schemas = Schemas::new("#/definitions/", false);
    for kind in kinds.iter() {
        schemas.add_kind(kind);
    }
    schemas.finish();
    if protobuf {
        let paths =
            kinds.iter().filter(|kind| kind.verbs.contains(&"patch")).map(|kind| (path_of(kind), gvk(kind)));
        let bytes = gnostic::document(&ctx.api.version, schemas.done.iter(), paths);
        let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return Ok(Reply::bytes(StatusCode::OK, kind, Bytes::from(bytes)));
    }
    let document = json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": ctx.api.version},
        "paths": {}, "definitions": schemas.done});
    Ok(Reply::json(StatusCode::OK, &document))
}

/// The path of one object.
fn path_of(kind: &Kind) -> String {
    format!("{}/{{name}}", collection_of(kind))
}

fn collection_of(kind: &Kind) -> String {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("{root}{scope}/{}", kind.resource)
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// The paths of a kind, with what clients look for: who takes `fieldValidation`, and which kind it is.
fn add_paths(kind: &Kind, schema: &str, paths: &mut Map<String, Value>) {
    let collection = collection_of(kind);
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    let responses = json!({"200": {"description": "OK", "content": content}});
    let query = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|n| json!({"name": n, "in": "query", "schema": {"type": "string"}})).collect()
    };
    let writing = query(&["dryRun", "fieldManager", "fieldValidation"]);
    let action = |verb: &str, parameters: Vec<Value>, body: Option<Value>| {
        let mut operation = json!({"x-kubernetes-action": verb, "x-kubernetes-group-version-kind": gvk(kind),
            "parameters": parameters, "responses": responses});
        if let Some(body) = body {
            operation["requestBody"] = json!({"content": body});
        }
        operation
    };
    let mut patch_bodies = json!({"application/json-patch+json": {}, "application/merge-patch+json": {},
        "application/apply-patch+yaml": {}});
    if kind.type_id.is_some() {
        patch_bodies["application/strategic-merge-patch+json"] = json!({});
    }
    let mut many = json!({"post": action("post", writing.clone(), Some(content.clone()))});
    if kind.verbs.contains(&"list") {
        many["get"] = action("list", query(&["labelSelector", "fieldSelector", "limit", "continue"]), None);
    }
    paths.insert(collection.clone(), many);
    if !kind.verbs.contains(&"get") {
        return;
    }
    let one = json!({"get": action("get", Vec::new(), None), "delete": action("delete", query(&["dryRun"]), None),
        "put": action("put", writing.clone(), Some(content.clone())),
        "patch": action("patch", query(&["dryRun", "fieldManager", "fieldValidation", "force"]), Some(patch_bodies))});
    paths.insert(path_of(kind), one);
}

/// Schemas being collected: the wanted ones, and all they refer to.
struct Schemas {
    done: Map<String, Value>,
    waiting: Vec<TypeId>,
    seen: BTreeSet<String>,
    reference: &'static str,
    /// OpenAPI 3 wraps references that have siblings.
    v3: bool,
}

// === impl Schemas ===

impl Schemas {
    fn new(reference: &'static str, v3: bool) -> Self {
        Self { done: Map::new(), waiting: Vec::new(), seen: BTreeSet::new(), reference, v3 }
    }

    fn add_named(&mut self, name: &str) {
        if let Some(id) = facts().find(name) {
            self.want(id);
        }
    }

    fn want(&mut self, id: TypeId) {
        let name = long_name(facts().get(id).name);
        if self.seen.insert(name) {
            self.waiting.push(id);
        }
    }

    /// Adds a kind and its list; returns the name of its schema.
    fn add_kind(&mut self, kind: &Kind) -> String {
        let name = match (kind.type_id, &kind.custom) {
            (Some(id), _) => {
                self.want(id);
                long_name(facts().get(id).name)
            }
            (None, Some(custom)) => {
                let mut parts: Vec<&str> = kind.group.split('.').collect();
                parts.reverse();
                let name = format!("{}.{}.{}", parts.join("."), kind.version, kind.kind);
                let mut schema = custom.openapi();
                schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
                if schema["type"].is_null() {
                    schema["type"] = json!("object");
                }
                schema["properties"]["apiVersion"] = json!({"type": "string"});
                schema["properties"]["kind"] = json!({"type": "string"});
                schema["properties"]["metadata"] = self.shape(&self.metadata());
                self.done.insert(name.clone(), schema);
                self.add_named("meta.v1.ObjectMeta");
                name
            }
            (None, None) => return String::new(),
        };
        if kind.verbs.contains(&"list") {
            let list = json!({"type": "object", "required": ["items"], "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                "items": {"type": "array", "items": self.pointer(&name)}}});
            self.done.insert(format!("{name}List"), list);
        }
        self.add_gvk(kind, &name);
        name
    }

    fn metadata(&self) -> Shape {
        facts().find("meta.v1.ObjectMeta").map_or(Shape::Object, Shape::Ref)
    }

    /// Remembers the kind of a built-in type until its schema is made.
    fn add_gvk(&mut self, kind: &Kind, name: &str) {
        if kind.custom.is_none() {
            let entry = self.done.entry(name.to_owned()).or_insert_with(|| json!({}));
            entry["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
        }
    }

    fn pointer(&self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.reference)})
    }

    /// Makes all schemas that are still waiting.
    fn finish(&mut self) {
        while let Some(id) = self.waiting.pop() {
            let entry = facts().get(id);
            let mut schema = match &entry.alias {
                Some(alias) => self.shape(alias),
                None => self.object(id),
            };
            let name = long_name(entry.name);
            if let Some(mark) = self.done.get(&name).and_then(|s| s.get("x-kubernetes-group-version-kind")) {
                schema["x-kubernetes-group-version-kind"] = mark.clone();
            }
            self.done.insert(name, schema);
        }
    }

    fn object(&mut self, id: TypeId) -> Value {
        let entry = facts().get(id);
        let mut properties = Map::new();
        for field in &entry.fields {
            let mut schema = self.shape(&field.shape);
            let mut marks = Map::new();
            match field.topology {
                Topology::Default => {}
                Topology::Atomic if matches!(field.shape, Shape::List(_)) => {
                    marks.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
                }
                Topology::Atomic => {
                    marks.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
                }
                Topology::Set => {
                    marks.insert("x-kubernetes-list-type".to_owned(), json!("set"));
                }
                Topology::ListMap(keys) => {
                    marks.insert("x-kubernetes-list-type".to_owned(), json!("map"));
                    marks.insert(
                        "x-kubernetes-list-map-keys".to_owned(),
                        json!(keys.split(',').collect::<Vec<_>>()),
                    );
                }
            }
            if field.patch_merge {
                let strategy = if field.patch_retain_keys { "merge,retainKeys" } else { "merge" };
                marks.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategy));
            }
            if let Some(key) = field.patch_key {
                marks.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
            }
            if let Some(map) = schema.as_object_mut() {
                map.extend(marks);
            }
            properties.insert(field.name.to_owned(), schema);
        }
        let required: Vec<&str> = entry.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if entry.atomic {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        schema
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::String | Shape::Quantity => json!({"type": "string"}),
            Shape::Boolean => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Number => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            Shape::IntOrString if self.v3 => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
            Shape::IntOrString => json!({"type": "string", "format": "int-or-string"}),
            Shape::Object => json!({"type": "object"}),
            Shape::Any => json!({"description": "Any value."}),
            Shape::List(item) => json!({"type": "array", "items": self.shape(item)}),
            Shape::Map(item) => json!({"type": "object", "additionalProperties": self.shape(item)}),
            Shape::Ref(id) => {
                self.want(*id);
                let pointer = self.pointer(&long_name(facts().get(*id).name));
                if self.v3 { json!({"allOf": [pointer]}) } else { pointer }
            }
        }
    }
}

/// The name that Kubernetes gives a type.
fn long_name(short: &str) -> String {
    match short.split_once('.') {
        Some(("meta", rest)) => format!("io.k8s.apimachinery.pkg.apis.meta.{rest}"),
        Some(("apiextensions", rest)) => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{rest}")
        }
        _ => format!("io.k8s.api.{short}"),
    }
}
