//! DELETE: at once, gracefully, or after finalizers.

use std::sync::Arc;

use cluster_store::{KeyValue, Op, Precondition, StoreError};
use http::StatusCode;
use serde_json::{Value, json};

use super::{body, list, modify, render};
use crate::{
    admission::{self, Attributes, Operation},
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    object::{self, child, finalizers, integer, is_deleting, items, text},
    server::Reply,
};

/// How often a delete is tried again when somebody else wrote in between.
const ATTEMPTS: usize = 16;

/// What a delete was asked to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) propagation: Option<String>,
}

/// What a delete did.
#[derive(Debug)]
enum Outcome {
    /// The object is gone; this was it.
    Gone(Value),
    /// It is marked, and goes later.
    Marked(Value),
}

// === impl Options ===

impl Options {
    fn read(ctx: &Context) -> ApiResult<Self> {
        let body = body::typed(ctx, &delete_version(ctx)?, "DeleteOptions", "meta.v1.DeleteOptions")?;
        let mut options = Self::from_body(&body);
        if let Some(seconds) = ctx.query.get("gracePeriodSeconds") {
            options.grace_seconds = seconds.parse().ok();
        }
        if let Some(policy) = ctx.query.get("propagationPolicy") {
            options.propagation = Some(policy.to_owned());
        }
        if let Some(policy) = &options.propagation
            && !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan")
        {
            return Err(ApiError::unprocessable(format!(
                "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {policy:?}: supported \
                 values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            )));
        }
        Ok(options)
    }

    pub(crate) fn from_body(body: &Value) -> Self {
        let string = |pointer: &str| Some(text(body, pointer).to_owned()).filter(|s| !s.is_empty());
        let orphan = body["orphanDependents"].as_bool();
        let propagation = string("/propagationPolicy")
            .or_else(|| orphan.map(|orphan| if orphan { "Orphan" } else { "Background" }.to_owned()));
        Self {
            grace_seconds: integer(body, "/gracePeriodSeconds"),
            uid: string("/preconditions/uid"),
            resource_version: string("/preconditions/resourceVersion"),
            propagation,
        }
    }
}

/// Clients write DeleteOptions in `v1`, `meta.k8s.io/v1` or the resource's own group and version.
fn delete_version(ctx: &Context) -> ApiResult<String> {
    let body = body::parse(ctx)?.value;
    let given = text(&body, "/apiVersion");
    let dry: Vec<_> = items(&body, "/dryRun").to_vec();
    if !dry.is_empty() && !ctx.dry_run {
        return Err(ApiError::bad_request("dryRun belongs in the query"));
    }
    Ok(if given.is_empty() { "v1".to_owned() } else { given.to_owned() })
}

/// Handles a delete.
///
/// # Errors
/// 404, 409, and what admission refuses.
pub(crate) async fn delete(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let options = Options::read(ctx)?;
    match remove(ctx, kind, &ctx.info.namespace, &ctx.info.name, &options).await? {
        Outcome::Marked(object) => render::value(ctx, kind, object, StatusCode::OK),
        Outcome::Gone(object) if kind.is("", "pods") || kind.custom.is_none() && returns_object(kind) => {
            render::value(ctx, kind, object, StatusCode::OK)
        }
        Outcome::Gone(object) => {
            let details = json!({"name": ctx.info.name, "group": kind.group, "kind": kind.resource, "uid": object::uid(&object)});
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            Ok(Reply::json(StatusCode::OK, &status))
        }
    }
}

/// Kinds whose delete answers with the object even when it is gone.
fn returns_object(kind: &Kind) -> bool {
    kind.is("", "serviceaccounts") || kind.is("", "services")
}

/// Handles the deletion of everything that a selector matches.
///
/// # Errors
/// The first refusal.
pub(crate) async fn collection(ctx: &Context, kind: &Arc<Kind>) -> ApiResult<Reply> {
    let options = Options::read(ctx)?;
    let matched = list::collect(ctx, kind)?;
    for object in &matched {
        let (namespace, name) = (object::namespace(object), object::name(object));
        match remove(ctx, kind, namespace, name, &options).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let revision = ctx.api.store.revision().to_string();
    let list = json!({"kind": kind.list_kind, "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": revision}, "items": matched});
    Ok(Reply::json(StatusCode::OK, &list))
}

/// Deletes one object on behalf of another handler (eviction).
///
/// # Errors
/// As [`delete`].
pub(crate) async fn remove_quietly(
    ctx: &Context,
    kind: &Arc<Kind>,
    name: &str,
    options: &Options,
) -> ApiResult<()> {
    remove(ctx, kind, &ctx.info.namespace, name, options).await.map(drop)
}

async fn remove(
    ctx: &Context,
    kind: &Arc<Kind>,
    namespace: &str,
    name: &str,
    options: &Options,
) -> ApiResult<Outcome> {
    if kind.is("", "namespaces") && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(ApiError::forbidden(kind, name, "this namespace may not be deleted"));
    }
    let key = kind.key(namespace, name);
    for _ in 0..ATTEMPTS {
        let Some(kv) = ctx.api.store.get(&key).0 else { return Err(ApiError::not_found(kind, name)) };
        let old = modify::read(kind, &kv)?;
        check_preconditions(kind, name, &old, options)?;
        let operation = Operation::Delete;
        let attributes = Attributes { kind, namespace, name, subresource: "", operation };
        let mut none = Value::Null;
        admission::mutate(ctx, &attributes, &mut none, Some(&old)).await?;
        admission::validate(ctx, &attributes, &Value::Null, Some(&old)).await?;
        let marked = mark(kind, &old, options);
        if ctx.dry_run {
            return Ok(marked.map_or(Outcome::Gone(old), Outcome::Marked));
        }
        match write(ctx, kind, &key, &kv, &old, marked).await {
            Err(error) if error.is_conflict() => {}
            result => return result,
        }
    }
    Err(ApiError::modified(kind, name))
}

fn check_preconditions(kind: &Kind, name: &str, old: &Value, options: &Options) -> ApiResult<()> {
    let have = object::uid(old);
    if let Some(uid) = &options.uid
        && uid != have
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({have}). The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    let revision = text(old, "/metadata/resourceVersion");
    if let Some(wanted) = &options.resource_version
        && wanted != revision
    {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    Ok(())
}

/// The object marked for deletion, or `None` when it can go at once. An object that stays as it is comes back unchanged.
fn mark(kind: &Kind, old: &Value, options: &Options) -> Option<Value> {
    let mut new = old.clone();
    propagate(&mut new, options.propagation.as_deref());
    let grace = grace_seconds(kind, old, options);
    let namespace_busy = kind.is("", "namespaces") && !items(old, "/spec/finalizers").is_empty();
    if grace == 0 && finalizers(&new).is_empty() && !namespace_busy {
        return None;
    }
    let now = jiff::Timestamp::now();
    if is_deleting(old) {
        let before = integer(old, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
        if grace >= before {
            return Some(new);
        }
    }
    let until = now.checked_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
    let counts = kind.generation || kind.custom.is_some();
    let generation = integer(old, "/metadata/generation").unwrap_or(0) + 1;
    let metadata = child(&mut new, "metadata");
    metadata.insert("deletionTimestamp".to_owned(), json!(object::stamp(until)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    if counts {
        metadata.insert("generation".to_owned(), json!(generation));
    }
    if kind.is("", "namespaces") {
        child(&mut new, "status").insert("phase".to_owned(), json!("Terminating"));
    }
    if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
        let message = "CustomResource deletion is pending";
        object::set_condition(&mut new, "Terminating", "True", "InstanceDeletionPending", message);
    }
    Some(new)
}

/// Adds or removes the finalizers that the garbage collector acts on.
fn propagate(object: &mut Value, policy: Option<&str>) {
    let Some(policy) = policy else { return };
    let metadata = &mut object["metadata"];
    let mut list: Vec<Value> = items(metadata, "/finalizers").to_vec();
    list.retain(|f| f != "orphan" && f != "foregroundDeletion");
    match policy {
        "Orphan" => list.push(json!("orphan")),
        "Foreground" => list.push(json!("foregroundDeletion")),
        _ => {}
    }
    if list.is_empty() {
        object::remove(metadata, "finalizers");
    } else {
        metadata["finalizers"] = Value::Array(list);
    }
}

/// Only a pod that a kubelet may be running takes its time.
fn grace_seconds(kind: &Kind, pod: &Value, options: &Options) -> i64 {
    if !kind.is("", "pods") {
        return 0;
    }
    let phase = text(pod, "/status/phase");
    if text(pod, "/spec/nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let seconds = options
        .grace_seconds
        .or_else(|| integer(pod, "/metadata/deletionGracePeriodSeconds"))
        .or_else(|| integer(pod, "/spec/terminationGracePeriodSeconds"))
        .unwrap_or(30);
    if seconds < 0 { 1 } else { seconds }
}

async fn write(
    ctx: &Context,
    kind: &Kind,
    key: &str,
    kv: &KeyValue,
    old: &Value,
    marked: Option<Value>,
) -> ApiResult<Outcome> {
    let condition = Precondition::ModRevision(kv.mod_revision);
    let op = match &marked {
        Some(new) => {
            let mut stored = new.clone();
            kind.store(&mut stored);
            let bytes = object::encode(&stored)?;
            if bytes == kv.value {
                return Ok(Outcome::Marked(marked.unwrap_or_default()));
            }
            Op::Put(bytes)
        }
        None => Op::Delete,
    };
    match ctx.api.store.write(key, condition, op).await {
        Ok(written) => Ok(match marked {
            Some(mut new) => {
                object::set_revision(&mut new, written.revision);
                Outcome::Marked(new)
            }
            None => {
                crate::allocator::release(&ctx.api, kind, old);
                let mut gone = old.clone();
                object::set_revision(&mut gone, written.revision);
                Outcome::Gone(gone)
            }
        }),
        Err(StoreError::Conflict { .. } | StoreError::NotFound) => {
            Err(ApiError::modified(kind, object::name(old)))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::KindTable;

    #[test]
    fn pods_take_their_time_only_on_a_node() {
        let kind = KindTable::new().get("", "v1", "pods").unwrap();
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"terminationGracePeriodSeconds": 7}, "status": {"phase": "Running"}});
        assert!(mark(&kind, &pod, &Options::default()).is_none());
        pod["spec"]["nodeName"] = json!("n1");
        let marked = mark(&kind, &pod, &Options::default()).unwrap();
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 7);
        let again = mark(&kind, &marked, &Options { grace_seconds: Some(3), ..Options::default() }).unwrap();
        assert_eq!(again["metadata"]["deletionGracePeriodSeconds"], 3);
        assert!(mark(&kind, &marked, &Options { grace_seconds: Some(0), ..Options::default() }).is_none());
    }

    #[test]
    fn foreground_waits_for_the_garbage_collector() {
        let kind = KindTable::new().get("apps", "v1", "deployments").unwrap();
        let object = json!({"metadata": {"name": "a"}});
        let options = Options { propagation: Some("Foreground".to_owned()), ..Options::default() };
        let marked = mark(&kind, &object, &options).unwrap();
        assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        assert!(is_deleting(&marked));
    }
}
