//! Pods that leave: each is told, by an annotation, once every connected proxy has acknowledged that it takes no new requests. The kubelet
//! leaves the application alone until then, so that no request is on its way to a process that has gone.

use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use meshd_model::{ObjectKey, Snapshot};
use meshd_xds::{Publisher, Tracker};
use policies_api::names::annotations::RELEASED;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};

/// Annotations written at once.
const WRITES_MAX: usize = 16;
/// After a start, proxies are given this time to connect: one that is not there cannot be asked.
const CONNECTING: Duration = Duration::from_secs(5);

/// A pod that leaves.
#[derive(Debug)]
struct Leaving {
    /// Its deletion timestamp.
    deleted: Arc<str>,
    /// First snapshot that says so.
    version: u64,
    told: bool,
}

/// Follows publications and acknowledgements until the publisher is gone.
pub(crate) async fn run(client: Client, publisher: Publisher, tracker: Tracker) {
    let begun = Instant::now();
    let mut publications = publisher.watch();
    let mut acknowledgements = tracker.changes();
    let writes = Arc::new(Semaphore::new(WRITES_MAX));
    let mut leaving: BTreeMap<ObjectKey, Leaving> = BTreeMap::new();
    loop {
        tokio::select! {
            changed = publications.changed() => if changed.is_err() { return },
            changed = acknowledgements.changed() => if changed.is_err() { return },
        }
        if let Some(publication) = publications.borrow_and_update().clone() {
            note(&publication.snapshot, &mut leaving);
        }
        acknowledgements.mark_unchanged();
        if begun.elapsed() < CONNECTING {
            continue;
        }
        for (pod, one) in leaving.iter_mut().filter(|(_, one)| !one.told) {
            if tracker.progress(one.version).laggards.is_empty() {
                one.told = true;
                tell(&client, &writes, pod.clone(), one.deleted.clone());
            }
        }
    }
}

/// Pods of the mesh that are leaving in this snapshot; those that are known wait for the version that they began with.
fn note(snapshot: &Snapshot, leaving: &mut BTreeMap<ObjectKey, Leaving>) {
    let mut now = BTreeMap::new();
    for workload in snapshot.workloads.iter().filter(|it| it.mutual_tls) {
        let Some(deleted) = &workload.leaving else { continue };
        let pod = (Arc::clone(&workload.namespace), Arc::clone(&workload.name));
        let known = leaving.remove(&pod).filter(|known| known.deleted == *deleted);
        let fresh = || Leaving { deleted: Arc::clone(deleted), version: snapshot.version, told: false };
        now.insert(pod, known.unwrap_or_else(fresh));
    }
    *leaving = now;
}

/// Writes in the background: the next pod must not wait for a disk.
fn tell(client: &Client, writes: &Arc<Semaphore>, pod: ObjectKey, deleted: Arc<str>) {
    let (client, writes) = (client.clone(), writes.clone());
    tokio::spawn(async move {
        let Ok(_slot) = writes.acquire().await else { return };
        let pods = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client, &pod.0, &pods);
        let patch = json!({"metadata": {"annotations": {RELEASED: *deleted}}});
        match api.patch(&pod.1, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => tracing::debug!(pod = %pod.1, namespace = %pod.0, "Pod released by its clients"),
            // It is gone already.
            Err(kube::Error::Api(error)) if error.code == 404 => {}
            Err(error) => {
                tracing::warn!(pod = %pod.1, error = %base_types::ErrorChain(&error), "Cannot release a pod")
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshd_model::{Workload, Workloads};

    fn snapshot(version: u64, pods: &[(&str, Option<&str>)]) -> Snapshot {
        let mut workloads = Workloads::default();
        for (name, leaving) in pods {
            workloads.insert(Arc::new(Workload {
                namespace: "d".into(),
                name: (*name).into(),
                mutual_tls: !name.starts_with("plain"),
                leaving: leaving.map(Into::into),
                ..Workload::default()
            }));
        }
        Snapshot { version, workloads: Arc::new(workloads), ..Snapshot::default() }
    }

    #[test]
    fn a_pod_waits_for_the_version_that_first_says_it_leaves() {
        let mut leaving = BTreeMap::new();
        note(&snapshot(3, &[("a", None), ("b", Some("t1")), ("plain", Some("t1"))]), &mut leaving);
        let versions = |leaving: &BTreeMap<ObjectKey, Leaving>| -> Vec<(String, u64)> {
            leaving.iter().map(|(pod, one)| (pod.1.to_string(), one.version)).collect()
        };
        assert_eq!(versions(&leaving), [("b".to_owned(), 3)]);
        note(&snapshot(5, &[("a", Some("t2")), ("b", Some("t1"))]), &mut leaving);
        assert_eq!(versions(&leaving), [("a".to_owned(), 5), ("b".to_owned(), 3)]);
        // Another deletion timestamp is another promise: that of a pod of the same name, or an earlier deadline.
        note(&snapshot(6, &[("b", Some("t0"))]), &mut leaving);
        assert_eq!(versions(&leaving), [("b".to_owned(), 6)]);
        note(&snapshot(7, &[]), &mut leaving);
        assert!(leaving.is_empty());
    }
}
