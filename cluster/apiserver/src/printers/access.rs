//! Roles, bindings, webhook configurations, definitions, priority classes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Cells, Column, NAME, age, count};
use crate::object::{items, name, text};

const CREATED_AT: Column = ("Created At", "date", "", 0, "When the object was created.");
const ROLE: Column = ("Role", "string", "", 0, "The role that is bound.");
const USERS: Column = ("Users", "string", "", 1, "Users it is bound to.");
const GROUPS: Column = ("Groups", "string", "", 1, "Groups it is bound to.");
const ACCOUNTS: Column = ("ServiceAccounts", "string", "", 1, "Service accounts it is bound to.");

fn created(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![json!(name(object)), object["metadata"]["creationTimestamp"].clone()]
}

pub(crate) const ROLES: Cells = Cells { columns: &[NAME, CREATED_AT], cells: created };
pub(crate) const DEFINITIONS: Cells = Cells { columns: &[NAME, CREATED_AT], cells: created };
pub(crate) const ROLE_BINDINGS: Cells =
    Cells { columns: &[NAME, ROLE, AGE, USERS, GROUPS, ACCOUNTS], cells: binding };
pub(crate) const CLUSTER_ROLE_BINDINGS: Cells = ROLE_BINDINGS;

pub(crate) const WEBHOOKS: Cells = Cells {
    columns: &[NAME, ("Webhooks", "integer", "", 0, "How many webhooks it names."), AGE],
    cells: |object, now| vec![json!(name(object)), json!(count(&object["webhooks"])), age(object, now)],
};

pub(crate) const PRIORITY_CLASSES: Cells = Cells {
    columns: &[
        NAME,
        ("Value", "integer", "", 0, "The priority of its pods."),
        ("Global-Default", "boolean", "", 0, "Whether pods that name no class have it."),
        AGE,
        ("PreemptionPolicy", "string", "", 0, "Whether its pods may displace others."),
    ],
    cells: |object, now| {
        vec![
            json!(name(object)),
            object["value"].clone(),
            json!(object["globalDefault"] == true),
            age(object, now),
            object["preemptionPolicy"].clone(),
        ]
    },
};

fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = items(object, "/subjects").iter().filter(|s| s["kind"] == kind);
        let names = subjects.map(|s| match text(s, "/namespace") {
            "" => text(s, "/name").to_owned(),
            namespace => format!("{namespace}/{}", text(s, "/name")),
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"));
    vec![json!(name(object)), json!(role), age(object, now), of("User"), of("Group"), of("ServiceAccount")]
}
