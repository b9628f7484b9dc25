//! Discovery: which groups, versions and resources are served, in the plain and the aggregated form.

use http::{StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::{Kind, Kinds, Name},
    media::clauses,
    server::Reply,
};

/// The aggregated form that a client wants: its version.
fn aggregated(ctx: &Context) -> Option<&'static str> {
    clauses(&ctx.headers).iter().find_map(|(media, parameters)| {
        let is = |key: &str, value: &str| parameters.iter().any(|(k, v)| k == key && v == value);
        if media != "application/json"
            || !is("g", "apidiscovery.k8s.io")
            || !is("as", "APIGroupDiscoveryList")
        {
            return None;
        }
        ["v2", "v2beta1"].into_iter().find(|version| is("v", version))
    })
}

/// `/api`.
///
/// # Errors
/// None now; the signature is that of all handlers.
pub(crate) fn core_versions(ctx: &Context) -> ApiResult<Reply> {
    if let Some(version) = aggregated(ctx) {
        return Ok(aggregated_reply(ctx, version, |group| group.is_empty()));
    }
    let address = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": ctx.api.advertise.to_string()}]);
    Ok(Reply::json(
        StatusCode::OK,
        &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address}),
    ))
}

/// `/apis`.
///
/// # Errors
/// None now.
pub(crate) fn groups(ctx: &Context) -> ApiResult<Reply> {
    if let Some(version) = aggregated(ctx) {
        return Ok(aggregated_reply(ctx, version, |group| !group.is_empty()));
    }
    let kinds = ctx.api.kinds.load();
    let groups: Vec<Value> = kinds
        .groups()
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_value(group, versions))
        .collect();
    Ok(Reply::json(StatusCode::OK, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})))
}

/// `/apis/GROUP`.
///
/// # Errors
/// 404.
pub(crate) fn group(ctx: &Context, name: &str) -> ApiResult<Reply> {
    let kinds = ctx.api.kinds.load();
    let groups = kinds.groups();
    let found = groups.iter().find(|(group, _)| group == name && !name.is_empty());
    let (group, versions) = found.ok_or_else(ApiError::page_not_found)?;
    let mut value = group_value(group, versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Ok(Reply::json(StatusCode::OK, &value))
}

fn group_value(group: &str, versions: &[Name]) -> Value {
    let entry = |version: &Name| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let preferred = versions.first().map(entry);
    json!({"name": group, "versions": versions.iter().map(entry).collect::<Vec<_>>(), "preferredVersion": preferred})
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
///
/// # Errors
/// 404.
pub(crate) fn resources(ctx: &Context, group: &str, version: &str) -> ApiResult<Reply> {
    let kinds = ctx.api.kinds.load();
    let mut list = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.group == group && kind.version == version) {
        let mut entry = json!({"name": kind.resource, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": kind.verbs});
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        if kind.verbs.len() > 1 {
            entry["storageVersionHash"] = json!(storage_hash(kind));
        }
        list.push(entry);
        for sub in &kind.subresources {
            let mut entry = json!({"name": format!("{}/{}", kind.resource, sub.name), "singularName": "",
                "namespaced": kind.namespaced, "kind": sub.kind, "verbs": sub.verbs});
            if sub.group != kind.group || sub.version != kind.version {
                entry["group"] = json!(sub.group);
                entry["version"] = json!(sub.version);
            }
            list.push(entry);
        }
    }
    if list.is_empty() {
        return Err(ApiError::page_not_found());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let value = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list});
    Ok(Reply::json(StatusCode::OK, &value))
}

fn storage_hash(kind: &Kind) -> String {
    let text = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &Sha256::digest(text)[..8])
}

fn aggregated_reply(ctx: &Context, version: &str, wanted: impl Fn(&str) -> bool) -> Reply {
    let kinds = ctx.api.kinds.load();
    let items: Vec<Value> = kinds
        .groups()
        .iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| aggregated_group(&kinds, group, versions))
        .collect();
    let value = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items});
    let text = value.to_string();
    let tag = format!("\"{:X}\"", Sha256::digest(&text));
    let content_type = if version == "v2" {
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    } else {
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    };
    let known = ctx.headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let reply = if known == Some(tag.as_str()) {
        Reply::bytes(StatusCode::NOT_MODIFIED, content_type, bytes::Bytes::new())
    } else {
        Reply::bytes(StatusCode::OK, content_type, text.into())
    };
    reply.header(header::ETAG, &tag).header(header::VARY, "Accept")
}

fn aggregated_group(kinds: &Kinds, group: &str, versions: &[Name]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = kinds
                .iter()
                .filter(|kind| kind.group == group && kind.version == *version)
                .map(|kind| aggregated_resource(kind))
                .collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    let mut value = json!({"metadata": {"creationTimestamp": null}, "versions": versions});
    if !group.is_empty() {
        value["metadata"]["name"] = json!(group);
    }
    value
}

fn aggregated_resource(kind: &Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            json!({"subresource": sub.name, "verbs": sub.verbs,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind}})
        })
        .collect();
    let mut entry = json!({"resource": kind.resource,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": kind.verbs});
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    if !subresources.is_empty() {
        entry["subresources"] = json!(subresources);
    }
    entry
}
