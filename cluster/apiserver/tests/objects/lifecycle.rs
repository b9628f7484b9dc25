//! Creating, changing and deleting: preconditions, finalizers, graceful pods, admission defaults, services.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
};
use serde_json::{Value, json};

use super::{config_map, default_account, pod, status, typed};
use crate::harness::Server;

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_and_preconditions() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let first = config_map(&client, "a", "1").await;
    let again = api.create(&PostParams::default(), &typed(json!({"metadata": {"name": "a"}}))).await;
    let refusal = status(again.unwrap_err());
    assert_eq!(
        (refusal.code, &*refusal.reason, &*refusal.message),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );
    let mut changed = first.clone();
    changed.data.get_or_insert_default().insert("value".to_owned(), "2".to_owned());
    let second = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(second.resource_version(), first.resource_version());
    let stale = status(api.replace("a", &PostParams::default(), &changed).await.unwrap_err());
    assert_eq!((stale.code, &*stale.reason), (409, "Conflict"));
    assert!(
        stale
            .message
            .contains("the object has been modified; please apply your changes to the latest version")
    );
    // Nothing changed, nothing is written.
    let same = api.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.resource_version(), second.resource_version());
    let wrong = Preconditions { uid: Some("other".to_owned()), resource_version: None };
    let refused = api.delete("a", &DeleteParams::default().preconditions(wrong)).await;
    assert_eq!(status(refused.unwrap_err()).code, 409);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api.create(&dry, &typed(json!({"metadata": {"name": "dry"}}))).await.unwrap();
    assert!(api.get_opt("dry").await.unwrap().is_none());
    let invalid = api.create(&PostParams::default(), &typed(json!({"metadata": {"name": "Bad_Name"}}))).await;
    let invalid = status(invalid.unwrap_err());
    assert_eq!((invalid.code, &*invalid.reason), (422, "Invalid"));
    let generated = api
        .create(&PostParams::default(), &typed(json!({"metadata": {"generateName": "g-"}})))
        .await
        .unwrap();
    assert_eq!(generated.name_any().len(), "g-".len() + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_hold_objects() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let object = typed(json!({"metadata": {"name": "held", "finalizers": ["test.example.com/hold"]}}));
    api.create(&PostParams::default(), &object).await.unwrap();
    api.delete("held", &DeleteParams::default()).await.unwrap();
    let held = api.get("held").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let added = json!({"metadata": {"finalizers": ["test.example.com/hold", "test.example.com/more"]}});
    let refused = api.patch("held", &PatchParams::default(), &Patch::Merge(&added)).await;
    assert_eq!(status(refused.unwrap_err()).code, 422);
    let none = json!({"metadata": {"finalizers": null}});
    api.patch("held", &PatchParams::default(), &Patch::Merge(&none)).await.unwrap();
    assert!(api.get_opt("held").await.unwrap().is_none());
    config_map(&client, "parent", "1").await;
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    api.delete("parent", &foreground).await.unwrap();
    assert_eq!(api.get("parent").await.unwrap().finalizers(), ["foregroundDeletion"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_admitted_bound_and_end() {
    let server = Server::start().await;
    let client = server.client().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let refused = status(pods.create(&PostParams::default(), &pod("early")).await.unwrap_err());
    assert_eq!(refused.code, 403);
    assert!(
        refused.message.contains("error looking up service account default/default"),
        "{}",
        refused.message
    );
    default_account(&client).await;
    let created = pods.create(&PostParams::default(), &pod("web")).await.unwrap();
    let value: Value = serde_json::to_value(&created).unwrap();
    assert_eq!(value["spec"]["serviceAccountName"], "default");
    let mount = &value["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(value["spec"]["tolerations"][0]["tolerationSeconds"], 300);
    assert_eq!(value["spec"]["priority"], 0);
    assert_eq!(value["status"]["phase"], "Pending");
    assert_eq!(value["metadata"]["generation"], 1);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    let path = "/api/v1/namespaces/default/pods/web/binding";
    let request = || {
        http::Request::post(path)
            .header("content-type", "application/json")
            .body(binding.to_string().into_bytes())
            .unwrap()
    };
    client.request::<Value>(request()).await.unwrap();
    assert_eq!(status(client.request::<Value>(request()).await.unwrap_err()).code, 409);
    assert_eq!(pods.get("web").await.unwrap().spec.unwrap().node_name.as_deref(), Some("n1"));
    let running = json!({"status": {"phase": "Running", "podIP": "10.244.1.2"}});
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(&running)).await.unwrap();
    // A pod on a node is marked; the kubelet's delete without grace removes it.
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    let marked = pods.get("web").await.unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("web", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
        .await
        .unwrap();
    assert!(pods.get_opt("web").await.unwrap().is_none());
    pods.create(&PostParams::default(), &pod("unbound")).await.unwrap();
    pods.delete("unbound", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("unbound").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn services_hold_addresses() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let make = |name: &str, spec: Value| typed::<Service>(json!({"metadata": {"name": name}, "spec": spec}));
    let port = json!([{"port": 80}]);
    let dns = make("dns", json!({"clusterIP": "10.96.0.10", "ports": port}));
    api.create(&PostParams::default(), &dns).await.unwrap();
    let again = make("dns2", json!({"clusterIP": "10.96.0.10", "ports": port}));
    let taken = status(api.create(&PostParams::default(), &again).await.unwrap_err());
    assert!(taken.message.contains("provided IP is already allocated"), "{}", taken.message);
    api.delete("dns", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &again).await.unwrap();
    let node_port = make("np", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    let created = api.create(&PostParams::default(), &node_port).await.unwrap();
    let address = created.spec.unwrap().cluster_ip.unwrap();
    let merged = json!({"spec": {"type": "ClusterIP"}});
    let changed = api.patch("np", &PatchParams::default(), &Patch::Merge(&merged)).await.unwrap();
    let spec = changed.spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some(&*address));
    assert_eq!(spec.ports.unwrap()[0].node_port, None);
    let other = make("np2", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    api.create(&PostParams::default(), &other).await.unwrap();
    let moved = json!({"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}});
    let refused = api.patch("np", &PatchParams::default(), &Patch::Merge(&moved)).await;
    assert!(status(refused.unwrap_err()).message.contains("field is immutable"));
    let headless = make("h", json!({"clusterIP": "None", "ports": port}));
    assert_eq!(
        api.create(&PostParams::default(), &headless).await.unwrap().spec.unwrap().cluster_ip.as_deref(),
        Some("None")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_end_when_they_are_empty() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &typed(json!({"metadata": {"name": "blue"}}))).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "blue");
    api.delete("blue", &DeleteParams::default()).await.unwrap();
    let marked = api.get("blue").await.unwrap();
    assert_eq!(marked.status.unwrap().phase.as_deref(), Some("Terminating"));
    let refused = maps.create(&PostParams::default(), &typed(json!({"metadata": {"name": "late"}}))).await;
    let refused = status(refused.unwrap_err());
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains("because it is being terminated"));
    let mut body: Value = serde_json::to_value(api.get("blue").await.unwrap()).unwrap();
    body["spec"] = json!({"finalizers": []});
    let request =
        http::Request::put("/api/v1/namespaces/blue/finalize").header("content-type", "application/json");
    client.request::<Value>(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap();
    assert!(api.get_opt("blue").await.unwrap().is_none());
    let nowhere: Api<ConfigMap> = Api::namespaced(client, "nowhere");
    let missing = nowhere.create(&PostParams::default(), &typed(json!({"metadata": {"name": "x"}}))).await;
    assert_eq!(status(missing.unwrap_err()).message, "namespaces \"nowhere\" not found");
}
