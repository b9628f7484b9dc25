//! Definitions become kinds as they are stored; their status says so; deleting one deletes its objects first.

use std::{collections::BTreeMap, sync::Arc};

use cluster_store::{Op, Precondition, StoreError};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{CustomVersion, columns::CustomColumns};
use crate::{
    api::Api,
    config::Error,
    follow::{self, Change},
    kinds::{
        Kind, Name, Subresource,
        strategy::{Plain, child_list},
    },
    object::{self, child, finalizers, is_deleting, items, name, text},
};

const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const READ_WRITE: &[&str] = &["get", "patch", "update"];

/// Definitions whose status is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    due: Mutex<Vec<String>>,
    wake: Notify,
}

/// One definition as a set of kinds.
struct Served {
    generation: i64,
    accepted: bool,
    kinds: Vec<Arc<Kind>>,
}

/// Serves what is defined, and keeps serving it.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn follow(api: &Arc<Api>) -> Result<(), Error> {
    let shared = Arc::downgrade(api);
    let mut served: BTreeMap<String, Served> = BTreeMap::new();
    follow::follow(api, PREFIX, move |change| {
        let Some(api) = shared.upgrade() else { return };
        match change {
            Change::Reset => served.clear(),
            Change::Delete(kv) => drop(served.remove(&*kv.key)),
            Change::Put(kv) => {
                let Ok(definition) = object::decode(kv) else { return };
                let generation = object::integer(&definition, "/metadata/generation").unwrap_or(0);
                let known = served.get(&*kv.key).is_some_and(|s| s.generation == generation && s.accepted);
                if !known {
                    let accepted = conflict(&served, &kv.key, &definition).is_none();
                    let kinds =
                        if accepted { kinds_of(&definition, &kv.value, kv.mod_revision) } else { Vec::new() };
                    served.insert(kv.key.to_string(), Served { generation, accepted, kinds });
                }
                api.definitions.due.lock().push(kv.key.to_string());
            }
            Change::Settled => {
                api.kinds.publish_custom(served.values().flat_map(|s| s.kinds.clone()).collect());
                api.definitions.wake.notify_one();
            }
        }
    })?;
    let api = Arc::clone(api);
    let shutdown = api.shutdown.clone();
    api.tasks.clone().spawn(shutdown.run_until_cancelled_owned(async move {
        loop {
            let due = std::mem::take(&mut *api.definitions.due.lock());
            if due.is_empty() {
                api.definitions.wake.notified().await;
                continue;
            }
            for key in due {
                if let Err(error) = reconcile(&api, &key).await {
                    tracing::warn!(key, %error, "Definition's status cannot be written");
                }
            }
        }
    }));
    Ok(())
}

/// Which other definition has one of these names.
fn conflict(served: &BTreeMap<String, Served>, key: &str, definition: &Value) -> Option<String> {
    let (group, names) = (text(definition, "/spec/group"), &definition["spec"]["names"]);
    let others = served.iter().filter(|(other, _)| *other != key).flat_map(|(_, s)| &s.kinds);
    for other in others.filter(|other| other.group == group) {
        if other.resource == text(names, "/plural") {
            return Some(format!("{:?} is already in use", text(names, "/plural")));
        }
        if other.kind == text(names, "/kind") {
            return Some(format!("{:?} is already in use", text(names, "/kind")));
        }
    }
    None
}

/// Higher first: v2 before v1, v1 before v1beta2, v1beta2 before v1alpha1, then anything else.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or_default();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    let suffix = &rest[digits..];
    let minor = |word: &str| suffix.strip_prefix(word).and_then(|n| n.parse().ok());
    match (suffix, minor("beta"), minor("alpha")) {
        ("", _, _) => (3, major, 0),
        (_, Some(beta), _) => (2, major, beta),
        (_, _, Some(alpha)) => (1, major, alpha),
        _ => (0, 0, 0),
    }
}

fn kinds_of(definition: &Value, stored: &bytes::Bytes, revision: u64) -> Vec<Arc<Kind>> {
    let mut versions: Vec<&Value> =
        items(definition, "/spec/versions").iter().filter(|v| v["served"] == true).collect();
    versions.sort_by_key(|v| std::cmp::Reverse(version_rank(text(v, "/name"))));
    versions.into_iter().map(|version| Arc::new(kind_of(definition, stored, version, revision))).collect()
}

