//! ReplicaSets against made-up caches.

use super::*;
use crate::plan::Verb;

fn caches(replicas: i32, pods: &[Value]) -> Caches {
    let caches = Caches::default();
    let set = json!({
        "metadata": {"namespace": "n", "name": "web-1", "uid": "set", "resourceVersion": "1", "generation": 2},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 0},
    });
    caches.replica_sets.told(serde_json::from_value(set).unwrap());
    for (index, pod) in pods.iter().enumerate() {
        let mut pod = pod.clone();
        pod["metadata"]["namespace"] = "n".into();
        pod["metadata"]["resourceVersion"] = (index + 10).to_string().into();
        if pod["metadata"]["name"].is_null() {
            pod["metadata"]["name"] = format!("p{index}").into();
        }
        pod["metadata"]["uid"] = pod["metadata"]["name"].clone();
        caches.pods.told(serde_json::from_value(pod).unwrap());
    }
    caches
}

fn owned(more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"labels": {"app": "web"}, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "set", "controller": true}]},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    cluster_machinery::patch::merge(&mut pod, &more).unwrap();
    pod
}

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn plan(caches: &Caches) -> Plan {
    reconcile(caches, &Key::new("n", "web-1"), now())
}

fn deletes(plan: &Plan) -> Vec<&str> {
    plan.actions()
        .filter(|action| matches!(action.verb, Verb::Delete { .. }))
        .map(|action| action.key.name.as_str())
        .collect()
}

fn creates(plan: &Plan) -> Vec<usize> {
    let creates =
        |batch: &Vec<Action>| batch.iter().filter(|action| matches!(action.verb, Verb::Create(_))).count();
    plan.batches.iter().map(creates).filter(|count| *count > 0).collect()
}

#[test]
fn missing_pods_are_made_slowly_at_first() {
    let plan = plan(&caches(10, &[]));
    assert_eq!(creates(&plan), [1, 2, 4, 3]);
    let Verb::Create(pod) =
        &plan.actions().find(|action| matches!(action.verb, Verb::Create(_))).unwrap().verb
    else {
        panic!()
    };
    assert_eq!(pod["metadata"]["generateName"], "web-1-");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "set");
    assert_eq!(pod["spec"]["containers"][0]["image"], "i");
}

#[test]
fn nothing_to_do_does_nothing() {
    let caches = caches(1, &[owned(json!({}))]);
    let first = plan(&caches);
    let Verb::Patch { subresource: "status", patch } = &first.actions().next().unwrap().verb else {
        panic!("{first:?}")
    };
    assert_eq!(
        patch["status"],
        json!({"replicas": 1, "fullyLabeledReplicas": 1, "readyReplicas": 1, "availableReplicas": 1, "observedGeneration": 2})
    );
    let mut set = serde_json::to_value(&*caches.replica_sets.get(&Key::new("n", "web-1")).unwrap()).unwrap();
    set["status"] = patch["status"].clone();
    set["metadata"]["resourceVersion"] = "2".into();
    caches.replica_sets.told(serde_json::from_value(set).unwrap());
    assert_eq!(plan(&caches), Plan::nothing());
}

#[test]
fn the_least_missed_pods_go_first() {
    let pods = [
        owned(json!({"metadata": {"name": "old"}, "spec": {"nodeName": "n2"}})),
        owned(json!({"metadata": {"name": "crowded"}})),
        owned(
            json!({"metadata": {"name": "young"}, "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:59:00Z"}]}}),
        ),
        owned(json!({"metadata": {"name": "unready"}, "status": {"conditions": null}})),
        owned(json!({"metadata": {"name": "pending"}, "status": {"phase": "Pending", "conditions": null}})),
        owned(
            json!({"metadata": {"name": "unplaced"}, "spec": {"nodeName": null}, "status": {"phase": "Pending", "conditions": null}}),
        ),
        owned(
            json!({"metadata": {"name": "cheap", "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}}),
        ),
    ];
    let order = ["unplaced", "pending", "unready", "cheap", "young", "crowded", "old"];
    for keep in 0..7 {
        assert_eq!(deletes(&plan(&caches(keep, &pods))), order[..7 - keep as usize]);
    }
}

#[test]
fn finished_and_ending_pods_do_not_count() {
    let pods = [
        owned(json!({"status": {"phase": "Failed"}})),
        owned(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
    ];
    assert_eq!(creates(&plan(&caches(2, &pods))), [1, 1]);
}

#[test]
fn strays_are_adopted_and_strangers_released() {
    let stray = json!({"metadata": {"name": "stray", "labels": {"app": "web"}}});
    let stranger = owned(json!({"metadata": {"name": "stranger", "labels": {"app": "db"}}}));
    let taken = json!({"metadata": {"name": "taken", "labels": {"app": "web"}, "ownerReferences": [{"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x", "controller": true}]}});
    let plan = plan(&caches(1, &[stray, stranger, taken]));
    assert_eq!((creates(&plan), deletes(&plan)), (vec![], vec![]));
    let mut owners: Vec<_> = plan
        .actions()
        .filter_map(|action| match &action.verb {
            Verb::Patch { subresource: "", patch } => Some((
                action.key.name.as_str(),
                patch["metadata"]["ownerReferences"].as_array().unwrap().len(),
            )),
            _ => None,
        })
        .collect();
    owners.sort_unstable();
    assert_eq!(owners, [("stranger", 0), ("stray", 1)]);
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let caches = caches(
        1,
        &[owned(
            json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:59:50Z"}]}}),
        )],
    );
    let mut set = serde_json::to_value(&*caches.replica_sets.get(&Key::new("n", "web-1")).unwrap()).unwrap();
    set["spec"]["minReadySeconds"] = 30.into();
    set["metadata"]["resourceVersion"] = "2".into();
    caches.replica_sets.told(serde_json::from_value(set).unwrap());
    let plan = plan(&caches);
    let Verb::Patch { patch, .. } = &plan.actions().next().unwrap().verb else { panic!() };
    assert_eq!(
        (&patch["status"]["readyReplicas"], &patch["status"]["availableReplicas"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(plan.again_after, Some(Duration::from_secs(20)));
}

#[test]
fn a_set_that_is_deleted_makes_nothing() {
    let caches = caches(3, &[]);
    let mut set = serde_json::to_value(&*caches.replica_sets.get(&Key::new("n", "web-1")).unwrap()).unwrap();
    set["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    set["metadata"]["resourceVersion"] = "2".into();
    caches.replica_sets.told(serde_json::from_value(set).unwrap());
    assert!(creates(&plan(&caches)).is_empty());
}

#[test]
fn a_failure_is_taken_back_when_all_pods_are_there() {
    let failed = |pods: &[Value]| {
        let caches = caches(2, pods);
        let mut set = json!(*caches.replica_sets.get(&Key::new("n", "web-1")).unwrap());
        set["metadata"]["resourceVersion"] = "2".into();
        set["status"]["conditions"] = json!([{"type": FAILURE, "status": "True", "reason": "FailedCreate"}]);
        caches.replica_sets.told(serde_json::from_value(set).unwrap());
        let plan = plan(&caches);
        let patches = plan.actions().filter_map(|action| match &action.verb {
            Verb::Patch { patch, .. } => Some(patch["status"].clone()),
            _ => None,
        });
        patches.collect::<Vec<_>>()
    };
    let partly = failed(&[owned(json!({}))]);
    assert!(partly.iter().all(|status| status.get("conditions").is_none()), "{partly:?}");
    let whole = failed(&[owned(json!({})), owned(json!({}))]);
    assert_eq!(whole[0].get("conditions"), Some(&Value::Null), "{whole:?}");
}
