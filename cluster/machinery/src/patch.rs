//! The three patch types that change an object as a whole: JSON patch, merge patch, strategic merge patch.

mod strategic;

use serde_json::Value;

pub use strategic::{FieldFacts, NoFacts, PatchSchema, strategic};

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// The patch makes sense, but not for this object: a `test` failed or a path is missing.
    #[error("{0}")]
    Inapplicable(String),
}

/// Operations in one JSON patch.
const OPERATIONS_MAX: usize = 10_000;

/// Applies a JSON patch (RFC 6902); on error the object is as before.
///
/// # Errors
/// [`PatchError`], see there.
pub fn json(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        return Err(PatchError::Malformed(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"
        )));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    // The crate's own way back after a failed operation panics where the document itself was moved: a copy needs no way back.
    let mut patched = object.clone();
    json_patch::patch_unsafe(&mut patched, &patch).map_err(|error| {
        PatchError::Inapplicable(format!(
            "the server rejected our request due to an error in our request: {error}"
        ))
    })?;
    *object = patched;
    Ok(())
}

/// Applies a merge patch (RFC 7386).
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is not an object.
pub fn merge(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed(
            "error decoding patch: a merge patch must be an object".to_owned(),
        ));
    }
    json_patch::merge(object, patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches_are_atomic() {
        let mut object = json!({"a": 1});
        let patch =
            json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "test", "path": "/a", "value": 3}]);
        assert!(matches!(json(&mut object, &patch), Err(PatchError::Inapplicable(_))));
        assert_eq!(object, json!({"a": 1}));
        assert!(matches!(json(&mut object, &json!([{"op": "fly"}])), Err(PatchError::Malformed(_))));
        json(&mut object, &json!([{"op": "add", "path": "/b/-", "value": 2}])).unwrap_err();
        json(
            &mut object,
            &json!([{"op": "add", "path": "/b", "value": [1]}, {"op": "add", "path": "/b/-", "value": 2}]),
        )
        .unwrap();
        assert_eq!(object, json!({"a": 1, "b": [1, 2]}));
    }

    #[test]
    fn merge_removes_nulls() {
        let mut object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "x": [1]});
        merge(&mut object, &json!({"metadata": {"labels": {"a": null, "c": "3"}}, "x": [2]})).unwrap();
        assert_eq!(object, json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "x": [2]}));
        assert!(merge(&mut object, &json!([])).is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let key = prop_oneof![
                "[a-c]",
                Just("name".to_owned()),
                Just("$patch".to_owned()),
                Just("$retainKeys".to_owned()),
                Just("$setElementOrder/a".to_owned()),
                Just("$deleteFromPrimitiveList/a".to_owned())
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// Every list is merged by `name`.
    struct ByName;

    impl PatchSchema for ByName {
        fn field(&self, _: &[&str]) -> FieldFacts {
            FieldFacts { merge: true, merge_key: Some("name".into()), ..FieldFacts::default() }
        }
    }

    proptest! {
        #[test]
        fn no_patch_breaks_anything(mut object in values(), patch in values()) {
            let before = object.clone();
            if json(&mut object, &patch).is_err() {
                prop_assert_eq!(&object, &before);
            }
            let _ = merge(&mut object.clone(), &patch);
            let _ = strategic(&mut object.clone(), &patch, &NoFacts);
            let mut merged = object.clone();
            if strategic(&mut merged, &patch, &ByName).is_err() {
                prop_assert_eq!(&merged, &object);
            }
        }

        #[test]
        fn the_empty_patch_changes_nothing(object in values().prop_filter("object", Value::is_object)) {
            for patch in [merge, |object: &mut Value, patch: &Value| strategic(object, patch, &ByName)] {
                let mut patched = object.clone();
                patch(&mut patched, &json!({})).unwrap();
                prop_assert_eq!(&patched, &object);
            }
        }
    }
}
