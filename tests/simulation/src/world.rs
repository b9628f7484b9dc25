//! A cluster in memory: objects as YAML, deployments as pods, services with addresses and endpoint slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshd_compile::{ResourceType, Resources, compile};
use meshd_index::{Object, State, state::Source};
use meshd_model::{Change, Locality, ProxyKey, ProxyKind, Snapshot, Workload};
use policies_api::document;
use serde_json::{Value, json};

/// A cluster in memory.
#[derive(Debug, Default)]
pub struct World {
    state: State,
    /// Pods by namespace and name, as fed.
    pods: BTreeMap<(String, String), Value>,
    services: BTreeMap<(String, String), Value>,
    /// Seconds since the first object, so that later objects are younger.
    clock: u32,
    snapshot: Option<Snapshot>,
    change: Change,
}

// === impl World ===

impl World {
    /// A cluster with two nodes, the gateway, and the namespaces `default` (injected), `other` (injected) and `plain` (not).
    #[must_use]
    pub fn new() -> Self {
        let mut world = Self::default();
        for (node, zone) in [("node1", "a"), ("node2", "b")] {
            world.put(json!({ "kind": "Node", "metadata": { "name": node, "labels": { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone } } }));
        }
        for (namespace, injection) in
            [("default", "enabled"), ("other", "enabled"), ("plain", "disabled"), ("mesh-system", "disabled")]
        {
            world.put(json!({ "kind": "Namespace", "metadata": { "name": namespace, "labels": { "istio-injection": injection } } }));
        }
        world.put(json!({
            "kind": "Service", "metadata": { "name": "istio-ingressgateway", "namespace": "mesh-system" },
            "spec": {
                "selector": { "istio": "ingressgateway" },
                "ports": [{ "name": "http2", "port": 80, "targetPort": 8080 }, { "name": "https", "port": 443, "targetPort": 8443 }],
            },
        }));
        world.put_pod(
            "mesh-system",
            "istio-ingressgateway",
            0,
            &json!({
                "metadata": { "labels": { "istio": "ingressgateway", "security.istio.io/tlsMode": "istio" } },
                "spec": { "serviceAccountName": "istio-ingressgateway" },
            }),
        );
        world
    }

    /// The cluster with the sample application in `default`.
    #[must_use]
    pub fn bookinfo() -> Self {
        let mut world = Self::new();
        world.apply(include_str!("../../../policies/samples/bookinfo/bookinfo.yaml"));
        world.apply(include_str!("../../../policies/samples/bookinfo/networking/destination-rule-all.yaml"));
        world
    }

    /// Applies every object of a file; objects without a namespace go to `default`.
    ///
    /// # Panics
    /// When the text is not YAML: a test's input is part of the test.
    pub fn apply(&mut self, yaml: &str) {
        let documents = document::parse(yaml).unwrap_or_else(|error| panic!("{error}"));
        documents.into_iter().for_each(|it| self.put(it.value));
    }

    /// Sets the mesh configuration, YAML in Istio's names.
    pub fn configure(&mut self, mesh: &str) {
        let object =
            json!({ "metadata": { "name": "istio", "namespace": "mesh-system" }, "data": { "mesh": mesh } });
        self.state.apply(Source::MeshConfig, Object::from_json(object));
    }

