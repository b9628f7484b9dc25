//! Deployments and ReplicaSets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AGE, Cells, Column, NAME, age, joined, pairs};
use crate::object::{integer, name};

const CONTAINERS: Column = ("Containers", "string", "", 1, "Names of the containers of the template.");
const IMAGES: Column = ("Images", "string", "", 1, "Images of the template.");
const SELECTOR: Column = ("Selector", "string", "", 1, "Which pods belong to it.");

pub(crate) const DEPLOYMENTS: Cells = Cells {
    columns: &[
        NAME,
        ("Ready", "string", "", 0, "Ready pods of wanted pods."),
        ("Up-to-date", "integer", "", 0, "Pods of the current template."),
        ("Available", "integer", "", 0, "Pods ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let number = |pointer: &str| integer(object, pointer).unwrap_or(0);
        let ready = format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas"));
        let mut row = vec![
            json!(name(object)),
            json!(ready),
            json!(number("/status/updatedReplicas")),
            json!(number("/status/availableReplicas")),
        ];
        row.extend(tail(object, now));
        row
    },
};

pub(crate) const REPLICA_SETS: Cells = Cells {
    columns: &[
        NAME,
        ("Desired", "integer", "", 0, "Wanted pods."),
        ("Current", "integer", "", 0, "Pods that exist."),
        ("Ready", "integer", "", 0, "Pods that are ready."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let number = |pointer: &str| json!(integer(object, pointer).unwrap_or(0));
        let mut row = vec![
            json!(name(object)),
            number("/spec/replicas"),
            number("/status/replicas"),
            number("/status/readyReplicas"),
        ];
        row.extend(tail(object, now));
        row
    },
};

fn tail(object: &Value, now: Timestamp) -> [Value; 4] {
    [
        age(object, now),
        json!(joined(object, "/spec/template/spec/containers", "/name")),
        json!(joined(object, "/spec/template/spec/containers", "/image")),
        pairs(&object["spec"]["selector"]["matchLabels"]),
    ]
}
