//! Nodes that fall silent.

use std::time::Duration;

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::world::World;

fn ready(node: &Value) -> Option<&str> {
    cluster_machinery::condition::find(node, "Ready")?["status"].as_str()
}

fn taints(node: &Value) -> usize {
    node["spec"]["taints"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_loses_its_pods_and_comes_back() {
    let mut world = World::new().await;
    world.stop().await;
    world.start(Duration::from_millis(1500));
    world.create::<Node>("", json!({"metadata": {"name": "fake"}})).await;
    let nodes = Api::<Node>::all(world.client.clone());
    let live =
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    nodes.patch_status("fake", &PatchParams::default(), &Patch::Merge(&live)).await.unwrap();
    world.create::<Lease>("kube-node-lease", json!({"metadata": {"name": "fake"}, "spec": {"holderIdentity": "fake", "renewTime": "2026-01-01T00:00:00.000000Z"}})).await;
    let patient = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]);
    let pod = |name: &str, tolerations: &Value| json!({"metadata": {"name": name}, "spec": {"tolerations": tolerations, "containers": [{"name": "c", "image": "i"}]}});
    world.create::<Pod>("shop", pod("leaves", &patient)).await;
    world.create::<Pod>("shop", pod("stays", &json!([{"operator": "Exists"}]))).await;
    world
        .until::<Pod>("ready pods", "shop", |pods| {
            pods.len() == 2 && pods.iter().all(|pod| ready(pod) == Some("True"))
        })
        .await;
    // Nobody renews the Lease.
    world
        .until::<Node>("an unknown node", "", |nodes| {
            ready(&nodes[0]) == Some("Unknown") && taints(&nodes[0]) == 2
        })
        .await;
    world
        .until::<Pod>("pods that are not ready", "shop", |pods| {
            pods.iter().all(|pod| ready(pod) == Some("False"))
        })
        .await;
    world
        .until::<Pod>("eviction", "shop", |pods| pods.len() == 1 && pods[0]["metadata"]["name"] == "stays")
        .await;
    // The node comes back.
    world
        .patch::<Lease>(
            "kube-node-lease",
            "fake",
            json!({"spec": {"renewTime": "2026-01-01T00:01:00.000000Z"}}),
        )
        .await;
    nodes.patch_status("fake", &PatchParams::default(), &Patch::Merge(&live)).await.unwrap();
    world.until::<Node>("a free node", "", |nodes| taints(&nodes[0]) == 0).await;
    world.delete::<Pod>("shop", "stays", DeleteParams::default()).await;
    world.until::<Pod>("no pods", "shop", |pods| pods.is_empty()).await;
}
