//! A pod's way from its creation to its end, and a kubelet that is replaced meanwhile.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;

use crate::world::{condition, container, does, eventually, isolated, phase, with};

#[test]
fn the_node_registers_and_renews_its_lease() {
    isolated(async |world| {
        let nodes: Api<Node> = Api::all(world.client.clone());
        eventually("the node", async || nodes.get_opt("node1").await.unwrap().is_some()).await;
        let node = nodes.get("node1").await.unwrap();
        let labels = node.metadata.labels.unwrap();
        assert_eq!((labels["kubernetes.io/hostname"].as_str(), labels["zone"].as_str()), ("node1", "a"));
        assert_eq!(node.spec.unwrap().pod_cidr.as_deref(), Some("10.244.1.0/24"));
        eventually("readiness", async || {
            let status = nodes.get("node1").await.unwrap().status.unwrap_or_default();
            status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
        })
        .await;
        let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-node-lease");
        eventually("the lease", async || leases.get_opt("node1").await.unwrap().is_some()).await;
        world
    });
}

#[test]
fn containers_start_in_order_and_leave_nothing() {
    isolated(async |world| {
        let shared = json!([{"name": "shared", "mountPath": "/shared"}]);
        let step = |name: &str, words: &str| with(does(name, words), json!({"volumeMounts": shared}));
        let sidecar = with(
            step("proxy", "append /shared/order proxy -- serve 9000"),
            json!({"restartPolicy": "Always", "startupProbe": {"httpGet": {"path": "/status/200", "port": 9000}, "periodSeconds": 1}}),
        );
        let before = Instant::now();
        world
            .pod(
                "web",
                json!({
                    "initContainers": [sidecar, step("migrate", "append /shared/order migrate")],
                    "containers": [step("app", "append /shared/order app -- serve 8080")],
                    "volumes": [{"name": "shared", "emptyDir": {}}],
                    "terminationGracePeriodSeconds": 5,
                }),
            )
            .await;
        let pod = world.ready("web").await;
        println!("created to ready: {:?}", before.elapsed());
        assert_eq!(phase(&pod), "Running");
        for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
            assert_eq!(condition(&pod, kind), "True", "{kind}");
        }
        let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
        assert!(ip.starts_with("10.244.1."), "{ip}");
        assert_eq!(container(&pod, "migrate")["state"]["terminated"]["reason"], "Completed");
        assert_eq!(container(&pod, "app")["restartCount"], 0);
        let order = world
            .directory
            .join(format!("nodes/node1/pods/{}/volumes/shared/order", pod.metadata.uid.unwrap()));
        assert_eq!(std::fs::read_to_string(order).unwrap(), "proxy\nmigrate\napp\n");
        world.event("web", "Started", "Started container app").await;
        let before = Instant::now();
        world.delete("web", None).await;
        println!("deleted to gone: {:?}", before.elapsed());
        assert!(before.elapsed() < Duration::from_secs(4), "no container needed its grace period");
        eventually("an empty node", async || world.remains().is_empty()).await;
        world
    });
}

#[test]
fn a_plain_pod_runs_quickly() {
    isolated(async |world| {
        // The first start reads the program from disk.
        world.pod("warm", json!({"containers": [does("app", "serve 8080")]})).await;
        world.ready("warm").await;
        let mut times = Vec::new();
        for n in 0..5 {
            let before = Instant::now();
            let name = format!("quick{n}");
            world.pod(&name, json!({"containers": [does("app", "serve 8080")]})).await;
            world.ready(&name).await;
            times.push(before.elapsed());
        }
        println!("created to ready: {times:?}");
        assert!(times.iter().min().unwrap() < &Duration::from_secs(2), "{times:?}");
        world
    });
}

