//! What every cluster has from the start, and what expires.

use std::{sync::Arc, time::Duration};

use cluster_store::{Op, Precondition, StoreError};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::{
    api::Api,
    authz,
    config::Error,
    kinds::Kind,
    object::{self, child, now},
    registry::events,
};

/// How long events are kept (Kubernetes: 1 h).
const EVENT_LIFE_SECONDS: i64 = 3600;
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// Creates what is missing.
///
/// # Errors
/// When the store refuses.
pub(crate) async fn run(api: &Arc<Api>) -> Result<(), Error> {
    // All at once: the store commits them in groups.
    let mut first: Vec<(&str, &str, Value)> = Vec::new();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        first.push(("", "namespaces", json!({"metadata": {"name": name}})));
    }
    for (resource, object) in authz::bootstrap_objects() {
        first.push(("rbac.authorization.k8s.io", resource, object));
    }
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)]
    {
        let class = json!({"metadata": {"name": name}, "value": value, "globalDefault": false,
            "preemptionPolicy": "PreemptLowerPriority",
            "description": "Used for system critical pods that must not be moved from their current place."});
        first.push(("scheduling.k8s.io", "priorityclasses", class));
    }
    let writes =
        first.into_iter().map(|(group, resource, object)| ensure(api, group, "v1", resource, object));
    try_join_all(writes).await?;
    let name = "extension-apiserver-authentication";
    let authority = json!({"metadata": {"name": name, "namespace": "kube-system"},
        "data": {"client-ca-file": api.ca_pem}});
    replace(api, "", "configmaps", authority, &["data"]).await?;
    kubernetes_service(api).await
}

/// Service `default/kubernetes` and where it leads.
async fn kubernetes_service(api: &Arc<Api>) -> Result<(), Error> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "type": "ClusterIP",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": api.advertise.port()}]}});
    ensure(api, "", "v1", "services", service).await?;
    let address = api.advertise.ip().to_string();
    let port = api.advertise.port();
    let slice = json!({"addressType": if api.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    replace(api, "discovery.k8s.io", "endpointslices", slice, &["endpoints", "ports"]).await?;
    let endpoints = json!({"metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    replace(api, "", "endpoints", endpoints, &["subsets"]).await
}

fn failed(kind: &Kind, name: &str, reason: impl ToString) -> Error {
    Error::Bootstrap { what: format!("{} {name}", kind.kind), reason: reason.to_string() }
}

fn kind_of(api: &Api, group: &str, version: &str, resource: &str) -> Result<Arc<Kind>, Error> {
    api.kinds.get(group, version, resource).ok_or_else(|| Error::Bootstrap {
        what: resource.to_owned(),
        reason: "the kind is not served".to_owned(),
    })
}

async fn ensure(
    api: &Arc<Api>,
    group: &str,
    version: &str,
    resource: &str,
    mut object: Value,
) -> Result<(), Error> {
    let kind = kind_of(api, group, version, resource)?;
    complete(&kind, &mut object);
    let (namespace, name) = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
    let bytes = object::encode(&object).map_err(|error| failed(&kind, &name, error))?;
    match api.store.write(&kind.key(&namespace, &name), Precondition::Absent, Op::Put(bytes)).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(failed(&kind, &name, error)),
    }
}

/// Creates an object, or sets these of its fields: the server's address may have changed.
async fn replace(
    api: &Arc<Api>,
    group: &str,
    resource: &str,
    wanted: Value,
    fields: &[&str],
) -> Result<(), Error> {
    let kind = kind_of(api, group, "v1", resource)?;
    let (namespace, name) = (object::namespace(&wanted).to_owned(), object::name(&wanted).to_owned());
    let key = kind.key(&namespace, &name);
    let Some(kv) = api.store.get(&key).0 else { return ensure(api, group, "v1", resource, wanted).await };
    let mut object = object::decode(&kv).map_err(|error| failed(&kind, &name, error))?;
    if fields.iter().all(|field| object[*field] == wanted[*field]) {
        return Ok(());
    }
    for field in fields {
        object[*field] = wanted[*field].clone();
    }
    let bytes = object::encode(&object).map_err(|error| failed(&kind, &name, error))?;
    let written = api.store.write(&key, Precondition::ModRevision(kv.mod_revision), Op::Put(bytes)).await;
    written.map(drop).map_err(|error| failed(&kind, &name, error))
}

fn complete(kind: &Kind, object: &mut Value) {
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    let metadata = child(object, "metadata");
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(now()));
    if kind.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    kind.strategy.defaults(object);
    kind.strategy.prepare_create(object);
    object::prune_nulls(object, 4);
}

/// Removes old events, every minute.
pub(crate) fn expire_events(api: &Arc<Api>) {
    let api = Arc::clone(api);
    let shutdown = api.shutdown.clone();
    api.tasks.clone().spawn(shutdown.run_until_cancelled_owned(async move {
        let mut ticks = tokio::time::interval(EXPIRE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = expire_once(&api).await {
                tracing::warn!(%error, "Events cannot be expired");
            }
        }
    }));
}

async fn expire_once(api: &Api) -> Result<(), StoreError> {
    let page = api.store.list("/registry/core/events/", None, 0, None)?;
    let oldest = jiff::Timestamp::now().as_second() - EVENT_LIFE_SECONDS;
    for kv in page.items {
        let Ok(event) = object::decode(&kv) else { continue };
        if events::last_seen(&event).is_some_and(|seen| seen.as_second() < oldest) {
            match api.store.write(&kv.key, Precondition::ModRevision(kv.mod_revision), Op::Delete).await {
                Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
