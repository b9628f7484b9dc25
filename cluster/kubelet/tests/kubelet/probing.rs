//! Probes of every kind against real servers in pods.

use serde_json::json;

use crate::world::{condition, container, does, isolated, with};

fn shared() -> serde_json::Value {
    json!({"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]})
}

#[test]
fn readiness_follows_the_probe() {
    isolated(async |world| {
        let probe = json!({"readinessProbe": {"httpGet": {"path": "/shared/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
            "ports": [{"name": "http", "containerPort": 8080}]});
        let app = with(with(does("app", "write /shared/ready yes -- serve 8080"), shared()), probe);
        world.pod("web", json!({"containers": [app], "volumes": [{"name": "shared", "emptyDir": {}}]})).await;
        let pod = world.ready("web").await;
        let file = world.node_dir().join(format!("pods/{}/volumes/shared/ready", pod.metadata.uid.unwrap()));
        std::fs::remove_file(&file).unwrap();
        let pod = world.until("web", "unreadiness", |pod| condition(pod, "Ready") == "False").await;
        assert_eq!(container(&pod, "app")["ready"], false);
        world
            .event("web", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
            .await;
        std::fs::write(&file, "again").unwrap();
        let pod = world.ready("web").await;
        assert_eq!(container(&pod, "app")["restartCount"], 0);
        world
    });
}

#[test]
fn a_failed_liveness_probe_restarts_the_container() {
    isolated(async |world| {
        let probe = json!({"livenessProbe": {"exec": {"command": ["/probe", "need", "/shared/alive"]},
            "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 1}});
        let app = with(with(does("app", "write /shared/alive yes -- wait"), shared()), probe);
        world.pod("web", json!({"containers": [app], "volumes": [{"name": "shared", "emptyDir": {}}]})).await;
        let pod = world.ready("web").await;
        std::fs::remove_file(
            world.node_dir().join(format!("pods/{}/volumes/shared/alive", pod.metadata.uid.unwrap())),
        )
        .unwrap();
        let pod = world.until("web", "a restart", |pod| container(pod, "app")["restartCount"] == 1).await;
        assert!(container(&pod, "app")["lastState"]["terminated"].is_object());
        world.event("web", "Killing", "Container app failed liveness probe, will be restarted").await;
        world.ready("web").await;
        world
    });
}

#[test]
fn tcp_probes_connect_and_startup_probes_give_up() {
    isolated(async |world| {
        let tcp = json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
        world.pod("good", json!({"containers": [with(does("app", "serve 8080"), tcp)]})).await;
        world.ready("good").await;
        let startup =
            json!({"startupProbe": {"tcpSocket": {"port": 8081}, "periodSeconds": 1, "failureThreshold": 1}});
        world
            .pod("never", json!({"containers": [with(does("app", "serve 8080"), startup)], "terminationGracePeriodSeconds": 1}))
            .await;
        let pod = world.until("never", "a restart", |pod| container(pod, "app")["restartCount"] == 1).await;
        assert_eq!(condition(&pod, "Ready"), "False");
        world.event("never", "Unhealthy", "connect: connection refused").await;
        world
    });
}
