//! Field sets of values, differences of values, merging a configuration, removing what nobody wants any more.

use serde_json::Value;

use super::{
    fields::{Fields, Node},
    nav::{Mode, Nav},
};

/// Every field of a value.
pub(crate) fn set_of(value: &Value, nav: &Nav<'_>) -> Fields {
    let mut set = Fields::default();
    match (value, nav.mode(value)) {
        (Value::Object(map), Mode::Map) => {
            for (name, child) in map {
                let node = node_of(child, &nav.field(name), !nav.declares(name));
                set.0.insert(format!("f:{name}"), node);
            }
        }
        (Value::Array(list), mode @ (Mode::Set | Mode::ListMap(_))) => {
            for item in list {
                let below = set_of(item, &nav.item());
                set.0.insert(nav.element(&mode, item), Node { owned: true, below });
            }
        }
        _ => {}
    }
    set
}

/// The node of one value: a leaf, or what is below it.
fn node_of(value: &Value, nav: &Nav<'_>, owned: bool) -> Node {
    let below = set_of(value, nav);
    let leaf = below.is_empty()
        && !(value.is_array() && nav.mode(value) != Mode::Atomic && value != &Value::Array(Vec::new()));
    Node { owned: owned || leaf, below }
}

/// What was changed or added, and what was removed.
pub(crate) fn diff(old: &Value, new: &Value, nav: &Nav<'_>) -> (Fields, Fields) {
    let (mut changed, mut removed) = (Fields::default(), Fields::default());
    if old == new {
        return (changed, removed);
    }
    match (old, new, nav.mode(new)) {
        (Value::Object(before), Value::Object(after), Mode::Map) => {
            for (name, value) in after {
                let below = nav.field(name);
                one(
                    before.get(name),
                    Some(value),
                    &below,
                    !nav.declares(name),
                    &format!("f:{name}"),
                    &mut changed,
                    &mut removed,
                );
            }
            for (name, value) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
                one(
                    Some(value),
                    None,
                    &nav.field(name),
                    !nav.declares(name),
                    &format!("f:{name}"),
                    &mut changed,
                    &mut removed,
                );
            }
        }
        (Value::Array(before), Value::Array(after), mode @ (Mode::Set | Mode::ListMap(_))) => {
            let find =
                |list: &'_ [Value], key: &str| list.iter().position(|item| nav.element(&mode, item) == key);
            for item in after {
                let key = nav.element(&mode, item);
                let old = find(before, &key).map(|at| &before[at]);
                one(old, Some(item), &nav.item(), true, &key, &mut changed, &mut removed);
            }
            for item in before {
                let key = nav.element(&mode, item);
                if find(after, &key).is_none() {
                    one(Some(item), None, &nav.item(), true, &key, &mut changed, &mut removed);
                }
            }
        }
        _ => {}
    }
    (changed, removed)
}

fn one(
    old: Option<&Value>,
    new: Option<&Value>,
    nav: &Nav<'_>,
    owned: bool,
    key: &str,
    changed: &mut Fields,
    removed: &mut Fields,
) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(old), Some(new)) => {
            let granular = nav.mode(old) == nav.mode(new) && nav.mode(new) != Mode::Atomic;
            if !granular {
                changed.0.insert(key.to_owned(), node_of(new, nav, owned));
                return;
            }
            let (below_changed, below_removed) = diff(old, new, nav);
            if !below_changed.is_empty() {
                changed.0.insert(key.to_owned(), Node { owned: false, below: below_changed });
            }
            if !below_removed.is_empty() {
                removed.0.insert(key.to_owned(), Node { owned: false, below: below_removed });
            }
        }
        (None, Some(new)) => drop(changed.0.insert(key.to_owned(), node_of(new, nav, owned))),
        (Some(old), None) => drop(removed.0.insert(key.to_owned(), node_of(old, nav, owned))),
        (None, None) => {}
    }
}

/// `live` with `config` merged in.
pub(crate) fn merge(live: &Value, config: &Value, nav: &Nav<'_>) -> Value {
    match (live, config, nav.mode(config)) {
        (Value::Object(live), Value::Object(config), Mode::Map) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let new = match live.get(name) {
                    Some(old) => merge(old, value, &nav.field(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), new);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config), mode @ (Mode::Set | Mode::ListMap(_))) => {
            let mut merged = live.clone();
            for item in config {
                let key = nav.element(&mode, item);
                match merged.iter_mut().find(|other| nav.element(&mode, other) == key) {
                    Some(slot) => *slot = merge(slot, item, &nav.item()),
                    None => merged.push(item.clone()),
                }
            }
            Value::Array(merged)
        }
        _ => config.clone(),
    }
}

/// Removes the `dropped` fields that are not `kept`.
pub(crate) fn remove(value: &mut Value, dropped: &Fields, kept: &Fields, nav: &Nav<'_>) {
    let mode = nav.mode(value);
    match value {
        Value::Object(map) if mode == Mode::Map => {
            let mut gone = Vec::new();
            for (name, child) in map.iter_mut() {
                let key = format!("f:{name}");
                if shed(child, dropped.0.get(&key), kept.0.get(&key), &nav.field(name)) {
                    gone.push(name.clone());
                }
            }
            for name in gone {
                map.remove(&name);
            }
        }
        Value::Array(list) if mode != Mode::Atomic => {
            list.retain_mut(|item| {
                let key = nav.element(&mode, item);
                !shed(item, dropped.0.get(&key), kept.0.get(&key), &nav.item())
            });
        }
        _ => {}
    }
}

/// Removes below; returns whether the value itself goes.
fn shed(value: &mut Value, dropped: Option<&Node>, kept: Option<&Node>, nav: &Nav<'_>) -> bool {
    let Some(dropped) = dropped else { return false };
    let nothing = Node::default();
    let kept = kept.unwrap_or(&nothing);
    if dropped.owned && !kept.owned && kept.below.is_empty() {
        return true;
    }
    remove(value, &dropped.below, &kept.below, nav);
    let empty = value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty);
    empty && !kept.owned && kept.below.is_empty()
}
