//! Deployments against a small world that obeys plans: ReplicaSets get pods, pods become ready when a test says so.

use std::collections::BTreeMap;

use super::*;
use crate::plan::Verb;

/// Caches that change as plans say, and as if a ReplicaSet controller and nodes were there.
struct World {
    caches: Caches,
    version: u64,
    now: Timestamp,
    /// The most and the fewest pods seen since the counters were reset, ready ones for the fewest.
    most: i32,
    fewest: i32,
}

// === impl World ===

impl World {
    fn new(spec: Value) -> Self {
        let mut world = Self {
            caches: Caches::default(),
            version: 0,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            most: 0,
            fewest: i32::MAX,
        };
        let mut full = json!({
            "replicas": 4, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        });
        cluster_machinery::patch::merge(&mut full, &spec).unwrap();
        world.put(
            Kind::Deployment,
            json!({"metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 1}, "spec": full}),
        );
        world
    }

    fn put(&mut self, kind: Kind, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        match kind {
            Kind::Deployment => drop(self.caches.deployments.told(serde_json::from_value(object).unwrap())),
            Kind::ReplicaSet => drop(self.caches.replica_sets.told(serde_json::from_value(object).unwrap())),
            _ => panic!("not of this world"),
        }
    }

    fn get(&self, kind: Kind, key: &Key) -> Value {
        match kind {
            Kind::Deployment => json!(*self.caches.deployments.get(key).unwrap()),
            _ => json!(*self.caches.replica_sets.get(key).unwrap()),
        }
    }

    fn deployment(&self) -> Value {
        self.get(Kind::Deployment, &Key::new("n", "web"))
    }

    fn change(&mut self, patch: Value) {
        let mut deployment = self.deployment();
        let generation = deployment["metadata"]["generation"].as_i64().unwrap() + 1;
        cluster_machinery::patch::merge(&mut deployment, &patch).unwrap();
        deployment["metadata"]["generation"] = generation.into();
        self.put(Kind::Deployment, deployment);
    }

    fn step(&mut self) -> Plan {
        let plan = reconcile(&self.caches, &Key::new("n", "web"), self.now);
        for action in plan.actions() {
            match &action.verb {
                Verb::Create(object) => {
                    let mut object = object.clone();
                    object["metadata"]["uid"] = object["metadata"]["name"].clone();
                    object["metadata"]["creationTimestamp"] =
                        cluster_machinery::time::format(self.now).into();
                    self.put(action.kind, object);
                }
                Verb::Patch { patch, .. } => {
                    let mut object = self.get(action.kind, &action.key);
                    if let Some(expected) = patch["metadata"]["resourceVersion"].as_str() {
                        assert_eq!(
                            object["metadata"]["resourceVersion"], expected,
                            "a patch upon stale state"
                        );
                    }
                    cluster_machinery::patch::merge(&mut object, patch).unwrap();
                    self.put(action.kind, object);
                }
                Verb::Delete { .. } => drop(self.caches.replica_sets.gone(&action.key, None)),
            }
        }
        plan
    }

    /// Lets every ReplicaSet have the pods it asks for, of which `ready` more than now, all together, are ready.
    fn pods(&mut self, mut ready: i32) {
        for set in self.caches.replica_sets.all() {
            let count = replicas(&set);
            let before = available(&set).min(count);
            let more = ready.min(count - before);
            ready -= more;
            let mut set = json!(*set);
            set["status"] = json!({"replicas": count, "readyReplicas": before + more, "availableReplicas": before + more, "observedGeneration": 1});
            if set
                != json!(
                    *self
                        .caches
                        .replica_sets
                        .get(&Key::new("n", set["metadata"]["name"].as_str().unwrap()))
                        .unwrap()
                )
            {
                self.put(Kind::ReplicaSet, set);
            }
        }
        self.most = self.most.max(self.caches.replica_sets.all().iter().map(|set| replicas(set)).sum());
        self.fewest = self.fewest.min(self.caches.replica_sets.all().iter().map(|set| available(set)).sum());
    }

    /// Steps until nothing changes.
    fn settle(&mut self, ready_each_step: i32) {
        for _ in 0..100 {
            let idle = self.step().batches.is_empty();
            let before = self.version;
            self.pods(ready_each_step);
            if idle && before == self.version {
                return;
            }
        }
        panic!("never settles: {}", self.deployment());
    }

    fn reset_bounds(&mut self) {
        (self.most, self.fewest) = (0, i32::MAX);
    }

    /// The replicas of each image.
    fn sizes(&self) -> BTreeMap<String, i32> {
        let image = |set: &ReplicaSet| {
            json!(set)["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
        };
        self.caches.replica_sets.all().iter().map(|set| (image(set), replicas(set))).collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let deployment = self.deployment();
        let condition = cluster_machinery::condition::find(&deployment, kind).unwrap();
        (condition["status"].as_str().unwrap().to_owned(), condition["reason"].as_str().unwrap().to_owned())
    }
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn sizes<const N: usize>(sizes: [(&str, i32); N]) -> BTreeMap<String, i32> {
    sizes.into_iter().map(|(image, count)| (image.to_owned(), count)).collect()
}

#[test]
fn the_first_rollout() {
    let mut world = World::new(json!({}));
    world.step();
    let set = world.caches.replica_sets.all().remove(0);
    let hash = set.metadata.labels.as_ref().unwrap()[HASH].clone();
    assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
    assert_eq!(set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()[HASH], hash);
    assert_eq!(
        (replicas(&set), annotation(&set, REVISION), annotation(&set, MAX_REPLICAS)),
        (4, Some("1"), Some("5"))
    );
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetCreated".into()));
    assert_eq!(world.condition("Available").0, "False");
    assert_eq!(world.deployment()["metadata"]["annotations"][REVISION], "1");
    world.settle(1);
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(world.condition("Available").0, "True");
    let status = world.deployment()["status"].clone();
    assert_eq!(
        (&status["updatedReplicas"], &status["availableReplicas"], &status["unavailableReplicas"]),
        (&json!(4), &json!(4), &Value::Null)
    );
    assert_eq!(status["observedGeneration"], 1);
}

#[test]
fn a_rolling_update_stays_within_bounds() {
    for (replicas, strategy, most, fewest) in [
        (4, json!({}), 5, 3),
        (4, json!({"maxSurge": 0, "maxUnavailable": 1}), 4, 3),
        (4, json!({"maxSurge": 1, "maxUnavailable": 0}), 5, 4),
        (10, json!({"maxSurge": "30%", "maxUnavailable": "20%"}), 13, 8),
        (1, json!({}), 2, 1),
        (3, json!({"maxSurge": 0, "maxUnavailable": 0}), 3, 2),
    ] {
        let mut world = World::new(
            json!({"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": strategy}}),
        );
        world.settle(100);
        world.reset_bounds();
        world.change(image("i:2"));
        world.settle(1);
        assert_eq!(world.most, most, "{replicas} {strategy}");
        assert!(world.fewest >= fewest, "{replicas} {strategy}: {} available", world.fewest);
        assert_eq!(world.sizes(), sizes([("i:1", 0), ("i:2", replicas)]));
        assert_eq!(world.deployment()["metadata"]["annotations"][REVISION], "2");
        assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
    }
}

#[test]
fn pods_that_never_serve_do_not_stop_the_next_update() {
    let mut world = World::new(json!({}));
    world.settle(100);
    world.change(image("i:broken"));
    world.settle(0);
    assert_eq!(world.sizes(), sizes([("i:1", 3), ("i:broken", 2)]), "a broken update stops early");
    world.reset_bounds();
    world.change(image("i:3"));
    world.settle(1);
    assert_eq!(world.sizes(), sizes([("i:1", 0), ("i:broken", 0), ("i:3", 4)]));
    assert!(world.fewest >= 3);
}

#[test]
fn a_rollback_takes_the_old_set_up_again() {
    let mut world = World::new(json!({}));
    world.settle(100);
    world.change(image("i:2"));
    world.settle(100);
    world.change(image("i:1"));
    world.settle(100);
    assert_eq!(world.sizes(), sizes([("i:1", 4), ("i:2", 0)]));
    assert_eq!(world.deployment()["metadata"]["annotations"][REVISION], "3");
    let set = world.caches.replica_sets.all().into_iter().find(|set| replicas(set) == 4).unwrap();
    assert_eq!((annotation(&set, REVISION), annotation(&set, REVISION_HISTORY)), (Some("3"), Some("1")));
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut world = World::new(json!({"strategy": {"type": "Recreate"}}));
    world.settle(100);
    let old = world.caches.replica_sets.all().remove(0);
    let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "p", "resourceVersion": "1000",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": old.metadata.name, "uid": old.metadata.uid, "controller": true}]}});
    world.caches.pods.told(serde_json::from_value(pod).unwrap());
    world.change(image("i:2"));
    world.settle(100);
    assert_eq!(world.sizes(), sizes([("i:1", 0)]));
    world.caches.pods.gone(&Key::new("n", "p"), None);
    world.settle(100);
    assert_eq!(world.sizes(), sizes([("i:1", 0), ("i:2", 4)]));
}

#[test]
fn scaling_in_a_rollout_is_proportional() {
    let mut world = World::new(
        json!({"replicas": 10, "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}),
    );
    world.settle(100);
    world.change(image("i:2"));
    world.settle(0);
    assert_eq!(world.sizes(), sizes([("i:1", 8), ("i:2", 5)]));
    world.change(json!({"spec": {"replicas": 15}}));
    world.step();
    assert_eq!(world.sizes(), sizes([("i:1", 11), ("i:2", 7)]), "the example in Kubernetes' documentation");
    world.settle(1);
    assert_eq!(world.sizes(), sizes([("i:1", 0), ("i:2", 15)]));
}

#[test]
fn scaling_alone() {
    let mut world = World::new(json!({}));
    world.settle(100);
    for count in [7, 0, 2] {
        world.change(json!({"spec": {"replicas": count}}));
        world.settle(100);
        assert_eq!(world.sizes(), sizes([("i:1", count)]));
        assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
        assert_eq!(world.deployment()["metadata"]["annotations"][REVISION], "1", "scaling is no revision");
    }
}

#[test]
fn a_paused_deployment_rolls_nothing_out() {
    let mut world = World::new(json!({}));
    world.settle(100);
    world.change(json!({"spec": {"paused": true}}));
    world.change(image("i:2"));
    world.settle(100);
    assert_eq!(world.sizes(), sizes([("i:1", 4)]));
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
    world.change(json!({"spec": {"replicas": 6}}));
    world.settle(100);
    assert_eq!(world.sizes(), sizes([("i:1", 6)]));
    world.change(json!({"spec": {"paused": null}}));
    world.settle(100);
    assert_eq!(world.sizes(), sizes([("i:1", 0), ("i:2", 6)]));
}

#[test]
fn no_progress_is_told_after_the_deadline() {
    let mut world = World::new(json!({"progressDeadlineSeconds": 60}));
    world.settle(0);
    let again = reconcile(&world.caches, &Key::new("n", "web"), world.now).again_after;
    assert_eq!(again, Some(Duration::from_secs(61)));
    world.now = "2026-01-01T00:01:01Z".parse().unwrap();
    world.settle(0);
    assert_eq!(world.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    world.settle(1);
    assert_eq!(world.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn history_is_limited() {
    let mut world = World::new(json!({"revisionHistoryLimit": 2}));
    for revision in 1..=5 {
        world.change(image(&format!("i:{revision}")));
        world.settle(100);
    }
    assert_eq!(world.sizes(), sizes([("i:3", 0), ("i:4", 0), ("i:5", 4)]));
}

#[test]
fn a_taken_name_is_avoided() {
    let mut world = World::new(json!({}));
    world.step();
    let mut taken = json!(*world.caches.replica_sets.all().remove(0));
    taken["metadata"]["ownerReferences"][0]["uid"] = "other".into();
    world.put(Kind::ReplicaSet, taken);
    world.step();
    assert_eq!(world.deployment()["status"]["collisionCount"], 1);
    world.step();
    assert_eq!(world.caches.replica_sets.all().len(), 2);
}

#[test]
fn stray_sets_are_adopted() {
    let mut world = World::new(json!({}));
    world.settle(100);
    let mut set = json!(*world.caches.replica_sets.all().remove(0));
    set["metadata"]["ownerReferences"] = json!([]);
    world.put(Kind::ReplicaSet, set);
    world.settle(100);
    assert_eq!(world.caches.replica_sets.all().len(), 1);
    assert_eq!(pod::controller(&world.caches.replica_sets.all()[0].metadata).unwrap().uid, "d");
}
