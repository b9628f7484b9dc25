//! Bad input: each is refused with a reason, and the server goes on.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{config_map, status};
use crate::harness::{Server, eventually};

/// Sends a request; returns the status code and the Status object.
async fn send(client: &Client, method: &str, path: &str, kind: &str, body: Vec<u8>) -> (u16, Value) {
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    let response = client.send(request.body(kube::client::Body::from(body)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap_or_default())
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

/// Method, path, content type, body, the code it is refused with.
const CASES: &[(&str, &str, &str, &[u8], u16)] = &[
    ("POST", MAPS, JSON, b"{", 400),
    ("POST", MAPS, JSON, b"[]", 400),
    ("POST", MAPS, JSON, b"", 400),
    ("POST", MAPS, JSON, b"\xff\xfe", 400),
    ("POST", MAPS, JSON, br#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#, 400),
    ("POST", MAPS, JSON, br#"{"apiVersion":"v2","metadata":{"name":"a"}}"#, 400),
    ("POST", MAPS, JSON, br#"{"metadata":{"name":"a","namespace":"other"}}"#, 400),
    ("POST", MAPS, JSON, br#"{"metadata":{"name":"a","resourceVersion":"7"}}"#, 400),
    ("POST", MAPS, JSON, br#"{"metadata":{"name":1}}"#, 400),
    ("POST", MAPS, JSON, br#"{"metadata":[]}"#, 400),
    ("POST", MAPS, JSON, br#"{"metadata":{}}"#, 422),
    ("POST", MAPS, JSON, br#"{"metadata":{"name":"a"},"data":{"bad key":"x"}}"#, 422),
    ("POST", MAPS, JSON, br#"{"metadata":{"name":"a","labels":{"-":"x"}}}"#, 422),
    ("POST", MAPS, "application/vnd.kubernetes.protobuf", b"k8s\0\x0a\xff", 400),
    ("POST", MAPS, "application/vnd.kubernetes.protobuf", b"{}", 400),
    ("POST", MAPS, "text/plain", b"{}", 415),
    ("POST", "/api/v1/configmaps", JSON, b"{}", 400),
    ("POST", "/api/v1/namespaces/default/nothing", JSON, b"{}", 404),
    ("POST", "/api/v1/namespaces/default/nodes", JSON, b"{}", 404),
    ("PUT", "/api/v1/namespaces/default/configmaps/a", JSON, br#"{"metadata":{"name":"b"}}"#, 400),
    ("PUT", "/api/v1/namespaces/default/configmaps/absent", JSON, b"{}", 404),
    ("PUT", MAPS, JSON, b"{}", 405),
    ("PATCH", "/api/v1/namespaces/default/configmaps/absent", "application/merge-patch+json", b"{}", 404),
    ("PATCH", "/api/v1/namespaces/default/configmaps/there", "application/json", b"{}", 415),
    ("PATCH", "/api/v1/namespaces/default/configmaps/there", "application/merge-patch+json", b"[]", 400),
    ("PATCH", "/api/v1/namespaces/default/configmaps/there", "application/json-patch+json", b"{}", 400),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json-patch+json",
        br#"[{"op":"remove","path":"/x"}]"#,
        422,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json-patch+json",
        br#"[{"op":"replace","path":"/kind","value":"Pod"}]"#,
        400,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/json-patch+json",
        br#"[{"op":"replace","path":"","value":7}]"#,
        400,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/merge-patch+json",
        br#"{"metadata":{"name":"b"}}"#,
        400,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/merge-patch+json",
        br#"{"metadata":null}"#,
        400,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there",
        "application/merge-patch+json",
        br#"{"data":{"a":{"b":1}}}"#,
        400,
    ),
    ("PATCH", "/api/v1/namespaces/default/configmaps/there", "application/apply-patch+yaml", b"{}", 422),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there?fieldManager=m",
        "application/apply-patch+yaml",
        b"a: [",
        400,
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/there?fieldManager=m",
        "application/apply-patch+yaml",
        b"{}",
        400,
    ),
    ("GET", "/api/v1/configmaps?labelSelector=a%3D%3D%3Db", JSON, b"", 400),
    ("GET", "/api/v1/configmaps?fieldSelector=x", JSON, b"", 400),
    ("GET", "/api/v1/configmaps?continue=garbage", JSON, b"", 400),
    ("GET", "/api/v1/configmaps?resourceVersion=x", JSON, b"", 400),
    ("GET", "/api/v1/configmaps?resourceVersionMatch=Exact", JSON, b"", 422),
    ("GET", "/apis/no.such.group/v1/things", JSON, b"", 404),
    ("GET", "/nothing", JSON, b"", 404),
    ("DELETE", MAPS, JSON, b"nonsense", 400),
    ("DELETE", "/api/v1/namespaces/default/configmaps/there?propagationPolicy=Maybe", JSON, b"", 422),
    ("DELETE", "/api/v1/namespaces/default", JSON, b"", 403),
    ("POST", "/api/v1/namespaces/default/configmaps?dryRun=Some", JSON, b"{}", 400),
    ("POST", "/api/v1/namespaces/default/pods/absent/exec?command=a", JSON, b"", 404),
    (
        "POST",
        "/apis/apps/v1/namespaces/default/deployments",
        JSON,
        br#"{"metadata":{"name":"a"},"spec":{"replicas":"3"}}"#,
        400,
    ),
    ("POST", "/apis/apps/v1/namespaces/default/deployments", JSON, br#"{"metadata":{"name":"a"}}"#, 422),
    (
        "POST",
        "/apis/apps/v1/namespaces/default/deployments",
        JSON,
        br#"{"metadata":{"name":"a"},"spec":null}"#,
        422,
    ),
    (
        "POST",
        "/apis/apps/v1/namespaces/default/deployments",
        JSON,
        br#"{"metadata":{"name":"a"},"spec":{"template":null,"selector":{}}}"#,
        422,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/services",
        JSON,
        br#"{"metadata":{"name":"a"},"spec":{"ports":[{"port":0}]}}"#,
        422,
    ),
    (
        "POST",
        "/api/v1/namespaces/default/services",
        JSON,
        br#"{"metadata":{"name":"a"},"spec":{"clusterIP":"1.2.3.4","ports":[{"port":1}]}}"#,
        422,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests() {
    let server = Server::start().await;
    let client = server.client().await;
    config_map(&client, "there", "1").await;
    let mut wrong = Vec::new();
    for (method, path, kind, body, wanted) in CASES {
        let started = std::time::Instant::now();
        let (code, answer) = send(&client, method, path, kind, body.to_vec()).await;
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "{method} {path} took too long");
        if code != *wanted
            || answer["kind"] != "Status"
            || answer["code"] != *wanted
            || answer["message"] == ""
        {
            wrong.push(format!(
                "{method} {path} {}: {code} for {wanted}: {answer}",
                String::from_utf8_lossy(body)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let large = json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(4 << 20)}}).to_string();
    assert_eq!(send(&client, "POST", MAPS, JSON, large.into_bytes()).await.0, 413);
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    assert_eq!(send(&client, "POST", MAPS, JSON, deep.into_bytes()).await.0, 400);
    assert_eq!(
        Api::<ConfigMap>::default_namespaced(client).list(&Default::default()).await.unwrap().items.len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_lose_nothing() {
    let server = Server::start().await;
    let client = server.client().await;
    config_map(&client, "shared", "0").await;
    let writers = (0..20).map(|n| {
        let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
        tokio::spawn(async move {
            let patch = json!({"data": {format!("key{n}"): "x"}});
            api.patch("shared", &PatchParams::default(), &Patch::Merge(&patch)).await
        })
    });
    let mut refused = 0;
    for writer in writers.collect::<Vec<_>>() {
        match writer.await.unwrap() {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(status(error).code, 409);
                refused += 1;
            }
        }
    }
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let keys = api.get("shared").await.unwrap().data.unwrap().len();
    assert_eq!(keys, 1 + 20 - refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_definition_are_the_same_objects() {
    let server = Server::start().await;
    let client = server.client().await;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"n": {"type": "integer", "default": 7}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema, "subresources": {"status": {}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.test.example.com"},
        "spec": {"group": "test.example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [version("v1beta1", false), version("v1", true)]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, answer) =
        send(&client, "POST", path, "application/json", definition.to_string().into_bytes()).await;
    assert_eq!(code, 201, "{answer}");
    let things = |version: &str| format!("/apis/test.example.com/{version}/namespaces/default/things");
    eventually("the kind is served", async || {
        (send(&client, "GET", &things("v1"), "application/json", Vec::new()).await.0 == 200).then_some(())
    })
    .await;
    let thing = json!({"apiVersion": "test.example.com/v1beta1", "kind": "Thing", "metadata": {"name": "a"},
        "spec": {"free": {"any": ["thing"]}, "unknown": 1}, "status": {"ok": true}});
    let (code, created) =
        send(&client, "POST", &things("v1beta1"), "application/json", thing.to_string().into_bytes()).await;
    assert_eq!((code, &created["spec"]["n"]), (201, &json!(7)));
    assert_eq!(created["spec"]["free"]["any"][0], "thing");
    assert!(created["spec"].get("unknown").is_none() && created.get("status").is_none());
    let one = format!("{}/a", things("v1"));
    let (_, read) = send(&client, "GET", &one, "application/json", Vec::new()).await;
    assert_eq!(read["apiVersion"], "test.example.com/v1");
    let status_patch = json!({"status": {"ok": true}, "spec": {"n": 9}}).to_string().into_bytes();
    let (_, patched) =
        send(&client, "PATCH", &format!("{one}/status"), "application/merge-patch+json", status_patch).await;
    assert_eq!((&patched["status"]["ok"], &patched["spec"]["n"]), (&json!(true), &json!(7)));
    assert_eq!(patched["metadata"]["generation"], 1);
    let spec_patch = json!({"status": {"ok": false}, "spec": {"n": 9}}).to_string().into_bytes();
    let (_, patched) = send(&client, "PATCH", &one, "application/merge-patch+json", spec_patch).await;
    assert_eq!((&patched["status"]["ok"], &patched["spec"]["n"]), (&json!(true), &json!(9)));
    assert_eq!(patched["metadata"]["generation"], 2);
    let wrong = json!({"spec": {"n": "x"}}).to_string().into_bytes();
    let (code, answer) = send(&client, "PATCH", &one, "application/merge-patch+json", wrong).await;
    assert_eq!(code, 422);
    assert!(
        answer["message"].as_str().unwrap().contains("spec.n in body must be of type integer: \"string\""),
        "{answer}"
    );
    let map = config_map(&client, "still", "there").await;
    assert_eq!(map.name_any(), "still");
}
