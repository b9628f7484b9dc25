//! The scheduler against the real API server and store.
#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "../../apiserver/tests/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the API server's tests")]
mod harness;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures::StreamExt;
use harness::{Server, eventually};
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct World {
    _server: Server,
    client: Client,
    /// The scheduler's own, with its rights and no more.
    identity: Client,
    pods: Api<Pod>,
    nodes: Api<Node>,
    scheduler: Option<(CancellationToken, JoinHandle<()>)>,
}

// === impl World ===

impl World {
    async fn new() -> Self {
        let server = Server::start().await;
        let client = server.client().await;
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
        let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        eventually("the account", async || {
            let _ = accounts.create(&PostParams::default(), &account).await;
            accounts.get_opt("default").await.unwrap()
        })
        .await;
        let identity = server.client_as("system:kube-scheduler", None).await;
        let (pods, nodes) = (Api::namespaced(client.clone(), "default"), Api::all(client.clone()));
        let mut world = Self { _server: server, client, identity, pods, nodes, scheduler: None };
        world.start();
        world
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let run = cluster_scheduler::run(self.identity.clone(), stop.clone());
        self.scheduler = Some((stop, tokio::spawn(async move { run.await.unwrap() })));
    }

    async fn stop(&mut self) {
        if let Some((stop, run)) = self.scheduler.take() {
            stop.cancel();
            run.await.unwrap();
        }
    }

    async fn node(&self, name: &str, cpu: &str, spec: Value) {
        let node = json!({"metadata": {"name": name}, "spec": spec});
        self.nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let status = json!({"status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            "capacity": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
        self.nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str) {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}});
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [container]}});
        self.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    async fn placed(&self, name: &str) -> String {
        eventually("a place", async || self.pods.get(name).await.unwrap().spec.unwrap().node_name).await
    }

    async fn problem(&self, name: &str) -> String {
        eventually("a reason", async || {
            let pod = json!(self.pods.get(name).await.unwrap());
            let condition = cluster_machinery::condition::find(&pod, "PodScheduled")?;
            (condition["status"] == "False" && condition["reason"] == "Unschedulable")
                .then(|| condition["message"].as_str().unwrap().to_owned())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_placed_at_once_and_spread() {
    let world = World::new().await;
    world.node("a", "8", json!({})).await;
    world.node("b", "8", json!({})).await;
    world.pod("first", "10m").await;
    world.placed("first").await;
    let version = world.pods.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut changes = world.pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    let mut waits = Vec::new();
    for index in 0..30 {
        let name = format!("p{index}");
        world.pod(&name, "10m").await;
        let created = Instant::now();
        while let Some(change) = changes.next().await {
            let WatchEvent::Modified(pod) = change.unwrap() else { continue };
            if pod.name_any() == name && pod.spec.unwrap().node_name.is_some() {
                break;
            }
        }
        waits.push(created.elapsed());
    }
    waits.sort();
    println!("created to bound: p50 {:?}, max {:?}", waits[15], waits[29]);
    assert!(waits[15] < Duration::from_millis(250), "a pod waits for {:?}", waits[15]);
    let mut counts = BTreeMap::new();
    for pod in world.pods.list(&ListParams::default()).await.unwrap() {
        *counts.entry(pod.spec.unwrap().node_name.unwrap()).or_insert(0_u32) += 1;
    }
    assert!(counts["a"].abs_diff(counts["b"]) <= 1, "{counts:?}");
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    eventually("an event", async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.into_iter().find(|event| {
            event.reason.as_deref() == Some("Scheduled")
                && event.involved_object.name.as_deref() == Some("p3")
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_without_a_place_say_so_and_get_one_when_there_is_one() {
    let world = World::new().await;
    world.pod("early", "1").await;
    assert_eq!(world.problem("early").await, "no nodes available to schedule pods");
    world.node("a", "1", json!({})).await;
    assert_eq!(world.placed("early").await, "a");
    world.pod("late", "1").await;
    assert_eq!(world.problem("late").await, "0/1 nodes are available: 1 Insufficient cpu.");
    world.pods.delete("early", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(world.placed("late").await, "a");
    world.pod("third", "1").await;
    world.problem("third").await;
    world.node("b", "1", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]})).await;
    eventually("the new reason", async || {
        (world.problem("third").await
            == "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: }.")
            .then_some(())
    })
    .await;
    let started = Instant::now();
    world
        .nodes
        .patch("b", &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}})))
        .await
        .unwrap();
    assert_eq!(world.placed("third").await, "b");
    assert!(started.elapsed() < Duration::from_secs(1), "freed room is used at once");
}

/// A scheduler that is stopped at any moment and started again places every pod, and no node gets more than it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_overload_no_node() {
    let mut world = World::new().await;
    world.node("a", "1", json!({})).await;
    world.node("b", "1", json!({})).await;
    for round in 0..10 {
        for index in 0..3 {
            world.pod(&format!("p{round}-{index}"), "100m").await;
        }
        world.stop().await;
        world.start();
    }
    eventually("twenty pods placed and ten refused", async || {
        let pods = world.pods.list(&ListParams::default()).await.unwrap();
        let mut counts: HashMap<Option<String>, usize> = HashMap::new();
        for pod in pods {
            *counts.entry(pod.spec.unwrap().node_name).or_default() += 1;
        }
        assert!(counts.iter().all(|(node, count)| node.is_none() || *count <= 10), "{counts:?}");
        (counts.len() == 3 && counts.values().all(|count| *count == 10)).then_some(())
    })
    .await;
}