fn kind_of(definition: &Value, stored: &bytes::Bytes, version: &Value, revision: u64) -> Kind {
    let names = &definition["spec"]["names"];
    let owned = |value: &Value, pointer: &str| Name::Owned(text(value, pointer).to_owned());
    let list = |pointer: &str| -> Vec<Name> {
        items(names, pointer).iter().filter_map(Value::as_str).map(|n| Name::Owned(n.to_owned())).collect()
    };
    let (group, kind, name) =
        (owned(definition, "/spec/group"), owned(names, "/kind"), owned(version, "/name"));
    let custom = Arc::new(CustomVersion::new(stored, definition, version, revision));
    let mut subresources = Vec::new();
    if custom.has_status() {
        subresources.push(Subresource {
            name: "status",
            group: group.clone(),
            version: name.clone(),
            kind: kind.clone(),
            verbs: READ_WRITE,
        });
    }
    if custom.scale_paths().is_some() {
        subresources.push(Subresource {
            name: "scale",
            group: Name::Borrowed("autoscaling"),
            version: Name::Borrowed("v1"),
            kind: Name::Borrowed("Scale"),
            verbs: READ_WRITE,
        });
    }
    Kind {
        storage_group: group.clone(),
        group,
        version: name,
        resource: owned(names, "/plural"),
        kind,
        list_kind: owned(names, "/listKind"),
        singular: owned(names, "/singular"),
        short_names: list("/shortNames"),
        categories: list("/categories"),
        namespaced: definition["spec"]["scope"] == "Namespaced",
        verbs: ALL,
        subresources,
        generation: true,
        type_id: None,
        custom: Some(custom),
        strategy: Arc::new(Plain),
        printer: Arc::new(CustomColumns::read(version)),
    }
}

/// Writes a definition's status, or removes it with its objects.
async fn reconcile(api: &Api, key: &str) -> Result<(), StoreError> {
    for _ in 0..16 {
        let Some(kv) = api.store.get(key).0 else { return Ok(()) };
        let Ok(old) = object::decode(&kv) else { return Ok(()) };
        if is_deleting(&old) && finalizers(&old).contains(&json!(FINALIZER)) {
            delete_objects(api, &old).await?;
        }
        let Some(new) = wanted(api, &old) else { return Ok(()) };
        let gone = is_deleting(&new) && finalizers(&new).is_empty();
        let Ok(bytes) = object::encode(&new) else { return Ok(()) };
        let op = if gone { Op::Delete } else { Op::Put(bytes) };
        match api.store.write(key, Precondition::ModRevision(kv.mod_revision), op).await {
            Err(StoreError::Conflict { .. } | StoreError::NotFound) => {}
            result => return result.map(drop),
        }
    }
    Ok(())
}

/// The definition with the status it should have, if that differs.
fn wanted(api: &Api, old: &Value) -> Option<Value> {
    let mut new = old.clone();
    if is_deleting(old) {
        child_list(&mut new["metadata"], "finalizers").retain(|f| f != FINALIZER);
        return (new != *old).then_some(new);
    }
    let (group, plural, kind) =
        (text(old, "/spec/group"), text(old, "/spec/names/plural"), text(old, "/spec/names/kind"));
    let kinds = api.kinds.load();
    let accepted = kinds
        .iter()
        .any(|k| k.custom.is_some() && k.group == group && k.resource == plural && k.kind == kind)
        || !items(old, "/spec/versions").iter().any(|v| v["served"] == true);
    let status = child(&mut new, "status");
    if accepted {
        status.insert("acceptedNames".to_owned(), old["spec"]["names"].clone());
    }
    if accepted {
        object::set_condition(&mut new, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
        object::set_condition(
            &mut new,
            "Established",
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        );
    } else {
        let message = format!("{plural:?} or {kind:?} is already in use");
        object::set_condition(&mut new, "NamesAccepted", "False", "PluralConflict", &message);
        object::set_condition(&mut new, "Established", "False", "NotAccepted", "not all names are accepted");
    }
    (new != *old).then_some(new)
}

async fn delete_objects(api: &Api, definition: &Value) -> Result<(), StoreError> {
    let prefix =
        format!("/registry/{}/{}/", text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    tracing::info!(definition = name(definition), "Objects of a deleted definition are removed");
    for kv in api.store.list(&prefix, None, 0, None)?.items {
        match api.store.write(&kv.key, Precondition::None, Op::Delete).await {
            Ok(_) | Err(StoreError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_like_kubernetes() {
        let mut versions = vec!["v1alpha1", "v1", "v10beta3", "v2", "v1beta1", "foo"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v2", "v1", "v10beta3", "v1beta1", "v1alpha1", "foo"]);
    }
}
