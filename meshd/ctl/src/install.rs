//! Puts the mesh and the sample application into a cluster: objects from embedded files, and waiting until they run.

use crate::{
    cluster_client::{Applied, Cluster},
    failure::{Exit, Failure, Outcome},
    progress::Note,
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use policies_api::{
    Kind,
    names::{MESH_CONFIG_MAP, ROOT_NAMESPACE},
};
use serde_json::{Value, json};
use std::time::Duration;

const MESHD: &str = include_str!("../manifests/meshd.yaml");
const GATEWAY: &str = include_str!("../manifests/ingressgateway.yaml");
/// Where requests are logged: in a demo people want to see them.
const DEMO_MESH: &str = include_str!("../manifests/demo-mesh.yaml");
const TRAFFIC: &str = include_str!("../manifests/traffic.yaml");
const BOOKINFO: &str = include_str!("../../../policies/samples/bookinfo/bookinfo.yaml");
const BOOKINFO_POLICIES: [&str; 2] = [
    include_str!("../../../policies/samples/bookinfo/networking/bookinfo-gateway.yaml"),
    include_str!("../../../policies/samples/bookinfo/networking/destination-rule-all.yaml"),
];

/// The images that manifests name.
#[derive(Debug, Clone)]
pub struct Images {
    /// The control plane's.
    pub meshd: String,
    /// The sidecar's.
    pub sidecar: String,
    /// The sample application's.
    pub bookinfo: String,
}

/// How many objects were new or different.
#[derive(Debug, Default, Clone, Copy)]
pub struct Count {
    /// All.
    pub objects: usize,
    /// New or different.
    pub changed: usize,
}

impl Count {
    fn add(&mut self, more: Self) {
        self.objects += more.objects;
        self.changed += more.changed;
    }
}

/// The policy kinds: without them nothing else can be applied.
pub async fn kinds(cluster: &Cluster, note: &Note) -> Outcome<Count> {
    let mut count = Count::default();
    for crd in policies_api::crd::all() {
        note.set(crd["metadata"]["name"].as_str().unwrap_or_default());
        apply_one(cluster, &crd, &mut count).await?;
    }
    for kind in Kind::ALL {
        cluster.served(&json!({"apiVersion": format!("{}/v1", kind.group()), "kind": kind.name()})).await?;
    }
    Ok(count)
}

/// The control plane, once its kinds are known.
pub async fn control_plane(cluster: &Cluster, images: &Images, note: &Note) -> Outcome<Count> {
    let count = documents(cluster, MESHD, images, note).await?;
    available(cluster, ROOT_NAMESPACE, "meshd", note).await?;
    Ok(count)
}

/// The ingress gateway.
pub async fn gateway(cluster: &Cluster, images: &Images, note: &Note) -> Outcome<Count> {
    let count = documents(cluster, GATEWAY, images, note).await?;
    available(cluster, ROOT_NAMESPACE, "istio-ingressgateway", note).await?;
    Ok(count)
}

/// The sample application, with sidecars, behind the gateway.
pub async fn demo(cluster: &Cluster, images: &Images, note: &Note) -> Outcome<Count> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let label = json!({"metadata": {"labels": {"istio-injection": "enabled"}}});
    namespaces.patch("default", &PatchParams::default(), &Patch::Merge(&label)).await?;
    let mut count = Count::default();
    let settings: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), ROOT_NAMESPACE);
    // Settings that somebody made stay as they are.
    if settings.get_opt(MESH_CONFIG_MAP).await?.is_none() {
        count.add(documents(cluster, DEMO_MESH, images, note).await?);
    }
    count.add(documents(cluster, BOOKINFO, images, note).await?);
    for text in BOOKINFO_POLICIES {
        count.add(documents(cluster, text, images, note).await?);
    }
    for name in ["productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"] {
        available(cluster, "default", name, note).await?;
    }
    Ok(count)
}

/// A client that keeps calling through the gateway.
pub async fn traffic(cluster: &Cluster, images: &Images, note: &Note) -> Outcome<Count> {
    documents(cluster, TRAFFIC, images, note).await
}

