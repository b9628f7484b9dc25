//! EndpointSlices against made-up Services and pods.

use super::*;
use crate::plan::Verb;

struct World {
    caches: Caches,
    version: u64,
}

// === impl World ===

impl World {
    fn new(service: Value) -> Self {
        let mut world = Self { caches: Caches::default(), version: 0 };
        world.service(service);
        world
    }

    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn service(&mut self, patch: Value) {
        let mut service = json!({"metadata": {"namespace": "n", "name": "web", "uid": "s", "labels": {"l": "1"}},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        cluster_machinery::patch::merge(&mut service, &patch).unwrap();
        service["metadata"]["resourceVersion"] = self.next().into();
        self.caches.services.told(serde_json::from_value(service).unwrap());
    }

    fn pod(&mut self, name: &str, patch: Value) {
        let mut pod = json!({"metadata": {"namespace": "n", "name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9000}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{}", name.len()), "conditions": [{"type": "Ready", "status": "True"}]}});
        cluster_machinery::patch::merge(&mut pod, &patch).unwrap();
        pod["metadata"]["resourceVersion"] = self.next().into();
        self.caches.pods.told(serde_json::from_value(pod).unwrap());
    }

    /// Does what the plan says; answers how many creations, patches and deletions that was.
    fn step(&mut self) -> [usize; 3] {
        let mut counts = [0; 3];
        let plan = reconcile(&self.caches, &Key::new("n", "web"));
        for action in plan.actions() {
            let version = self.next();
            let mut object = match &action.verb {
                Verb::Create(object) => {
                    counts[0] += 1;
                    let mut object = object.clone();
                    object["metadata"]["name"] = format!("web-{version}").into();
                    object["metadata"]["uid"] = version.clone().into();
                    object
                }
                Verb::Patch { patch, .. } => {
                    counts[1] += 1;
                    let mut object = json!(*self.caches.endpoint_slices.get(&action.key).unwrap());
                    cluster_machinery::patch::merge(&mut object, patch).unwrap();
                    object
                }
                Verb::Delete { .. } => {
                    counts[2] += 1;
                    self.caches.endpoint_slices.gone(&action.key, None);
                    continue;
                }
            };
            object["metadata"]["resourceVersion"] = version.into();
            self.caches.endpoint_slices.told(serde_json::from_value(object).unwrap());
        }
        assert_eq!(reconcile(&self.caches, &Key::new("n", "web")), Plan::nothing(), "one step is enough");
        counts
    }

    fn slices(&self) -> Vec<Value> {
        self.caches.endpoint_slices.all().iter().map(|slice| json!(**slice)).collect()
    }
}

#[test]
fn one_slice_follows_the_pods() {
    let mut world = World::new(json!({}));
    assert_eq!(world.step(), [1, 0, 0], "a Service without pods has an empty slice");
    assert_eq!(world.slices()[0]["endpoints"], json!([]));
    world.pod("a", json!({}));
    world.step();
    let slice = world.slices().remove(0);
    assert_eq!(slice["metadata"]["labels"], json!({"l": "1", SERVICE_NAME: "web", MANAGED_BY: MANAGER}));
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["addresses"], json!(["10.0.0.1"]));
    assert_eq!(endpoint["conditions"], json!({"ready": true, "serving": true, "terminating": false}));
    assert_eq!((&endpoint["nodeName"], &endpoint["targetRef"]["uid"]), (&json!("n1"), &json!("a")));
    assert!(endpoint.get("hostname").is_none());
    world.pod("a", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert_eq!(world.step(), [0, 1, 0]);
    assert_eq!(
        world.slices()[0]["endpoints"][0]["conditions"],
        json!({"ready": false, "serving": true, "terminating": true})
    );
    world.pod("a", json!({"status": {"phase": "Succeeded"}}));
    world.step();
    assert_eq!(world.slices()[0]["endpoints"], json!([]));
}

#[test]
fn pods_that_do_not_count() {
    let mut world = World::new(json!({}));
    world.pod("noip", json!({"status": {"podIP": null}}));
    world.pod("other", json!({"metadata": {"labels": {"app": "db"}}}));
    world.pod("failed", json!({"status": {"phase": "Failed"}}));
    world.pod("unready", json!({"status": {"conditions": null}}));
    world.step();
    let endpoints = world.slices()[0]["endpoints"].clone();
    assert_eq!(endpoints.as_array().unwrap().len(), 1);
    assert_eq!(endpoints[0]["conditions"]["ready"], false);
    world.service(json!({"spec": {"publishNotReadyAddresses": true}}));
    world.step();
    assert_eq!(world.slices()[0]["endpoints"][0]["conditions"]["ready"], true);
}

#[test]
fn named_ports_are_found_in_each_pod() {
    let mut world = World::new(json!({"spec": {"ports": [{"port": 80, "targetPort": "web"}]}}));
    world.pod("a", json!({}));
    world.pod(
        "bb",
        json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9001}]}]}}),
    );
    world.pod("ccc", json!({"spec": {"containers": [{"name": "c"}]}}));
    world.step();
    let mut ports: Vec<_> =
        world.slices().iter().map(|slice| slice["ports"][0]["port"].as_i64().unwrap()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [9000, 9001]);
    let addresses: usize =
        world.slices().iter().map(|slice| slice["endpoints"].as_array().unwrap().len()).sum();
    assert_eq!(addresses, 2, "a pod without the port has no endpoint");
}

