//! What all parts of one kubelet share: the node's names and addresses, its runtime, network and API client.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cluster_containers::Runtime;
use cluster_network::{NetNs, PodNetwork};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;

use crate::events::Events;
use crate::objects::Objects;
use crate::pod;
use crate::resolv::ClusterDns;
use crate::state::PodState;

/// One node, as its kubelet sees it.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) dns: ClusterDns,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) network: PodNetwork,
    /// The node's network namespace, from which probes dial.
    pub(crate) namespace: NetNs,
    pub(crate) objects: Objects,
    pub(crate) services: Store<Service>,
    pub(crate) events: Events,
    pub(crate) capacity: BTreeMap<String, Quantity>,
    pub(crate) memory_bytes: i64,
    pub(crate) pods: Pods,
}

/// The pods of the node, for those who serve questions about them. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Pods {
    entries: Arc<Mutex<HashMap<String, PodEntry>>>,
    news: Arc<tokio::sync::Notify>,
}

/// A pod as its worker last published it.
#[derive(Clone)]
pub(crate) struct PodEntry {
    pub(crate) pod: Arc<Pod>,
    pub(crate) state: Arc<PodState>,
}

// === impl Node ===

impl Node {
    /// Directory of everything kept for a pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// Directory of a pod's logs, named as log collectors expect.
    pub(crate) fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
    }

    /// The log of one instance of a container.
    pub(crate) fn log_path(&self, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
        let directory = self.log_dir(pod::namespace(pod), pod::name(pod), pod::uid(pod));
        directory.join(container).join(format!("{attempt}.log"))
    }
}

// === impl Pods ===

impl Pods {
    /// Publishes a pod's latest state.
    pub(crate) fn publish(&self, pod: &Arc<Pod>, state: &PodState) {
        let entry = PodEntry { pod: pod.clone(), state: Arc::new(state.clone()) };
        self.entries.lock().insert(pod::uid(pod).to_owned(), entry);
        self.news.notify_waiters();
    }

    /// Forgets a pod.
    pub(crate) fn remove(&self, uid: &str) {
        self.entries.lock().remove(uid);
        self.news.notify_waiters();
    }

    /// Completes at the next change of any pod after this call.
    pub(crate) fn changed(&self) -> std::pin::Pin<Box<tokio::sync::futures::OwnedNotified>> {
        let mut news = Box::pin(self.news.clone().notified_owned());
        news.as_mut().enable();
        news
    }

    /// The pod of that UID.
    pub(crate) fn get(&self, uid: &str) -> Option<PodEntry> {
        self.entries.lock().get(uid).cloned()
    }

    /// The pod of that name; while one is being replaced, the one that is not ending.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<PodEntry> {
        let entries = self.entries.lock();
        let mut named = entries
            .values()
            .filter(|entry| pod::namespace(&entry.pod) == namespace && pod::name(&entry.pod) == name);
        let first = named.next()?;
        let best =
            named.fold(first, |best, entry| if best.state.termination.is_some() { entry } else { best });
        Some(best.clone())
    }

    /// All pods.
    pub(crate) fn all(&self) -> Vec<PodEntry> {
        self.entries.lock().values().cloned().collect()
    }
}