/// Applies every document of a file.
async fn documents(cluster: &Cluster, text: &str, images: &Images, note: &Note) -> Outcome<Count> {
    let text = text
        .replace("$MESHD_IMAGE", &images.meshd)
        .replace("$SIDECAR_IMAGE", &images.sidecar)
        .replace("$BOOKINFO_IMAGE", &images.bookinfo);
    let mut count = Count::default();
    for document in parse(&text)? {
        note.set(format!(
            "{} {}",
            document["kind"].as_str().unwrap_or_default(),
            document["metadata"]["name"].as_str().unwrap_or_default()
        ));
        apply_one(cluster, &document, &mut count).await.map_err(|failure| {
            let what = format!(
                "{}/{}",
                document["kind"].as_str().unwrap_or_default(),
                document["metadata"]["name"].as_str().unwrap_or_default()
            );
            Failure { message: format!("{what}: {}", failure.message), ..failure }
        })?;
    }
    Ok(count)
}

/// All non-empty documents of a YAML text.
pub fn parse(text: &str) -> Outcome<Vec<Value>> {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|e| Failure::new(Exit::BadInput, e.to_string()))?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

async fn apply_one(cluster: &Cluster, document: &Value, count: &mut Count) -> Outcome {
    let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
    count.objects += 1;
    if !matches!(cluster.apply(document, namespace).await?, Applied::Unchanged(_)) {
        count.changed += 1;
    }
    Ok(())
}

/// Waits until a Deployment has all its replicas available in the wanted version, saying why it has not.
async fn available(cluster: &Cluster, namespace: &str, name: &str, note: &Note) -> Outcome {
    use futures::StreamExt;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = watcher(api, config).default_backoff().applied_objects().boxed();
    let wait = async {
        let mut look = tokio::time::interval(Duration::from_millis(700));
        let mut done = false;
        while !done {
            tokio::select! {
                event = stream.next() => done = matches!(event, Some(Ok(deployment)) if is_available(&deployment)),
                _ = look.tick() => note.set(why_not(cluster, namespace, name).await),
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(120), wait).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Failure::new(
            Exit::TimedOut,
            format!(
                "{namespace}/{name} is not available after 120 s: {}",
                why_not(cluster, namespace, name).await
            ),
        )
        .fix(format!("meshctl describe deployment {name} -n {namespace}"))),
    }
}

fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
            && status.replicas.unwrap_or(0) == wanted
    })
}

/// One line about the first pod of a Deployment that is not ready.
async fn why_not(cluster: &Cluster, namespace: &str, name: &str) -> String {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let Ok(pods) = api.list(&ListParams::default()).await else {
        return format!("{name}: the API does not answer");
    };
    for pod in pods.items.iter().filter(|pod| pod.name_any().starts_with(&format!("{name}-"))) {
        let Some(status) = &pod.status else { continue };
        let mut containers =
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        if let Some(container) = containers.find(|c| !c.ready) {
            let state = container.state.as_ref();
            let reason = state
                .and_then(|s| s.waiting.as_ref())
                .map(|w| {
                    format!(
                        "{} {}",
                        w.reason.as_deref().unwrap_or("waiting"),
                        w.message.as_deref().unwrap_or("")
                    )
                })
                .or_else(|| {
                    state.and_then(|s| s.terminated.as_ref()).map(|t| format!("exited with {}", t.exit_code))
                })
                .unwrap_or_else(|| "running, not ready yet".into());
            return format!("{}: {} {}", pod.name_any(), container.name, reason.trim());
        }
        if status.container_statuses.is_none() {
            let message = status
                .conditions
                .iter()
                .flatten()
                .find(|c| c.status == "False")
                .and_then(|c| c.message.clone());
            return format!(
                "{}: {}",
                pod.name_any(),
                message.unwrap_or_else(|| status.phase.clone().unwrap_or_default())
            );
        }
    }
    format!("{name}: waiting for pods")
}
