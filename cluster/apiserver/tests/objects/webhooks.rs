//! Webhooks behind a Service: mutation, refusal, warnings, failure policies, selectors.

use std::sync::Arc;

use base_tls::{ClientAuth, Server as TlsServer};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use super::{status, typed};
use crate::harness::{Server, eventually, server_identity};

/// Refuses what has the label `bad`, labels the rest, warns always.
fn decide(review: &Value) -> Value {
    let request = &review["request"];
    let uid = &request["uid"];
    let object = &request["object"];
    let response = if object["metadata"]["labels"]["bad"] == "yes" {
        json!({"uid": uid, "allowed": false, "status": {"message": "no bad things", "code": 418}})
    } else {
        let patch =
            json!([{"op": "add", "path": "/metadata/annotations", "value": {"seen": request["operation"]}}])
                .to_string();
        let patch = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, patch);
        json!({"uid": uid, "allowed": true, "warnings": ["be careful"], "patchType": "JSONPatch", "patch": patch})
    };
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

async fn webhook(server: &Server) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let identity = server_identity(&server.ca, &["hook.default.svc"]);
    let tls = Arc::new(TlsServer::new(&identity, ClientAuth::None, &[b"http/1.1"]));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = Arc::clone(&tls);
            tokio::spawn(async move {
                let stream = tls.accept(stream).await.unwrap();
                let service =
                    hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let review: Value = serde_json::from_slice(&body).unwrap();
                        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(bytes::Bytes::from(
                            decide(&review).to_string(),
                        ))))
                    });
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    port
}

async fn post(client: &Client, path: &str, body: Value) -> Value {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes());
    client.request(request.unwrap()).await.unwrap()
}

async fn configure(server: &Server, client: &Client, kind: &str, resource: &str, policy: &str) {
    let bundle =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, server.ca.certificate_pem());
    let body = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "hook"}, "webhooks": [{
        "name": "hook.test.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": policy, "timeoutSeconds": 5,
        "clientConfig": {"caBundle": bundle, "service": {"name": "hook", "namespace": "default", "path": "/x", "port": 443}},
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}]});
    post(client, &format!("/apis/admissionregistration.k8s.io/v1/{resource}"), body).await;
}

async fn publish(client: &Client, port: u16) {
    post(
        client,
        "/api/v1/namespaces/default/services",
        json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}),
    )
    .await;
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.1.9"], "conditions": {"ready": true}}], "ports": [{"port": port}]});
    post(client, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
}

fn map(name: &str, labels: Value) -> ConfigMap {
    typed(json!({"metadata": {"name": name, "labels": labels}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_and_refusing() {
    let server = Server::start().await;
    let client = server.client().await;
    let port = webhook(&server).await;
    publish(&client, port).await;
    configure(&server, &client, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "Fail")
        .await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    eventually("the webhook is in force", async || {
        let created = api
            .create(&PostParams { dry_run: true, ..PostParams::default() }, &map("probe", json!({})))
            .await
            .unwrap();
        created.metadata.annotations.filter(|a| a["seen"] == "CREATE")
    })
    .await;
    let refusal =
        status(api.create(&PostParams::default(), &map("b", json!({"bad": "yes"}))).await.unwrap_err());
    assert_eq!(
        (refusal.code, &*refusal.message),
        (418, "admission webhook \"hook.test.example.com\" denied the request: no bad things")
    );
    let skipped = api.create(&PostParams::default(), &map("c", json!({"skip": "yes"}))).await.unwrap();
    assert!(skipped.metadata.annotations.is_none());
    let request = http::Request::post("/api/v1/namespaces/default/configmaps")
        .header("content-type", "application/json");
    let body = json!({"metadata": {"name": "w"}}).to_string().into_bytes();
    let response = client.send(request.body(kube::client::Body::from(body)).unwrap()).await.unwrap();
    assert_eq!(response.headers()["warning"], "299 - \"be careful\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_webhook_fails_as_it_is_told() {
    let server = Server::start().await;
    let client = server.client().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    configure(&server, &client, "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "Fail")
        .await;
    let create = async || {
        api.create(&PostParams { dry_run: true, ..PostParams::default() }, &map("a", json!({}))).await
    };
    let refusal = status(eventually("the webhook is in force", async || create().await.err()).await);
    assert_eq!(refusal.code, 500);
    assert!(refusal.message.contains("failed calling webhook \"hook.test.example.com\": failed to call webhook: Post \"https://hook.default.svc:443/x?timeout=5s\": service \"hook\" not found"), "{}", refusal.message);
    let configurations: Api<k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration> =
        Api::all(client.clone());
    configurations.delete("hook", &DeleteParams::default()).await.unwrap();
    eventually("the webhook is gone", async || create().await.ok()).await;
    configure(
        &server,
        &client,
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "Ignore",
    )
    .await;
    create().await.unwrap();
}
