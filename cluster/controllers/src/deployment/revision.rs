//! Revisions: making the ReplicaSet of a new template, numbering it, and forgetting the oldest.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::PodTemplateSpec};
use serde_json::{Value, json};

use super::{
    DESIRED_REPLICAS, HASH, LAST_APPLIED, MAX_REPLICAS, REVISION, REVISION_HISTORY, annotation, replicas,
    rolling,
    view::{View, same_template},
};
use crate::{
    cache::Key,
    hub::Caches,
    plan::{Action, Kind, Note},
    pod,
};

/// Annotations of a Deployment that its ReplicaSets do not take over.
const OWN: [&str; 5] = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS];

/// How a ReplicaSet for a new template is made.
pub(super) enum Creation {
    /// By this write, and one that tells the Deployment its revision.
    Set { name: String, action: Box<Action>, deployment: Option<Box<Action>> },
    /// Its name is taken: the Deployment must count the collision, which changes the name.
    Collision(Box<Action>),
}

/// The write that makes the ReplicaSet for the template.
pub(super) fn create(view: &View, caches: &Caches) -> Creation {
    let meta = &view.deployment.metadata;
    let collisions = view.deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash(&view.spec.template, collisions);
    let name = format!("{}-{hash}", meta.name.as_deref().unwrap_or_default());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if let Some(other) = caches.replica_sets.get(&Key::new(namespace, &name)) {
        let ours = pod::is_controlled_by(&other.metadata, meta.uid.as_deref())
            && other
                .spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref())
                .is_some_and(|template| same_template(template, &view.spec.template));
        if !ours {
            let patch = json!({"metadata": {"resourceVersion": meta.resource_version}, "status": {"collisionCount": collisions.unwrap_or(0) + 1}});
            return Creation::Collision(Box::new(Action::patch_status(Kind::Deployment, view.key(), patch)));
        }
    }
    let revision = next_revision(view);
    let count = if view.is_recreate() { view.replicas() } else { rolling::new_replicas(view, 0) };
    let mut annotations = inherited(view);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.insert(DESIRED_REPLICAS.to_owned(), view.replicas().to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), view.max_total().to_string());
    let mut template = json!(view.spec.template);
    template["metadata"]["labels"][HASH] = hash.clone().into();
    let mut selector = json!(view.spec.selector);
    selector["matchLabels"][HASH] = hash.into();
    let object = json!({
        "metadata": {
            "name": name, "namespace": namespace, "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [Kind::Deployment.owner(meta)],
        },
        "spec": {
            "replicas": count, "minReadySeconds": view.spec.min_ready_seconds.unwrap_or(0),
            "selector": selector, "template": template,
        },
    });
    let action = Action::create(Kind::ReplicaSet, namespace, object).noted(Note {
        about: Kind::Deployment.reference(meta),
        reason: "ScalingReplicaSet",
        message: format!("Scaled up replica set {name} from 0 to {count}"),
        failure: Some("ReplicaSetCreateError"),
    });
    Creation::Set { name, action: Box::new(action), deployment: tell(view, revision).map(Box::new) }
}

/// Writes that give the present ReplicaSet its revision and annotations, and the Deployment the revision.
pub(super) fn refresh(view: &View) -> Vec<Action> {
    let Some(set) = view.new_set() else { return Vec::new() };
    let mut writes = Vec::new();
    let mut annotations = inherited(view);
    annotations.retain(|name, value| annotation(set, name) != Some(value));
    let (own, next) = (revision(set), next_revision(view));
    let current = if own < next {
        annotations.insert(REVISION.to_owned(), next.to_string());
        if own > 0 {
            let history = annotation(set, REVISION_HISTORY).filter(|history| !history.is_empty());
            let history = history.map_or_else(|| own.to_string(), |history| format!("{history},{own}"));
            annotations.insert(REVISION_HISTORY.to_owned(), history);
        }
        next
    } else {
        own
    };
    let min_ready = view.spec.min_ready_seconds.unwrap_or(0);
    let other_min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0) != min_ready;
    if !annotations.is_empty() || other_min_ready {
        let patch = json!({
            "metadata": {"resourceVersion": set.metadata.resource_version, "annotations": annotations},
            "spec": {"minReadySeconds": min_ready},
        });
        writes.push(Action::patch(Kind::ReplicaSet, Key::of(set), patch));
    }
    writes.extend(tell(view, current));
    writes
}

/// Deletes the oldest ReplicaSets beyond the history that is to be kept.
pub(super) fn clean_up(view: &View) -> Vec<Action> {
    let limit = view.spec.revision_history_limit.unwrap_or(10);
    let mut idle: Vec<_> = view
        .old_sets()
        .filter(|set| {
            let status = set.status.clone().unwrap_or_default();
            replicas(set) == 0
                && status.replicas == 0
                && set.metadata.deletion_timestamp.is_none()
                && set.metadata.generation.unwrap_or(0) <= status.observed_generation.unwrap_or(0)
        })
        .collect();
    idle.sort_by_key(|set| revision(set));
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.truncate(surplus);
    idle.into_iter()
        .map(|set| Action::delete(Kind::ReplicaSet, Key::of(set), set.metadata.uid.clone()))
        .collect()
}

/// Notes the revision in the Deployment.
fn tell(view: &View, revision: i64) -> Option<Action> {
    let told = view.deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
    if told.is_some_and(|told| *told == revision.to_string()) {
        return None;
    }
    let patch = json!({"metadata": {"annotations": {REVISION: revision.to_string()}}});
    Some(Action::patch(Kind::Deployment, view.key(), patch))
}

fn inherited(view: &View) -> BTreeMap<String, String> {
    let mut annotations = view.deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN.contains(&name.as_str()));
    annotations
}

fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

fn next_revision(view: &View) -> i64 {
    view.old_sets().map(revision).max().unwrap_or(0) + 1
}

/// A short name for a template: FNV-1a over its JSON, whose fields are sorted.
fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let text = serde_json::to_value(template).unwrap_or(Value::Null).to_string();
    let salt = collisions.map(i32::to_le_bytes);
    let bytes = text.bytes().chain(salt.into_iter().flatten());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    cluster_machinery::name::encode_hash(hash)
}
