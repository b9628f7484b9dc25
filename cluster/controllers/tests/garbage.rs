//! Owners, dependents and namespaces going away.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Namespace, Pod, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams, PropagationPolicy},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::json;

use crate::{
    harness::eventually,
    world::{World, alive, deployment},
};

async fn running(world: &World) {
    world.create::<Deployment>("shop", deployment("web", 3, "v1")).await;
    world
        .until::<Deployment>("available", "shop", |found| found[0]["status"]["availableReplicas"] == 3)
        .await;
}

fn policy(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependents_follow_their_owner() {
    let world = World::new().await;
    for how in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        running(&world).await;
        world.delete::<Deployment>("shop", "web", policy(how.clone())).await;
        if how == PropagationPolicy::Foreground {
            world.until::<Deployment>("the owner last", "shop", |found| found.is_empty()).await;
            assert_eq!(
                (world.list::<ReplicaSet>("shop").await.len(), world.list::<Pod>("shop").await.len()),
                (0, 0)
            );
        }
        world.until::<Deployment>("no deployment", "shop", |found| found.is_empty()).await;
        world.until::<ReplicaSet>("no replica set", "shop", |found| found.is_empty()).await;
        world.until::<Pod>("no pods", "shop", |found| found.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_stay_and_are_adopted() {
    let world = World::new().await;
    running(&world).await;
    let before: Vec<_> = world.list::<Pod>("shop").await.iter().map(ResourceExt::name_any).collect();
    world.delete::<Deployment>("shop", "web", policy(PropagationPolicy::Orphan)).await;
    world
        .until::<ReplicaSet>("a free replica set", "shop", |found| {
            found[0]["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
    world.until::<Deployment>("no deployment", "shop", |found| found.is_empty()).await;
    world.create::<Deployment>("shop", deployment("web", 3, "v1")).await;
    world
        .until::<ReplicaSet>("an adopted replica set", "shop", |found| {
            found.len() == 1 && found[0]["metadata"]["ownerReferences"][0]["kind"] == "Deployment"
        })
        .await;
    world
        .until::<Deployment>("available", "shop", |found| found[0]["status"]["availableReplicas"] == 3)
        .await;
    let after: Vec<_> = world.list::<Pod>("shop").await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(before, after, "no pod was restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_never_was_owns_nothing() {
    let world = World::new().await;
    let owned = |uid: &str| json!({"metadata": {"name": "x", "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]}});
    world.create::<Secret>("shop", owned("00000000-0000-0000-0000-000000000000")).await;
    world.until::<Secret>("garbage to go", "shop", |found| found.is_empty()).await;
    let owner = world.create::<ConfigMap>("shop", json!({"metadata": {"name": "owner"}})).await;
    world.create::<Secret>("shop", owned(&owner.uid().unwrap())).await;
    world.create::<Secret>("shop", json!({"metadata": {"name": "free"}})).await;
    world.delete::<ConfigMap>("shop", "owner", DeleteParams::default()).await;
    world
        .until::<Secret>("only the free one", "shop", |found| {
            found.len() == 1 && found[0]["metadata"]["name"] == "free"
        })
        .await;
}

async fn gadgets(world: &World) -> Api<DynamicObject> {
    let definition = json!({
        "metadata": {"name": "gadgets.x.test"},
        "spec": {"group": "x.test", "scope": "Namespaced", "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    });
    world.create::<CustomResourceDefinition>("", definition).await;
    world
        .until::<CustomResourceDefinition>("established", "", |found| {
            found.iter().any(|one| cluster_machinery::condition::is_true(one, "Established"))
        })
        .await;
    Api::namespaced_with(
        world.client.clone(),
        "shop",
        &ApiResource::from_gvk(&GroupVersionKind::gvk("x.test", "v1", "Gadget")),
    )
}

async fn gadget(api: &Api<DynamicObject>, object: serde_json::Value) -> DynamicObject {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    eventually("a gadget", async || api.create(&PostParams::default(), &object).await.ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_own_and_are_owned() {
    let world = World::new().await;
    let api = gadgets(&world).await;
    let meta = |name: &str| json!({"apiVersion": "x.test/v1", "kind": "Gadget", "metadata": {"name": name}});
    let owner = gadget(&api, meta("owner")).await;
    let reference =
        json!([{"apiVersion": "x.test/v1", "kind": "Gadget", "name": "owner", "uid": owner.uid().unwrap()}]);
    let mut dependent = meta("dependent");
    dependent["metadata"]["ownerReferences"] = reference.clone();
    gadget(&api, dependent).await;
    world.create::<Secret>("shop", json!({"metadata": {"name": "x", "ownerReferences": reference}})).await;
    api.delete("owner", &DeleteParams::default()).await.unwrap();
    world.until::<Secret>("the secret to go", "shop", |found| found.is_empty()).await;
    eventually("the gadget to go", async || {
        api.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_all_its_content() {
    let world = World::new().await;
    let api = gadgets(&world).await;
    running(&world).await;
    gadget(&api, json!({"apiVersion": "x.test/v1", "kind": "Gadget", "metadata": {"name": "g"}})).await;
    // Held by somebody's finalizer, the namespace must wait.
    world
        .create::<ConfigMap>("shop", json!({"metadata": {"name": "held", "finalizers": ["x.test/hold"]}}))
        .await;
    world.delete::<Namespace>("", "shop", DeleteParams::default()).await;
    world.until::<Pod>("no pods", "shop", |found| found.is_empty()).await;
    world
        .until::<ConfigMap>("only what is held", "shop", |found| found.len() == 1 && alive(found) == 0)
        .await;
    assert!(world.list::<Namespace>("").await.iter().any(|namespace| namespace.name_any() == "shop"));
    world.patch::<ConfigMap>("shop", "held", json!({"metadata": {"finalizers": null}})).await;
    world
        .until::<Namespace>("no namespace", "", |found| {
            found.iter().all(|namespace| namespace["metadata"]["name"] != "shop")
        })
        .await;
    assert!(api.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
    assert_eq!(world.list::<Deployment>("shop").await.len() + world.list::<Secret>("shop").await.len(), 0);
}
