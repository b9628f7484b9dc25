//! GET of a collection: revisions, pages, selectors.

use std::sync::Arc;

use base64::Engine as _;
use cluster_store::{KeyValue, StoreError};
use serde_json::{Value, json};

use super::{
    modify,
    render::{self, ListMeta},
    selection::Selection,
};
use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    server::Reply,
};

/// How many pairs are read from the store at once when a page is filtered.
const CHUNK: usize = 500;

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) items: Vec<KeyValue>,
    pub(crate) revision: u64,
    /// How many follow; `None` when that is unknown because of a selector.
    pub(crate) remaining: Option<u64>,
    /// Where the next page begins.
    pub(crate) next: Option<String>,
}

/// Handles a list.
///
/// # Errors
/// 400, 410, 504.
pub(crate) fn list(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let selection = Selection::read(ctx, kind)?;
    let found = find(ctx, kind, &selection)?;
    let token = found.next.as_deref().map(|last| encode_token(found.revision, last));
    let meta = ListMeta { revision: found.revision, token, remaining: found.remaining };
    render::list(ctx, kind, &found.items, &meta)
}

/// All matching objects now, parsed.
///
/// # Errors
/// 400 for bad selectors.
pub(crate) fn collect(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Vec<Value>> {
    let selection = Selection::read(ctx, kind)?;
    let page = ctx.api.store.list(&kind.prefix_in(&ctx.info.namespace), None, 0, None)?;
    let mut objects = Vec::new();
    for kv in &page.items {
        let object = modify::read(kind, kv)?;
        if selection.matches(kind, &object) {
            objects.push(object);
        }
    }
    Ok(objects)
}

fn find(ctx: &Context, kind: &Arc<Kind>, selection: &Selection) -> ApiResult<Found> {
    let limit = ctx.query.get("limit").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
    let (at_revision, start) = position(ctx, limit)?;
    let prefix = kind.prefix_in(&ctx.info.namespace);
    if let (Some(name), false) = (selection.only_name(), kind.namespaced && ctx.info.namespace.is_empty()) {
        return one(ctx, kind, selection, name);
    }
    let read = |start: Option<&str>, limit: usize, revision: Option<u64>| {
        ctx.api
            .store
            .list(&prefix, start, limit, revision)
            .map_err(|error| compacted(error, start.map(|start| &start[prefix.len()..])))
    };
    let start = start.map(|start| format!("{prefix}{start}"));
    if selection.is_everything() {
        let page = read(start.as_deref(), limit, at_revision)?;
        let next = page.more.then(|| page.items.last().map(|kv| kv.key[prefix.len()..].to_owned())).flatten();
        let remaining = page.more.then_some(page.remaining);
        return Ok(Found { items: page.items, revision: page.revision, remaining, next });
    }
    let mut found = Found { items: Vec::new(), revision: 0, remaining: None, next: None };
    let (mut start, mut at_revision) = (start, at_revision);
    loop {
        let page = read(start.as_deref(), if limit == 0 { 0 } else { CHUNK }, at_revision)?;
        found.revision = page.revision;
        at_revision = Some(page.revision);
        for kv in &page.items {
            if limit > 0 && found.items.len() == limit {
                found.next = start.map(|last| last[prefix.len()..].to_owned());
                return Ok(found);
            }
            if selection.matches(kind, &modify::read(kind, kv)?) {
                found.items.push(kv.clone());
            }
            start = Some(kv.key.to_string());
        }
        if !page.more {
            return Ok(found);
        }
    }
}

fn one(ctx: &Context, kind: &Kind, selection: &Selection, name: &str) -> ApiResult<Found> {
    let (kv, revision) = ctx.api.store.get(&kind.key(&ctx.info.namespace, name));
    let mut items = Vec::new();
    if let Some(kv) = kv
        && selection.matches(kind, &modify::read(kind, &kv)?)
    {
        items.push(kv);
    }
    Ok(Found { items, revision, remaining: None, next: None })
}

/// From which revision and key the list is read.
fn position(ctx: &Context, limit: usize) -> ApiResult<(Option<u64>, Option<String>)> {
    let revision = ctx.query.get("resourceVersion");
    let matching = ctx.query.get("resourceVersionMatch");
    if let Some(token) = ctx.query.get("continue") {
        if revision.is_some_and(|r| r != "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let (at, start) = decode_token(token).ok_or_else(|| {
            ApiError::bad_request(
                "invalid continue token: continue key is not valid: encoded continue token is malformed",
            )
        })?;
        return Ok((at, Some(start)));
    }
    if matching.is_some() && revision.is_none() {
        return Err(ApiError::unprocessable(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    let Some(text) = revision else { return Ok((None, None)) };
    let wanted = parse_revision(text)?;
    let exact = match matching {
        Some("Exact") if wanted == 0 => {
            return Err(ApiError::unprocessable(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        Some("Exact") => true,
        Some("NotOlderThan") => false,
        Some(other) => {
            return Err(ApiError::unprocessable(format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
            )));
        }
        None => limit > 0 && wanted > 0,
    };
    let current = ctx.api.store.revision();
    if wanted > current {
        return Err(ApiError::too_large_revision(wanted, current));
    }
    Ok((exact.then_some(wanted), None))
}

/// Parses a resourceVersion parameter.
///
/// # Errors
/// 400.
pub(crate) fn parse_revision(text: &str) -> ApiResult<u64> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

fn compacted(error: StoreError, start: Option<&str>) -> ApiError {
    match (error, start) {
        (StoreError::Compacted { .. }, Some(start)) => {
            ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the \
                 remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
                 that were created, modified, or deleted between the time the first chunk was returned and now may show \
                 up in the list.",
            )
            .continuing(encode_token(0, start))
        }
        (error, _) => error.into(),
    }
}

fn encode_token(revision: u64, last: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": last}).to_string())
}

fn decode_token(token: &str) -> Option<(Option<u64>, String)> {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    let revision = value["rv"].as_u64()?;
    Some(((revision > 0).then_some(revision), value["start"].as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive() {
        assert_eq!(decode_token(&encode_token(7, "default/a")), Some((Some(7), "default/a".to_owned())));
        assert_eq!(decode_token(&encode_token(0, "a")), Some((None, "a".to_owned())));
        assert_eq!(decode_token("garbage"), None);
    }
}
