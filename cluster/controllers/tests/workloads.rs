//! Deployments, ReplicaSets, Services and what namespaces get.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Event, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{DeleteParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use crate::{
    harness::{Kubectl, kubectls},
    world::{World, alive, deployment},
};

fn available(objects: &[Value], count: u64) -> bool {
    objects[0]["status"]["availableReplicas"] == count
        && objects[0]["status"]["updatedReplicas"] == count
        && objects[0]["status"]["replicas"] == count
        && objects[0]["status"]["observedGeneration"] == objects[0]["metadata"]["generation"]
}

fn ready_endpoints(slices: &[Value]) -> usize {
    let endpoints =
        slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
}

fn of(slices: &[Value], service: &str) -> Vec<Value> {
    slices
        .iter()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service)
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_rolled_out_updated_and_rolled_back() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    world.create::<Service>("shop", service).await;
    world.create::<Deployment>("shop", deployment("web", 3, "v1")).await;
    world.until::<Deployment>("available", "shop", |found| available(found, 3)).await;
    world.until::<EndpointSlice>("endpoints", "shop", |found| ready_endpoints(&of(found, "web")) == 3).await;
    // With three replicas 25 % unavailable is none: the Service must never have fewer than three endpoints.
    let slices = Api::<EndpointSlice>::namespaced(world.client.clone(), "shop");
    let version =
        slices.list(&kube::api::ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut changes = Box::pin(slices.watch(&WatchParams::default(), &version).await.unwrap());
    for (image, revision) in [("v2", "2"), ("v1", "3")] {
        let template =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        world.patch::<Deployment>("shop", "web", template).await;
        if let Some(binary) = kubectls().pop() {
            let kubectl = Kubectl { binary, server: &world.server };
            let told =
                kubectl.ok(&["rollout", "status", "deployment/web", "-n", "shop", "--timeout=20s"]).await;
            assert!(told.contains("successfully rolled out"), "{told}");
        }
        world.until::<Deployment>("updated", "shop", |found| available(found, 3)).await;
        world
            .until::<Pod>("only new pods", "shop", |pods| {
                pods.len() == 3 && pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == image)
            })
            .await;
        world
            .until::<Deployment>("revision", "shop", |found| {
                found[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == revision
            })
            .await;
    }
    world.until::<EndpointSlice>("endpoints", "shop", |found| ready_endpoints(&of(found, "web")) == 3).await;
    assert_eq!(world.list::<ReplicaSet>("shop").await.len(), 2);
    let mut seen = 0;
    while let Ok(Some(change)) = tokio::time::timeout(Duration::from_millis(300), changes.next()).await {
        match change.unwrap() {
            WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                let ready = ready_endpoints(&[json!(slice)]);
                assert!(ready >= 3, "only {ready} endpoints were ready in the update");
                seen += 1;
            }
            WatchEvent::Deleted(_) => panic!("the slice went away in the update"),
            _ => {}
        }
    }
    assert!(seen >= 4, "{seen} changes were seen");
    let told = world.list::<Event>("shop").await;
    assert!(told.iter().any(|event| event.reason.as_deref() == Some("ScalingReplicaSet")));
    assert!(told.iter().any(|event| {
        event.message.as_deref().is_some_and(|message| message.starts_with("Created pod: web-"))
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_update_stops_and_scaling_works() {
    let world = World::new().await;
    world.create::<Deployment>("shop", deployment("web", 4, "v1")).await;
    world.until::<Deployment>("available", "shop", |found| available(found, 4)).await;
    world
        .patch::<Deployment>(
            "shop",
            "web",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "broken"}]}}}}),
        )
        .await;
    world
        .until::<Pod>("the update to stop", "shop", |pods| {
            let of = |image: &str| {
                pods.iter().filter(|pod| pod["spec"]["containers"][0]["image"] == image).count()
            };
            (of("v1"), of("broken")) == (3, 2)
        })
        .await;
    world
        .patch::<Deployment>(
            "shop",
            "web",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "v3"}]}}}}),
        )
        .await;
    world.until::<Deployment>("updated", "shop", |found| available(found, 4)).await;
    for count in [10, 2, 0, 5] {
        world.patch::<Deployment>("shop", "web", json!({"spec": {"replicas": count}})).await;
        world.until::<Pod>("scaled", "shop", |pods| pods.len() == count && alive(pods) == count).await;
    }
}

/// Controllers that are killed at any moment and started again finish what was begun, and make nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_make_nothing_twice() {
    let mut world = World::new().await;
    for round in 0..12 {
        let name = format!("web{round}");
        world.create::<Deployment>("shop", deployment(&name, 6, "v1")).await;
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        world.stop().await;
        world.start(Duration::from_secs(40));
    }
    world
        .until::<Deployment>("all available", "shop", |found| {
            found.len() == 12 && found.iter().all(|one| available(std::slice::from_ref(one), 6))
        })
        .await;
    world.until::<Pod>("the right number of pods", "shop", |pods| pods.len() == 72).await;
    assert_eq!(world.list::<ReplicaSet>("shop").await.len(), 12);
    let events = world.list::<Event>("shop").await;
    let deleted = events.iter().filter(|event| event.reason.as_deref() == Some("SuccessfulDelete")).count();
    assert_eq!(deleted, 0, "no pod was made in vain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_get_an_account_and_the_root_certificate() {
    let world = World::new().await;
    let check = async || {
        world
            .until::<ServiceAccount>("the account", "shop", |found| {
                found.iter().any(|account| account["metadata"]["name"] == "default")
            })
            .await;
        world
            .until::<ConfigMap>("the certificate", "shop", |found| {
                found.iter().any(|map| {
                    map["metadata"]["name"] == "kube-root-ca.crt" && map["data"] == json!({"ca.crt": "PEM"})
                })
            })
            .await;
    };
    check().await;
    world.delete::<ServiceAccount>("shop", "default", DeleteParams::default()).await;
    world.delete::<ConfigMap>("shop", "kube-root-ca.crt", DeleteParams::default()).await;
    check().await;
    world.patch::<ConfigMap>("shop", "kube-root-ca.crt", json!({"data": {"ca.crt": "forged"}})).await;
    check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_are_refused_are_told_in_conditions_until_they_are_not() {
    let world = World::new().await;
    let enforce =
        |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    world.patch::<k8s_openapi::api::core::v1::Namespace>("", "shop", enforce("restricted")).await;
    world.create::<Deployment>("shop", deployment("web", 2, "v1")).await;
    let failure = |objects: &[Value]| {
        let conditions = objects[0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "ReplicaFailure")
    };
    let told = |objects: &[Value]| {
        !objects.is_empty()
            && failure(objects).is_some_and(|condition| {
                condition["status"] == "True"
                    && condition["reason"] == "FailedCreate"
                    && condition["message"].as_str().is_some_and(|text| text.contains("violates PodSecurity"))
            })
    };
    world.until::<ReplicaSet>("the set says why", "shop", told).await;
    world.until::<Deployment>("the deployment, too", "shop", told).await;
    world.patch::<k8s_openapi::api::core::v1::Namespace>("", "shop", enforce("privileged")).await;
    world
        .until::<Deployment>("the pods are there", "shop", |found| {
            available(found, 2) && failure(found).is_none()
        })
        .await;
    world.until::<ReplicaSet>("the set is well", "shop", |found| failure(found).is_none()).await;
}
