//! Strategic merge patch: a merge patch in which lists are merged by a key where the schema says so.
//!
//! Directives in a patch: `$patch: replace|delete|merge` in a map, `$retainKeys: […]` in a map, `$setElementOrder/<list>: […]` and
//! `$deleteFromPrimitiveList/<list>: […]` beside a list. The semantics are those of the Kubernetes API server.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::PatchError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// What the schema says of a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldFacts {
    /// A list is merged, not replaced (`patchStrategy: merge`).
    pub merge: bool,
    /// A map is replaced, not merged (`patchStrategy: replace`).
    pub replace: bool,
    /// By which field elements of a merged list are told apart (`patchMergeKey`); absent for lists of scalars.
    pub merge_key: Option<Cow<'static, str>>,
}

/// Where the facts about fields come from.
pub trait PatchSchema {
    /// The facts of the field with these names from the root of the object; elements of lists add no name.
    fn field(&self, path: &[&str]) -> FieldFacts;
}

/// A schema that knows nothing: every list is replaced.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFacts;

impl PatchSchema for NoFacts {
    fn field(&self, _: &[&str]) -> FieldFacts {
        FieldFacts::default()
    }
}

/// Applies a strategic merge patch; on error the object is as before.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is not an object, a directive is unknown, or an element lacks its merge key.
pub fn strategic(object: &mut Value, patch: &Value, schema: &dyn PatchSchema) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(malformed("error decoding patch: a strategic merge patch must be an object"));
    };
    let original = match object {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    let merged = Merger { schema, path: Vec::new() }.map(original, patch)?;
    *object = Value::Object(merged);
    Ok(())
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

struct Merger<'a> {
    schema: &'a dyn PatchSchema,
    path: Vec<&'a str>,
}

// === impl Merger ===

impl<'a> Merger<'a> {
    fn map(
        &mut self,
        mut original: Map<String, Value>,
        patch: &'a Map<String, Value>,
    ) -> Result<Map<String, Value>, PatchError> {
        match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None | Some("merge") => {}
            Some("replace") => return Ok(clean_map(patch)),
            Some("delete") => return Ok(Map::new()),
            Some(other) => return Err(malformed(format!("unknown patch type found: {other:?}"))),
        }
        if let Some(keys) = patch.get(RETAIN_KEYS) {
            retain(&mut original, keys, patch)?;
        }
        for (name, directive) in patch {
            if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
                delete_scalars(&mut original, list, directive)?;
            }
        }
        for (name, value) in patch {
            if name.starts_with('$') && is_directive(name) {
                continue;
            }
            let order = patch.get(&format!("{SET_ELEMENT_ORDER}{name}"));
            self.path.push(name);
            let result = self.field(original.remove(name), value, order);
            self.path.pop();
            if let Some(value) = result? {
                original.insert(name.clone(), value);
            }
        }
        for (name, order) in patch {
            // An order alone, without elements, still sorts.
            if let Some(list) = name.strip_prefix(SET_ELEMENT_ORDER)
                && !patch.contains_key(list)
                && let Some(Value::Array(elements)) = original.get_mut(list)
            {
                self.path.push(list);
                let facts = self.schema.field(&self.path);
                self.path.pop();
                let server_order = elements.clone();
                sort(elements, order, &server_order, facts.merge_key.as_deref())?;
            }
        }
        Ok(original)
    }

    /// The new value of one field; `None` removes it.
    fn field(
        &mut self,
        original: Option<Value>,
        patch: &'a Value,
        order: Option<&Value>,
    ) -> Result<Option<Value>, PatchError> {
        match (original, patch) {
            (_, Value::Null) => Ok(None),
            (Some(Value::Object(original)), Value::Object(patch)) => {
                if self.schema.field(&self.path).replace {
                    return Ok(Some(Value::Object(clean_map(patch))));
                }
                self.map(original, patch).map(|map| Some(Value::Object(map)))
            }
            (Some(Value::Array(original)), Value::Array(patch)) => {
                let facts = self.schema.field(&self.path);
                if !facts.merge {
                    return Ok(Some(clean(&Value::Array(patch.clone()))));
                }
                let key = facts.merge_key.as_deref();
                let server_order = original.clone();
                let mut merged = self.list(original, patch, key)?;
                if let Some(order) = order {
                    sort(&mut merged, order, &server_order, key)?;
                }
                Ok(Some(Value::Array(merged)))
            }
            (_, patch) => Ok(Some(clean(patch))),
        }
    }

    fn list(
        &mut self,
        mut original: Vec<Value>,
        patch: &'a [Value],
        key: Option<&str>,
    ) -> Result<Vec<Value>, PatchError> {
        let maps = patch.iter().chain(&original).any(Value::is_object);
        if !maps {
            // Scalars: a set in the order of first appearance.
            for value in patch {
                if !original.contains(value) {
                    original.push(value.clone());
                }
            }
            return Ok(original);
        }
        let Some(key) = key else {
            return Err(malformed(format!(
                "cannot merge the list {} of maps: it has no merge key",
                self.path.join(".")
            )));
        };
        if patch.iter().any(|element| element.get(PATCH).is_some_and(|directive| directive == "replace")) {
            return Ok(patch.iter().filter(|element| element.get(PATCH).is_none()).map(clean).collect());
        }
        for element in patch {
            let Value::Object(map) = element else {
                return Err(malformed(format!(
                    "the list {} has elements of different types",
                    self.path.join(".")
                )));
            };
            let id = map.get(key).ok_or_else(|| {
                malformed(format!("map: {element} does not contain declared merge key: {key}"))
            })?;
            let same = |existing: &Value| existing.get(key) == Some(id);
            if map.get(PATCH).is_some_and(|directive| directive == "delete") {
                original.retain(|existing| !same(existing));
                continue;
            }
            match original.iter().position(same) {
                Some(at) => {
                    let existing = match std::mem::take(&mut original[at]) {
                        Value::Object(existing) => existing,
                        _ => Map::new(),
                    };
                    original[at] = Value::Object(self.map(existing, map)?);
                }
                None => original.push(clean(element)),
            }
        }
        Ok(original)
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH
        || name == RETAIN_KEYS
        || name.starts_with(SET_ELEMENT_ORDER)
        || name.starts_with(DELETE_FROM_LIST)
}

