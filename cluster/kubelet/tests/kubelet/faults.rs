//! Pods that ask for what is not there.

use serde_json::json;

use crate::world::{container, does, isolated, phase, with};

#[test]
fn an_image_that_is_not_here_is_named() {
    isolated(async |world| {
        world.pod("web", json!({"containers": [{"name": "app", "image": "nowhere.test/none:1"}]})).await;
        let pod = world
            .until("web", "a pull error", |pod| {
                container(pod, "app")["state"]["waiting"]["reason"] == "ErrImagePull"
            })
            .await;
        assert_eq!(phase(&pod), "Pending");
        let message = container(&pod, "app")["state"]["waiting"]["message"].clone();
        assert!(message.as_str().unwrap().contains("nowhere.test/none:1"), "{message}");
        world.event("web", "Failed", "Failed to pull image \"nowhere.test/none:1\"").await;
        let never =
            with(does("app", "wait"), json!({"image": "nowhere.test/none:1", "imagePullPolicy": "Never"}));
        world.pod("never", json!({"containers": [never]})).await;
        world
            .until("never", "the refusal", |pod| {
                container(pod, "app")["state"]["waiting"]["reason"] == "ErrImageNeverPull"
            })
            .await;
        world.delete("web", None).await;
        world
    });
}

#[test]
fn a_missing_configuration_is_waited_for() {
    isolated(async |world| {
        let env =
            json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]});
        world.pod("env", json!({"containers": [with(does("app", "env -- wait"), env)]})).await;
        let pod = world
            .until("env", "the error", |pod| {
                container(pod, "app")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
            })
            .await;
        assert_eq!(container(&pod, "app")["state"]["waiting"]["message"], "configmap \"late\" not found");
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let volumes = json!([{"name": "v", "configMap": {"name": "late"}}]);
        world
            .pod("volume", json!({"containers": [with(does("app", "wait"), mounts)], "volumes": volumes}))
            .await;
        world
            .event(
                "volume",
                "FailedMount",
                "MountVolume.SetUp failed for volume \"v\" : configmap \"late\" not found",
            )
            .await;
        world
            .create("v1", "ConfigMap", "default", json!({"metadata": {"name": "late"}, "data": {"a": "1"}}))
            .await;
        world.ready("env").await;
        world.ready("volume").await;
        world
    });
}

#[test]
fn root_is_refused_where_it_is_forbidden() {
    isolated(async |world| {
        let strict = json!({"securityContext": {"runAsNonRoot": true}});
        world.pod("root", json!({"containers": [with(does("app", "wait"), strict)]})).await;
        let pod = world
            .until("root", "the refusal", |pod| {
                container(pod, "app")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
            })
            .await;
        let message = container(&pod, "app")["state"]["waiting"]["message"].clone();
        assert!(
            message.as_str().unwrap().starts_with("container has runAsNonRoot and image will run as root"),
            "{message}"
        );
        let user = json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}});
        world.pod("user", json!({"containers": [with(does("app", "serve 8080"), user)]})).await;
        world.ready("user").await;
        world
    });
}

#[test]
fn a_program_that_is_not_there_is_a_start_error() {
    isolated(async |world| {
        let app = with(does("app", ""), json!({"command": ["/nothing"]}));
        world.pod("web", json!({"containers": [app]})).await;
        let pod = world
            .until("web", "the error", |pod| {
                container(pod, "app")["state"]["waiting"]["reason"] == "RunContainerError"
            })
            .await;
        let message = container(&pod, "app")["state"]["waiting"]["message"].clone();
        assert!(message.as_str().unwrap().contains("/nothing"), "{message}");
        world.event("web", "Failed", "/nothing").await;
        world.delete("web", None).await;
        world
    });
}
