//! A cluster whose node is made up: it takes every pod, says that it runs, and lets it go.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use cluster_controllers::Config;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::{Server, eventually};

/// Everything a test needs; all of it ends when this is dropped.
pub struct World {
    pub server: Server,
    pub client: Client,
    /// The controllers' own, with the rights of a controller manager and no more.
    identity: Client,
    controllers: Option<(CancellationToken, JoinHandle<()>)>,
    _node: DropGuard,
}

// === impl World ===

impl World {
    pub async fn new() -> Self {
        let server = Server::start().await;
        let client = server.client().await;
        let identity = server.client_as("system:kube-controller-manager", None).await;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(be_a_node(client.clone())));
        let mut world = Self { server, client, identity, controllers: None, _node: stop.drop_guard() };
        world.start(Duration::from_secs(40));
        world.create::<Namespace>("", json!({"metadata": {"name": "shop"}})).await;
        // Pods are refused before.
        world.until::<ServiceAccount>("the account", "shop", |found| !found.is_empty()).await;
        world
    }

    pub fn start(&mut self, node_grace: Duration) {
        let config = Config { node_grace, ..Config::new("PEM".to_owned()) };
        let stop = CancellationToken::new();
        let run = cluster_controllers::run(self.identity.clone(), config, stop.clone());
        self.controllers = Some((stop, tokio::spawn(async move { run.await.unwrap() })));
    }

    pub async fn stop(&mut self) {
        if let Some((stop, run)) = self.controllers.take() {
            stop.cancel();
            run.await.unwrap();
        }
    }

    fn api<K: kube::Resource<DynamicType = (), Scope: Scoped<K>>>(&self, namespace: &str) -> Api<K> {
        K::Scope::api(self.client.clone(), namespace)
    }

    pub async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope: Scoped<K>>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + Debug,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api(namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn patch<K>(&self, namespace: &str, name: &str, patch: Value)
    where
        K: kube::Resource<DynamicType = (), Scope: Scoped<K>> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>(namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn delete<K>(&self, namespace: &str, name: &str, how: DeleteParams)
    where
        K: kube::Resource<DynamicType = (), Scope: Scoped<K>> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>(namespace).delete(name, &how).await.unwrap();
    }

    pub async fn list<K>(&self, namespace: &str) -> Vec<K>
    where
        K: kube::Resource<DynamicType = (), Scope: Scoped<K>> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>(namespace).list(&kube::api::ListParams::default()).await.unwrap().items
    }

    /// Waits until the objects of a namespace are as they should be.
    pub async fn until<K>(&self, what: &str, namespace: &str, check: impl Fn(&[Value]) -> bool)
    where
        K: kube::Resource<DynamicType = (), Scope: Scoped<K>>
            + Clone
            + DeserializeOwned
            + serde::Serialize
            + Debug,
    {
        eventually(what, async || {
            let objects: Vec<_> =
                self.list::<K>(namespace).await.iter().map(|object| json!(object)).collect();
            check(&objects).then_some(())
        })
        .await;
    }
}

/// How a kind is reached.
pub trait Scoped<K: kube::Resource> {
    fn api(client: Client, namespace: &str) -> Api<K>;
}

impl<K: kube::Resource<DynamicType = (), Scope = Self>> Scoped<K> for kube::core::NamespaceResourceScope {
    fn api(client: Client, namespace: &str) -> Api<K> {
        Api::namespaced(client, namespace)
    }
}

impl<K: kube::Resource<DynamicType = (), Scope = Self>> Scoped<K> for kube::core::ClusterResourceScope {
    fn api(client: Client, _: &str) -> Api<K> {
        Api::all(client)
    }
}

/// Binds, runs and ends pods. Those with an image named `broken` never become ready.
async fn be_a_node(client: Client) {
    let addresses = Arc::new(AtomicU32::new(1));
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .touched_objects();
    let work = pods.for_each_concurrent(None, |pod| {
        let (client, addresses) = (client.clone(), Arc::clone(&addresses));
        async move {
            if let Ok(pod) = pod {
                look_after(&client, &pod, &addresses).await;
            }
        }
    });
    work.await;
}

async fn look_after(client: &Client, pod: &Pod, addresses: &AtomicU32) {
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap());
    let (name, value) = (pod.name_any(), json!(pod));
    // The pod may have changed or gone meanwhile; then there will be another event.
    if value["spec"]["nodeName"].is_null() {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": "fake"}});
        let _ =
            api.create_subresource::<Value, Value>("binding", &name, &PostParams::default(), &binding).await;
    } else if !value["metadata"]["deletionTimestamp"].is_null() {
        let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
    } else if value["status"]["podIP"].is_null() {
        let address = addresses.fetch_add(1, Ordering::Relaxed);
        let ready = if value["spec"]["containers"][0]["image"] == "broken" { "False" } else { "True" };
        let ip = format!("10.244.{}.{}", address / 250, address % 250 + 1);
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
    }
}

/// A Deployment with its Service's labels.
pub fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]},
        }},
    })
}

/// The objects that are not being deleted.
pub fn alive(objects: &[Value]) -> usize {
    objects.iter().filter(|object| object["metadata"]["deletionTimestamp"].is_null()).count()
}