/// Keeps only the listed fields of the original.
fn retain(
    original: &mut Map<String, Value>,
    keys: &Value,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    let keys: Vec<_> = keys
        .as_array()
        .ok_or_else(|| malformed("$retainKeys must be a list"))?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let stray = patch
        .iter()
        .find(|(name, value)| !is_directive(name) && !value.is_null() && !keys.contains(&name.as_str()));
    if let Some((name, _)) = stray {
        return Err(malformed(format!(
            "retainKeys list doesn't contain all fields present in the patch: {name:?} is missing"
        )));
    }
    original.retain(|name, _| keys.contains(&name.as_str()));
    Ok(())
}

fn delete_scalars(original: &mut Map<String, Value>, list: &str, gone: &Value) -> Result<(), PatchError> {
    let gone =
        gone.as_array().ok_or_else(|| malformed(format!("{DELETE_FROM_LIST}{list} must be a list")))?;
    if let Some(Value::Array(values)) = original.get_mut(list) {
        values.retain(|value| !gone.contains(value));
    }
    Ok(())
}

/// Sorts a merged list: elements named by `order` as it says, the others where the server had them.
fn sort(
    merged: &mut Vec<Value>,
    order: &Value,
    server_order: &[Value],
    key: Option<&str>,
) -> Result<(), PatchError> {
    let order = order.as_array().ok_or_else(|| malformed("$setElementOrder must be a list"))?;
    let id = |value: &Value| -> Value {
        match (value, key) {
            (Value::Object(map), Some(key)) => map.get(key).cloned().unwrap_or_default(),
            _ => value.clone(),
        }
    };
    let order: Vec<Value> = order.iter().map(id).collect();
    let server: Vec<Value> = server_order.iter().map(id).collect();
    let place = |list: &[Value], value: &Value| list.iter().position(|other| *other == id(value));
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(merged).into_iter().partition(|value| place(&order, value).is_some());
    named.sort_by_key(|value| place(&order, value));
    others.sort_by_key(|value| place(&server, value).unwrap_or(usize::MAX));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(a), Some(b)) = (named.peek(), others.peek()) {
        let named_first = matches!((place(&server, a), place(&server, b)), (Some(a), Some(b)) if a < b);
        merged.extend(if named_first { named.next() } else { others.next() });
    }
    merged.extend(named.chain(others));
    Ok(())
}

/// A patch value that becomes the value itself: without nulls in maps and without directives.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(clean_map(map)),
        Value::Array(list) => {
            let kept = list
                .iter()
                .filter(|element| element.get(PATCH).is_none_or(|directive| directive != "delete"));
            Value::Array(kept.map(clean).collect())
        }
        scalar => scalar.clone(),
    }
}

fn clean_map(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = map.iter().filter(|(name, value)| !is_directive(name) && !value.is_null());
    kept.map(|(name, value)| (name.clone(), clean(value))).collect()
}

#[cfg(test)]
mod tests;
