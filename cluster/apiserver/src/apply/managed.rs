//! `metadata.managedFields`.
//!
//! Objects that were never applied server-side carry none; the first apply gives all that is there to `before-first-apply`, as Kubernetes
//! does for objects older than the feature. From then on every change is tracked.

use serde_json::{Value, json};

use super::{fields::Fields, merge, nav::Nav};
use crate::{
    context::Context,
    kinds::Kind,
    object::{self, child, items, text},
};

/// One manager of fields.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    pub(crate) name: String,
    /// By apply, rather than by any other write.
    pub(crate) applied: bool,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) time: String,
    pub(crate) fields: Fields,
}

/// All managers of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Managers(pub(crate) Vec<Manager>);

// === impl Manager ===

impl Manager {
    /// Owns what was there before the first apply.
    pub(crate) fn before_first_apply(kind: &Kind, live: &Value, fields: Fields) -> Self {
        Self {
            name: "before-first-apply".to_owned(),
            applied: false,
            api_version: kind.api_version(),
            subresource: String::new(),
            time: text(live, "/metadata/creationTimestamp").to_owned(),
            fields,
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.applied == other.applied && self.subresource == other.subresource
    }

    /// How a conflict names it.
    pub(crate) fn title(&self) -> String {
        let mut title = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            title.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        title.push_str(&format!(" using {}", self.api_version));
        title
    }

    fn read(entry: &Value) -> Self {
        Self {
            name: text(entry, "/manager").to_owned(),
            applied: entry["operation"] == "Apply",
            api_version: text(entry, "/apiVersion").to_owned(),
            subresource: text(entry, "/subresource").to_owned(),
            time: text(entry, "/time").to_owned(),
            fields: Fields::read(&entry["fieldsV1"]),
        }
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({"manager": self.name, "operation": if self.applied { "Apply" } else { "Update" },
            "apiVersion": self.api_version, "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_value()});
        if !self.time.is_empty() {
            entry["time"] = json!(self.time);
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }
}

// === impl Managers ===

impl Managers {
    pub(crate) fn read(object: &Value) -> Self {
        Self(
            items(object, "/metadata/managedFields")
                .iter()
                .filter(|e| e["manager"].is_string())
                .map(Manager::read)
                .collect(),
        )
    }

    /// Puts a manager in the place of its former self; an unchanged one keeps its time.
    pub(crate) fn replace(&mut self, mut manager: Manager) {
        match self.0.iter_mut().find(|other| other.is_same(&manager)) {
            Some(slot) => {
                if slot.fields == manager.fields {
                    manager.time.clone_from(&slot.time);
                }
                *slot = manager;
            }
            None => self.0.push(manager),
        }
    }

    /// Forgets fields that do not exist, and managers that own nothing.
    pub(crate) fn keep_existing(&mut self, existing: &Fields) {
        for manager in &mut self.0 {
            manager.fields = manager.fields.intersection(existing);
        }
        self.0.retain(|manager| !manager.fields.is_empty());
    }
}

/// Writes managers into an object.
pub(crate) fn write(object: &mut Value, managers: &Managers) {
    let metadata = child(object, "metadata");
    if managers.0.is_empty() {
        metadata.remove("managedFields");
    } else {
        let list: Vec<Value> = managers.0.iter().map(Manager::to_value).collect();
        metadata.insert("managedFields".to_owned(), Value::Array(list));
    }
}

/// Takes out of a set what nobody owns, and what this part of an object does not hold.
pub(crate) fn restrict(set: &mut Fields, kind: &Kind, subresource: &str) {
    set.remove(&["apiVersion"]);
    set.remove(&["kind"]);
    for field in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        set.remove(&["metadata", field]);
    }
    // `metadata` alone owns nothing.
    if set.0.get("f:metadata").is_some_and(|node| node.below.is_empty()) {
        set.remove(&["metadata"]);
    }
    match subresource {
        "" if kind.has_status() => set.remove(&["status"]),
        "status" => set.0.retain(|key, _| key == "f:status"),
        _ => {}
    }
}

/// A new object: what clients send about managers counts only when apply made it.
pub(crate) fn on_create(kind: &Kind, applied: bool, object: &mut Value) {
    if !applied {
        child(object, "metadata").remove("managedFields");
        return;
    }
    let mut managers = Managers::read(object);
    managers.keep_existing(&merge::set_of(object, &Nav::of(kind)));
    write(object, &managers);
}

/// A changed object: the writer owns what it changed, others what is left. Untracked objects stay so; an empty list stops tracking.
pub(crate) fn on_update(ctx: &Context, kind: &Kind, subresource: &str, new: &mut Value, old: &Value) {
    let mut managers = Managers::read(old);
    let sent = new["metadata"]["managedFields"].as_array();
    let reset = sent.is_some_and(|list| list.iter().all(|entry| entry["manager"].is_null()));
    if managers.0.is_empty() || reset {
        child(new, "metadata").remove("managedFields");
        return;
    }
    let nav = Nav::of(kind);
    let (mut changed, removed) = merge::diff(old, new, &nav);
    restrict(&mut changed, kind, subresource);
    if !changed.is_empty() || !removed.is_empty() {
        let lost = changed.union(&removed);
        let mut mine = Manager {
            name: ctx.field_manager(),
            applied: false,
            api_version: kind.api_version(),
            subresource: subresource.to_owned(),
            time: object::now(),
            fields: changed,
        };
        for manager in &mut managers.0 {
            if manager.is_same(&mine) {
                mine.fields = mine.fields.union(&manager.fields.difference(&removed));
            } else {
                manager.fields = manager.fields.difference(&lost);
            }
        }
        managers.replace(mine);
        managers.keep_existing(&merge::set_of(new, &nav));
    }
    write(new, &managers);
}