    /// Deletes a policy object.
    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        let Some(source) = Source::of_kind(kind) else { return };
        let object = Object::from_json(json!({ "metadata": { "name": name, "namespace": namespace } }));
        self.state.delete(source, &object.meta);
    }

    /// The state of now.
    pub fn snapshot(&mut self) -> Snapshot {
        self.slices();
        if let Some((snapshot, change)) = self.state.publish_now() {
            self.snapshot = Some(snapshot);
            self.change = change;
        }
        self.snapshot.clone().unwrap_or_default()
    }

    /// What the last snapshot changed.
    #[must_use]
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// The proxy of the first pod of a workload, such as `default/productpage-v1`.
    ///
    /// # Panics
    /// When there is no such pod.
    pub fn proxy(&mut self, workload: &str) -> ProxyKey {
        let (namespace, name) = workload.split_once('/').unwrap_or(("default", workload));
        let snapshot = self.snapshot();
        let pod =
            snapshot.workloads.iter().find(|it| *it.namespace == *namespace && *it.workload_name == *name);
        let pod = pod.unwrap_or_else(|| panic!("no pod of {workload}"));
        key(pod)
    }

    /// Everything the proxy of a workload gets.
    pub fn compile(&mut self, workload: &str) -> Resources {
        let proxy = self.proxy(workload);
        compile(&self.snapshot(), &proxy)
    }

    /// What the sidecar of a workload makes of it.
    ///
    /// # Panics
    /// When the sidecar refuses a resource or misses one that others refer to.
    pub fn sidecar(&mut self, workload: &str) -> Arc<sidecar_model::Snapshot> {
        let resources = self.compile(workload);
        let mut builder = sidecar_model::SnapshotBuilder::new(&sidecar_model::Snapshot::default());
        for kind in ResourceType::ALL {
            let target = sidecar_model::ResourceType::from_type_url(kind.type_url())
                .unwrap_or(sidecar_model::ResourceType::Cluster);
            for (name, resource) in resources.of(kind).iter() {
                if let Err(rejected) = builder.upsert(target, name, &resource.value) {
                    panic!("the sidecar of {workload} refuses {kind:?} {name}: {:?}", rejected.reason);
                }
            }
        }
        let snapshot = builder.build();
        let mut missing = snapshot.missing();
        // The sidecar reads the machine's own roots itself.
        missing.secrets.retain(|name| **name != *sidecar_model::secret::SYSTEM_ROOTS);
        assert!(missing.is_empty(), "{workload} misses {missing:?}");
        snapshot
    }

    fn put(&mut self, mut value: Value) {
        self.clock += 1;
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let cluster_wide = matches!(kind.as_str(), "Node" | "Namespace");
        if value["metadata"].get("namespace").is_none() && !cluster_wide {
            value["metadata"]["namespace"] = json!("default");
        }
        if value["metadata"].get("creationTimestamp").is_none() {
            value["metadata"]["creationTimestamp"] =
                json!(format!("2026-01-01T{:02}:{:02}:00Z", self.clock / 60, self.clock % 60));
        }
        value["metadata"]["generation"] = json!(self.clock);
        match kind.as_str() {
            "Deployment" => self.put_deployment(&value),
            "Service" => self.put_service(value),
            other => {
                if let Some(source) = Source::of_kind(other) {
                    self.state.apply(source, Object::from_json(value));
                }
            }
        }
    }

    fn put_deployment(&mut self, value: &Value) {
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default();
        for index in 0..value["spec"]["replicas"].as_u64().unwrap_or(1) {
            self.put_pod(namespace, name, index, &value["spec"]["template"]);
        }
    }

    fn put_pod(&mut self, namespace: &str, workload: &str, index: u64, template: &Value) {
        let mut pod = template.clone();
        let name = format!("{workload}-h4sh-{index}");
        let number = self.pods.len() + 10;
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["labels"]["pod-template-hash"] = json!("h4sh");
        if namespace != "plain" {
            pod["metadata"]["labels"]["security.istio.io/tlsMode"] = json!("istio");
        }
        pod["metadata"]["ownerReferences"] =
            json!([{ "kind": "ReplicaSet", "name": format!("{workload}-h4sh"), "controller": true }]);
        pod["spec"]["nodeName"] = json!(format!("node{}", number % 2 + 1));
        pod["status"] = json!({ "phase": "Running", "podIP": format!("10.244.1.{number}") });
        self.state.apply(Source::Pod, Object::from_json(pod.clone()));
        self.pods.insert((namespace.to_owned(), name), pod);
    }

    fn put_service(&mut self, mut value: Value) {
        if value["spec"].get("clusterIP").is_none() && value["spec"]["type"] != "ExternalName" {
            value["spec"]["clusterIP"] = json!(format!("10.96.0.{}", self.services.len() + 10));
        }
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = (text("/metadata/namespace"), text("/metadata/name"));
        self.state.apply(Source::Service, Object::from_json(value.clone()));
        self.services.insert(key, value);
    }

    /// What an endpoint slice controller would write.
    fn slices(&mut self) {
        for ((namespace, name), service) in &self.services {
            let Some(selector) = service["spec"]["selector"].as_object() else { continue };
            let selected = self.pods.iter().filter(|((of, _), pod)| {
                of == namespace
                    && selector.iter().all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
            });
            let endpoints: Vec<Value> = selected
                .map(|((_, name), pod)| {
                    json!({
                        "addresses": [pod["status"]["podIP"]], "conditions": { "ready": true },
                        "targetRef": { "kind": "Pod", "name": name }, "nodeName": pod["spec"]["nodeName"],
                    })
                })
                .collect();
            let ports: Vec<Value> = service["spec"]["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|it| {
                    let target = it.get("targetPort").filter(|it| it.is_number()).unwrap_or(&it["port"]);
                    json!({ "name": it.get("name").cloned().unwrap_or_default(), "port": target })
                })
                .collect();
            self.state.apply(Source::EndpointSlice, Object::from_json(json!({
                "metadata": { "name": name, "namespace": namespace, "labels": { "kubernetes.io/service-name": name } },
                "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
            })));
        }
    }
}

fn key(pod: &Workload) -> ProxyKey {
    let is_router = pod.labels.get("istio").is_some_and(|it| it == "ingressgateway");
    ProxyKey {
        id: format!("{}.{}", pod.name, pod.namespace).into(),
        kind: if is_router { ProxyKind::Router } else { ProxyKind::Sidecar },
        namespace: Arc::clone(&pod.namespace),
        pod: Arc::clone(&pod.name),
        ips: pod.ips.clone(),
        labels: Arc::clone(&pod.labels),
        service_account: Arc::clone(&pod.service_account),
        node: Arc::clone(&pod.node),
        locality: Locality::clone(&pod.locality),
        cluster_id: "Kubernetes".into(),
    }
}