#[test]
fn headless_services_name_their_pods() {
    let mut world = World::new(json!({"spec": {"clusterIP": "None", "ports": null}}));
    world.pod("a", json!({"spec": {"hostname": "a-0", "subdomain": "web"}}));
    world.step();
    let slice = world.slices().remove(0);
    assert_eq!(slice["metadata"]["labels"][HEADLESS], "");
    assert_eq!(slice["endpoints"][0]["hostname"], "a-0");
}

#[test]
fn large_services_have_several_slices_and_few_change() {
    let mut world = World::new(json!({}));
    for index in 0..250 {
        world.pod(
            &format!("p{index}"),
            json!({"status": {"podIP": format!("10.0.{}.{}", index / 250, index % 250)}}),
        );
    }
    assert_eq!(world.step(), [3, 0, 0]);
    world.pod("p7", json!({"status": {"podIP": "10.0.0.7", "conditions": null}}));
    assert_eq!(world.step(), [0, 1, 0]);
    world.pod("new", json!({"status": {"podIP": "10.9.9.9"}}));
    assert_eq!(world.step(), [0, 1, 0]);
    let sizes: Vec<_> =
        world.slices().iter().map(|slice| slice["endpoints"].as_array().unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size <= 100) && sizes.iter().sum::<usize>() == 251, "{sizes:?}");
    for pod in world.caches.pods.all() {
        world.caches.pods.gone(&Key::of(&*pod), None);
    }
    let counts = world.step();
    assert_eq!((world.slices().len(), counts), (1, [0, 1, 2]));
}

#[test]
fn the_slices_of_others_are_left_alone() {
    let mut world = World::new(json!({"spec": {"selector": null}}));
    world.pod("a", json!({}));
    assert_eq!(world.step(), [0, 0, 0], "without selector somebody else writes the slices");
    world.service(json!({"spec": {"type": "ExternalName"}}));
    assert_eq!(world.step(), [0, 0, 0]);
    world.service(json!({}));
    world.step();
    let foreign = json!({"metadata": {"namespace": "n", "name": "mine", "uid": "x", "resourceVersion": "9999", "labels": {SERVICE_NAME: "web"}},
        "addressType": "IPv4", "endpoints": []});
    world.caches.endpoint_slices.told(serde_json::from_value(foreign).unwrap());
    world.caches.services.gone(&Key::new("n", "web"), None);
    assert_eq!(world.step(), [0, 0, 1]);
    assert_eq!(world.slices().len(), 1);
}
