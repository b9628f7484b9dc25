//! What pods find inside: environment, files, tokens, identity.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::world::{does, eventually, isolated, with};

#[test]
fn environment_and_names() {
    isolated(async |world| {
        world
            .create(
                "v1",
                "ConfigMap",
                "default",
                json!({"metadata": {"name": "conf"}, "data": {"color": "blue"}}),
            )
            .await;
        world
            .create(
                "v1",
                "Secret",
                "default",
                json!({"metadata": {"name": "pass"}, "stringData": {"word": "s3cret"}}),
            )
            .await;
        let env = json!({"env": [
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "color"}}},
            {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "pass", "key": "word"}}},
            {"name": "BOTH", "value": "$(COLOR)-$(PASS)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
            "resources": {"limits": {"memory": "64Mi"}}});
        let words = "env -- cat /etc/resolv.conf -- cat /etc/hosts -- print end -- wait";
        world.pod("web-0", json!({"containers": [with(does("app", words), env)]})).await;
        let text = world.logged("web-0", "app", "end").await;
        let pod = world.ready("web-0").await;
        let ip = pod.status.unwrap().pod_ip.unwrap();
        for line in [
            "COLOR=blue",
            "BOTH=blue-s3cret",
            "MEMORY=64",
            "HOSTNAME=web-0",
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            &format!("IP={ip}"),
            "search default.svc.cluster.local svc.cluster.local cluster.local",
            "nameserver 10.96.0.10",
            "options ndots:5",
            &format!("{ip}\tweb-0"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        world
    });
}

#[test]
fn volumes_hold_what_they_say_and_follow_changes() {
    isolated(async |world| {
        world
            .create(
                "v1",
                "ConfigMap",
                "default",
                json!({"metadata": {"name": "conf"}, "data": {"a": "1", "b": "2"}}),
            )
            .await;
        let volumes = json!([
            {"name": "conf", "configMap": {"name": "conf", "items": [{"key": "a", "path": "sub/a", "mode": 0o400}]}},
            {"name": "all", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 3600}},
                {"configMap": {"name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
        let mounts = json!({"volumeMounts": [
            {"name": "conf", "mountPath": "/conf"}, {"name": "all", "mountPath": "/all"}, {"name": "memory", "mountPath": "/memory"},
            {"name": "conf", "mountPath": "/one", "subPath": "sub/a"}]});
        let words = "cat /all/labels -- print -- cat /all/token -- print -- stat /conf/sub/a -- stat /all/token -- stat /memory \
                     -- cat /one -- print -- cat /var/run/secrets/kubernetes.io/serviceaccount/namespace -- print -- print end -- serve 8080";
        world
            .pod(
                "web",
                json!({"containers": [with(does("app", words), mounts)], "volumes": volumes,
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}}),
            )
            .await;
        let text = world.logged("web", "app", "end").await;
        assert!(text.contains("app=\"web\""), "{text}");
        let token = text.lines().find(|line| line.starts_with("ey")).unwrap();
        assert_eq!(token.split('.').count(), 3, "a signed token");
        // fsGroup: files of volumes belong to the group, an emptyDir passes it on.
        assert!(
            text.contains("440 0 2000\n600 1000 2000\n") || text.contains("440 0 2000\n640 1000 2000\n"),
            "{text}"
        );
        assert!(text.contains("2777 0 2000"), "{text}");
        assert!(text.lines().any(|line| line == "default"), "{text}");
        let pod = world.ready("web").await;
        let file = world.node_dir().join(format!("pods/{}/volumes/conf/sub/a", pod.metadata.uid.unwrap()));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
        let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
        maps.patch("conf", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "new"}})))
            .await
            .unwrap();
        eventually("the new content", async || std::fs::read_to_string(&file).unwrap() == "new").await;
        world.delete("web", Some(1)).await;
        eventually("an empty node", async || world.remains().is_empty()).await;
        world
    });
}
