//! Conditions: the list of `{type, status, reason, message, lastTransitionTime}` in an object's status.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::time;

/// A condition to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition<'a> {
    /// What it is about, `Ready`.
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// One word for programs.
    pub reason: &'a str,
    /// A sentence for people.
    pub message: &'a str,
    /// The generation it was observed at, where the kind has that field.
    pub observed_generation: Option<i64>,
}

/// The condition of a type in an object's `status.conditions`.
#[must_use]
pub fn find<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Whether the condition of a type is `True`.
#[must_use]
pub fn is_true(object: &Value, kind: &str) -> bool {
    find(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Sets a condition in an object's `status.conditions`; true if that changed anything. The transition time moves only with the status.
pub fn set(object: &mut Value, condition: Condition<'_>, now: Timestamp) -> bool {
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(list) = conditions else { return false };
    let old = list.iter().position(|existing| existing["type"] == condition.kind);
    let transition = old
        .map(|index| &list[index])
        .filter(|existing| existing["status"] == condition.status)
        .and_then(|existing| existing["lastTransitionTime"].as_str())
        .map_or_else(|| time::format(now), ToOwned::to_owned);
    let mut new = old.map_or_else(|| json!({}), |index| list[index].clone());
    new["type"] = condition.kind.into();
    new["status"] = condition.status.into();
    new["reason"] = condition.reason.into();
    new["message"] = condition.message.into();
    new["lastTransitionTime"] = transition.into();
    if let Some(generation) = condition.observed_generation {
        new["observedGeneration"] = generation.into();
    }
    match old {
        Some(index) if list[index] == new => false,
        Some(index) => {
            list[index] = new;
            true
        }
        None => {
            list.push(new);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_with_status_only() {
        let mut object = json!({});
        let mut ready =
            Condition { kind: "Ready", status: "False", reason: "A", message: "", observed_generation: None };
        let (first, second) = (Timestamp::UNIX_EPOCH, "2026-01-01T00:00:00Z".parse().unwrap());
        assert!(set(&mut object, ready, first));
        assert!(!set(&mut object, ready, second));
        ready.reason = "B";
        assert!(set(&mut object, ready, second));
        assert_eq!(find(&object, "Ready").unwrap()["lastTransitionTime"], "1970-01-01T00:00:00Z");
        ready.status = "True";
        assert!(set(&mut object, ready, second));
        assert_eq!(find(&object, "Ready").unwrap()["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert!(is_true(&object, "Ready"));
        assert!(!is_true(&object, "Other"));
    }
}
