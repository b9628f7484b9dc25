//! How containers and pods end, and when they begin again.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{container, does, isolated, phase, with};

#[test]
fn a_crashing_container_is_restarted_and_then_held_back() {
    isolated(async |world| {
        world.pod("crash", json!({"containers": [does("app", "print last words -- exit 3")]})).await;
        let pod = world
            .until("crash", "a crash loop", |pod| {
                container(pod, "app")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            })
            .await;
        let seen = container(&pod, "app");
        let uid = pod.metadata.uid.clone().unwrap();
        assert_eq!(
            seen["state"]["waiting"]["message"],
            format!("back-off 10s restarting failed container=app pod=crash_default({uid})")
        );
        assert_eq!(seen["restartCount"], 1);
        assert_eq!(seen["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(phase(&pod), "Running");
        world
            .event("crash", "BackOff", "Back-off restarting failed container app in pod crash_default")
            .await;
        let previous = kube::api::LogParams { previous: true, ..Default::default() };
        assert_eq!(world.pods().logs("crash", &previous).await.unwrap(), "last words\n");
        world
    });
}

#[test]
fn jobs_succeed_or_fail_and_their_sidecar_is_stopped() {
    isolated(async |world| {
        let sidecar = with(does("proxy", "wait"), json!({"restartPolicy": "Always"}));
        for (name, policy, words, expected) in [
            ("good", "OnFailure", "print done", "Succeeded"),
            ("bad", "Never", "write /dev/termination-log because -- exit 4", "Failed"),
        ] {
            let spec = json!({"restartPolicy": policy, "initContainers": [sidecar], "containers": [does("app", words)]});
            world.pod(name, spec).await;
            let pod = world.until(name, expected, |pod| phase(pod) == expected).await;
            assert_eq!(container(&pod, "app")["restartCount"], 0);
            let pod = world
                .until(name, "the sidecar's end", |pod| {
                    container(pod, "proxy")["state"]["terminated"].is_object()
                })
                .await;
            if name == "bad" {
                let ended = &container(&pod, "app")["state"]["terminated"];
                assert_eq!(
                    (&ended["exitCode"], &ended["reason"], &ended["message"]),
                    (&json!(4), &json!("Error"), &json!("because"))
                );
            }
        }
        assert_eq!(world.logs("good", "app").await, "done\n");
        world.delete("good", None).await;
        world
    });
}

#[test]
fn a_failing_init_container_is_repeated() {
    isolated(async |world| {
        let shared = json!({"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]});
        world
            .pod("retry", json!({
                "initContainers": [with(does("check", "append /shared/tries x -- need /shared/second -- exit 0"), shared.clone())],
                "containers": [with(does("app", "wait"), shared)],
                "volumes": [{"name": "shared", "emptyDir": {}}],
            }))
            .await;
        let pod =
            world.until("retry", "a second try", |pod| container(pod, "check")["restartCount"] == 1).await;
        assert_eq!(phase(&pod), "Pending");
        assert_eq!(container(&pod, "app")["state"]["waiting"]["reason"], "PodInitializing");
        world
    });
}

#[test]
fn pre_stop_comes_first_and_sidecars_go_last() {
    isolated(async |world| {
        let volume = json!([{"name": "shared", "hostPath": {"path": world.directory.join("host"), "type": "DirectoryOrCreate"}}]);
        let mounts = json!({"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]});
        let hook = json!({"lifecycle": {
            "postStart": {"exec": {"command": ["/probe", "append", "/shared/order", "postStart"]}},
            "preStop": {"exec": {"command": ["/probe", "append", "/shared/order", "preStop"]}}}});
        let app = with(with(does("app", "wait -- append /shared/order app"), mounts.clone()), hook);
        let sidecar = |name: &str| {
            let words = format!("wait -- append /shared/order {name}");
            with(with(does(name, &words), mounts.clone()), json!({"restartPolicy": "Always"}))
        };
        let drain = json!({"lifecycle": {"preStop": {"exec": {"command": ["/probe", "append", "/shared/drains", "first"]}}}});
        let first = with(sidecar("first"), drain);
        world
            .pod(
                "web",
                json!({"initContainers": [first, sidecar("second")], "containers": [app], "volumes": volume}),
            )
            .await;
        world.ready("web").await;
        world.delete("web", None).await;
        let order = std::fs::read_to_string(world.directory.join("host/order")).unwrap();
        assert_eq!(order, "postStart\npreStop\napp\nsecond\nfirst\n");
        let drains = std::fs::read_to_string(world.directory.join("host/drains")).unwrap();
        assert_eq!(drains, "first\n", "a sidecar's hook runs once");
        world
    });
}

#[test]
fn grace_ends_and_a_second_deletion_shortens_it() {
    isolated(async |world| {
        world
            .pod("slow", json!({"containers": [does("app", "stubborn")], "terminationGracePeriodSeconds": 1}))
            .await;
        world.ready("slow").await;
        let before = Instant::now();
        world.delete("slow", None).await;
        let took = before.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");

        world
            .pod(
                "patient",
                json!({"containers": [does("app", "stubborn")], "terminationGracePeriodSeconds": 600}),
            )
            .await;
        world.ready("patient").await;
        world.pods().delete("patient", &Default::default()).await.unwrap();
        world.logged("patient", "app", "not yet").await;
        let before = Instant::now();
        world.delete("patient", Some(1)).await;
        assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
        world
    });
}

#[test]
fn the_active_deadline_fails_a_pod() {
    isolated(async |world| {
        world
            .pod("late", json!({"activeDeadlineSeconds": 1, "containers": [does("app", "wait")], "terminationGracePeriodSeconds": 2}))
            .await;
        let pod = world.until("late", "failure", |pod| phase(pod) == "Failed").await;
        assert_eq!(pod.status.unwrap().reason.as_deref(), Some("DeadlineExceeded"));
        world
    });
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed_and_said_so() {
    isolated(async |world| {
        let limits = json!({"resources": {"limits": {"memory": "16Mi", "cpu": "500m"}}});
        world
            .pod("greedy", json!({"restartPolicy": "Never", "containers": [with(does("app", "eat 64 -- wait"), limits)]}))
            .await;
        let pod = world.until("greedy", "failure", |pod| phase(pod) == "Failed").await;
        let ended = &container(&pod, "app")["state"]["terminated"];
        assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));
        assert_eq!(pod.status.unwrap().qos_class.as_deref(), Some("Guaranteed"));
        world
    });
}