#[test]
fn a_new_kubelet_takes_pods_up_without_touching_them() {
    isolated(async |mut world| {
        let probed =
            json!({"readinessProbe": {"httpGet": {"path": "/status/200", "port": 8080}, "periodSeconds": 1}});
        world
            .pod(
                "web",
                json!({
                    "initContainers": [with(does("proxy", "serve 9000"), json!({"restartPolicy": "Always"}))],
                    "containers": [with(does("app", "serve 8080"), probed)],
                }),
            )
            .await;
        let before = world.ready("web").await;
        world
            .pod("gone", json!({"containers": [does("app", "wait")], "terminationGracePeriodSeconds": 1}))
            .await;
        world.ready("gone").await;
        world.stop_kubelet().await;
        // While nobody looks, one pod is removed by force.
        let force = kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
        world.pods().delete("gone", &force).await.unwrap();
        world.start_kubelet().await;
        eventually("the removal of the orphan", async || {
            std::fs::read_dir(world.node_dir().join("pods")).unwrap().count() == 1
        })
        .await;
        // A pod made now proves that the new kubelet is at work.
        world.pod("later", json!({"containers": [does("app", "wait")]})).await;
        world.ready("later").await;
        let after = world.pods().get("web").await.unwrap();
        for name in ["app", "proxy"] {
            assert_eq!(container(&after, name)["containerID"], container(&before, name)["containerID"]);
            assert_eq!(container(&after, name)["restartCount"], 0);
        }
        let transition = |pod: &k8s_openapi::api::core::v1::Pod| {
            let conditions = pod.status.clone().unwrap().conditions.unwrap();
            conditions.into_iter().find(|one| one.type_ == "Ready").unwrap().last_transition_time
        };
        assert_eq!(transition(&after), transition(&before), "readiness did not flip");
        world
    });
}

#[test]
fn after_a_power_cut_pods_come_back_with_their_disks() {
    isolated(async |mut world| {
        let mounts = json!({"volumeMounts": [{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"}]});
        let words = "append /disk/starts x -- append /memory/starts x -- serve 8080";
        let volumes =
            json!([{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]);
        let setup = with(does("setup", "append /disk/setups x"), mounts.clone());
        world
            .pod("web", json!({"initContainers": [setup], "containers": [with(does("app", words), mounts)], "volumes": volumes}))
            .await;
        let before = world.ready("web").await;
        world.stop_kubelet().await;
        world.lose_power().await;
        world.start_kubelet().await;
        let after = world
            .until("web", "the second start", |pod| {
                condition(pod, "Ready") == "True" && container(pod, "app")["restartCount"] == 1
            })
            .await;
        let last = &container(&after, "app")["lastState"]["terminated"];
        assert_eq!(last["reason"], "ContainerStatusUnknown");
        assert_eq!(after.metadata.uid, before.metadata.uid);
        let volumes = world.node_dir().join(format!("pods/{}/volumes", after.metadata.uid.unwrap()));
        let text = |path: &str| std::fs::read_to_string(volumes.join(path)).unwrap();
        assert_eq!((text("disk/starts").as_str(), text("disk/setups").as_str()), ("x\nx\n", "x\nx\n"));
        assert_eq!(text("memory/starts"), "x\n", "what was in memory is gone");
        world
    });
}

#[test]
fn a_new_image_replaces_the_container() {
    isolated(async |world| {
        world
            .pod(
                "web",
                json!({"containers": [does("app", "serve 8080")], "terminationGracePeriodSeconds": 2}),
            )
            .await;
        let before = world.ready("web").await;
        let patch = json!({"spec": {"containers": [{"name": "app", "image": "mesh.test/probe:2"}]}});
        let patch = kube::api::Patch::Strategic(patch);
        world.pods().patch("web", &kube::api::PatchParams::default(), &patch).await.unwrap();
        let after = world
            .until("web", "the new container", |pod| {
                condition(pod, "Ready") == "True" && container(pod, "app")["restartCount"] == 1
            })
            .await;
        assert_eq!(container(&after, "app")["image"], "mesh.test/probe:2");
        assert_ne!(container(&after, "app")["containerID"], container(&before, "app")["containerID"]);
        world
    });
}

#[test]
fn many_pods_come_and_go_together() {
    isolated(async |world| {
        let probed =
            json!({"readinessProbe": {"httpGet": {"path": "/status/200", "port": 8080}, "periodSeconds": 1}});
        let before = Instant::now();
        let names: Vec<String> = (0..20).map(|n| format!("pod{n}")).collect();
        let spec = json!({"containers": [with(does("app", "serve 8080"), probed)]});
        let create = names.iter().map(|name| world.pod(name, spec.clone()));
        futures::future::join_all(create).await;
        let ready = names.iter().map(|name| world.ready(name));
        let pods = futures::future::join_all(ready).await;
        println!("20 pods created to ready: {:?}", before.elapsed());
        let addresses: std::collections::BTreeSet<_> =
            pods.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap()).collect();
        assert_eq!(addresses.len(), 20, "each pod has an address of its own");
        let before = Instant::now();
        futures::future::join_all(names.iter().map(|name| world.delete(name, None))).await;
        println!("20 pods deleted to gone: {:?}", before.elapsed());
        eventually("an empty node", async || world.remains().is_empty()).await;
        world
    });
}
