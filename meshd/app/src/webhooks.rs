//! Port 15017: the API server's admission reviews over TLS, and the webhook configurations that make it ask.

use crate::figures::Figures;
use base_runtime::{
    CancellationToken,
    http_server::{connection, handler, json as json_response, text},
};
use base_tls::{ClientAuth, Rotating, Server};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use meshd_webhook::{inject, review};
use policies_api::names::{CONTROL_PLANE, ROOT_NAMESPACE, labels};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// The API server bounds objects to 3 MiB; a review holds an object and its old self.
const BODY_BYTES_MAX: usize = 8 << 20;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers reviews until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    identity: Rotating,
    injection: inject::Config,
    figures: Figures,
    shutdown: CancellationToken,
) {
    let tls = Server::new(&identity, ClientAuth::None, &[b"http/1.1"]);
    let injection = Arc::new(injection);
    let answer = handler(move |request| {
        let (injection, figures) = (injection.clone(), figures.clone());
        async move { answer(request, &injection, &figures).await }
    });
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "Accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, answer, shutdown) = (tls.clone(), answer.clone(), shutdown.clone());
        tokio::spawn(async move {
            drop(tcp.set_nodelay(true));
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)).await {
                Ok(Ok(stream)) => connection(stream, answer, shutdown).await,
                Ok(Err(error)) => {
                    tracing::debug!(error = %base_types::ErrorChain(&error), "Handshake failed")
                }
                Err(_) => tracing::debug!("Handshake took too long"),
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    injection: &inject::Config,
    figures: &Figures,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only POST");
    }
    let path = request.uri().path().to_owned();
    let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")),
    };
    let review = match review::Request::parse(&body) {
        Ok(review) => review,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let answer = match path.as_str() {
        "/inject" => {
            let answer = inject::pod(injection, &review.namespace, &review.object);
            figures.injection(&answer);
            answer
        }
        "/validate" => {
            let answer = meshd_webhook::validate::object(&review);
            figures.validation(&answer);
            answer
        }
        _ => return text(StatusCode::NOT_FOUND, "not found"),
    };
    json_response(StatusCode::OK, review.answer(&answer).to_string())
}

/// Puts the webhook configurations into the cluster, again until it succeeds.
pub(crate) async fn register(client: Client, ca: String) {
    let ca_bundle = serde_json::to_value(ByteString(ca.into_bytes())).unwrap_or_default();
    let mutating = mutating(&ca_bundle);
    let validating = validating(&ca_bundle);
    loop {
        let result = async {
            put::<MutatingWebhookConfiguration>(&client, &mutating).await?;
            put::<ValidatingWebhookConfiguration>(&client, &validating).await
        };
        match result.await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = %base_types::ErrorChain(&error), "Cannot store the webhook configurations")
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn put<K>(client: &Client, object: &Value) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if api.get_opt(name).await?.is_some() {
        api.patch(name, &PatchParams::default(), &Patch::Merge(object)).await?;
    } else {
        let object: K = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &object).await?;
    }
    Ok(())
}

fn client_config(path: &str, ca_bundle: &Value) -> Value {
    json!({"service": {"name": CONTROL_PLANE, "namespace": ROOT_NAMESPACE, "path": path, "port": 443}, "caBundle": ca_bundle})
}

/// Istio's two questions: a namespace that wants sidecars, or a pod that wants one itself.
fn mutating(ca_bundle: &Value) -> Value {
    let hook = |name: &str, namespaces: Value, pods: Value| {
        json!({
            "name": format!("{name}.sidecar-injector.istio.io"),
            "clientConfig": client_config("/inject", ca_bundle),
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchExpressions": namespaces}, "objectSelector": {"matchExpressions": pods},
            "failurePolicy": "Fail", "reinvocationPolicy": "Never", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
        })
    };
    let not_refused = json!([{"key": labels::INJECT, "operator": "NotIn", "values": ["false"]}]);
    let by_namespace = json!([{"key": labels::INJECTION, "operator": "In", "values": ["enabled"]}]);
    let by_revision = json!([
        {"key": labels::REVISION, "operator": "In", "values": ["default"]},
        {"key": labels::INJECTION, "operator": "DoesNotExist"},
    ]);
    let silent = json!([{"key": labels::INJECTION, "operator": "DoesNotExist"}, {"key": labels::REVISION, "operator": "DoesNotExist"}]);
    let asked = json!([{"key": labels::INJECT, "operator": "In", "values": ["true"]}]);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector"}},
        "webhooks": [
            hook("namespace", by_namespace, not_refused.clone()),
            hook("rev.namespace", by_revision, not_refused),
            hook("object", silent, asked),
        ],
    })
}

fn validating(ca_bundle: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istio-validator-mesh-system", "labels": {"app": "istiod"}},
        "webhooks": [{
            "name": "validation.istio.io",
            "clientConfig": client_config("/validate", ca_bundle),
            "rules": [{
                "apiGroups": ["networking.istio.io", "security.istio.io", "telemetry.istio.io"], "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"], "resources": ["*"],
            }],
            "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
        }],
    })
}
