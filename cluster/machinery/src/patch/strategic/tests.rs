//! Strategic merge patches as kubectl sends them.

use serde_json::json;

use super::*;

/// A few facts of pods and deployments.
struct Pods;

impl PatchSchema for Pods {
    fn field(&self, path: &[&str]) -> FieldFacts {
        let by = |key: &'static str| FieldFacts {
            merge: true,
            merge_key: Some(key.into()),
            ..FieldFacts::default()
        };
        match path.last().copied().unwrap_or_default() {
            "containers" | "env" | "volumes" => by("name"),
            "ports" => by("containerPort"),
            "finalizers" => FieldFacts { merge: true, ..FieldFacts::default() },
            "selector" => FieldFacts { replace: true, ..FieldFacts::default() },
            _ => FieldFacts::default(),
        }
    }
}

#[track_caller]
fn check(original: Value, patch: Value, expected: Value) {
    let mut object = original;
    strategic(&mut object, &patch, &Pods).unwrap();
    assert_eq!(object, expected);
}

#[test]
fn lists_merge_by_key() {
    check(
        json!({"spec": {"containers": [{"name": "a", "image": "x:1", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "y:1"}]}}),
        json!({"spec": {"containers": [{"name": "a", "image": "x:2", "env": [{"name": "F", "value": "2"}]}, {"name": "c", "image": "z"}]}}),
        json!({"spec": {"containers": [{"name": "a", "image": "x:2", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
            {"name": "b", "image": "y:1"}, {"name": "c", "image": "z"}]}}),
    );
}

#[test]
fn lists_without_facts_are_replaced() {
    check(json!({"args": ["a", "b"]}), json!({"args": ["c"]}), json!({"args": ["c"]}));
}

#[test]
fn nulls_remove_and_vanish() {
    check(
        json!({"a": 1, "b": {"c": 1}}),
        json!({"a": null, "b": {"c": null, "d": null}, "n": {"x": null, "y": 1}}),
        json!({"b": {}, "n": {"y": 1}}),
    );
}

#[test]
fn patch_directives() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    check(
        json!({"m": {"a": 1, "b": 2}}),
        json!({"m": {"$patch": "replace", "c": 3}}),
        json!({"m": {"c": 3}}),
    );
    check(json!({"m": {"a": 1}}), json!({"m": {"$patch": "delete"}}), json!({"m": {}}));
    check(json!({"selector": {"a": "1"}}), json!({"selector": {"b": "2"}}), json!({"selector": {"b": "2"}}));
    check(
        json!({}),
        json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
}

#[test]
fn retain_keys_drops_the_others() {
    check(
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
        json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
        json!({"strategy": {"type": "Recreate"}}),
    );
    let mut object = json!({"strategy": {}});
    let bad = json!({"strategy": {"$retainKeys": ["type"], "other": 1}});
    assert!(strategic(&mut object, &bad, &Pods).is_err());
    assert_eq!(object, json!({"strategy": {}}));
}

#[test]
fn scalars_are_sets() {
    check(
        json!({"finalizers": ["a", "b"]}),
        json!({"finalizers": ["b", "c"]}),
        json!({"finalizers": ["a", "b", "c"]}),
    );
    check(
        json!({"finalizers": ["a", "b", "c"]}),
        json!({"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}),
        json!({"finalizers": ["c", "a"]}),
    );
}

#[test]
fn element_order() {
    // As kubectl apply sends it: the order of all elements it knows, and the one that changed.
    check(
        json!({"containers": [{"name": "a"}, {"name": "injected"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}], "containers": [{"name": "c", "image": "z"}]}),
        json!({"containers": [{"name": "injected"}, {"name": "c", "image": "z"}, {"name": "a"}, {"name": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "s"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a"}, {"name": "s"}]}),
    );
}

#[test]
fn numbers_are_keys_too() {
    check(
        json!({"ports": [{"containerPort": 80, "protocol": "TCP"}]}),
        json!({"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}),
        json!({"ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}, {"containerPort": 81}]}),
    );
}

#[test]
fn faults_are_told() {
    for bad in [
        json!([]),
        json!({"$patch": "fly"}),
        json!({"containers": [{"image": "x"}]}),
        json!({"containers": ["x"]}),
    ] {
        let mut object = json!({"containers": [{"name": "a"}]});
        assert!(matches!(strategic(&mut object, &bad, &Pods), Err(PatchError::Malformed(_))), "{bad}");
        assert_eq!(object, json!({"containers": [{"name": "a"}]}));
    }
}
