//! All pods of the node: follows the API, keeps one worker per pod, hands on what the runtime reports, and clears what nobody owns.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;

use cluster_containers::ContainerEvent;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use std::net::IpAddr;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::node::Node;
use crate::state::PodState;
use crate::worker::{self, Desired, Handle};
use crate::{checkpoint, pod};

/// Follows the node's pods until `shutdown`; containers are left running then.
pub(crate) async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let api: Api<Pod> = Api::all(node.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut objects = watcher(api, config).default_backoff().boxed();
    let mut happenings = node.runtime.events();
    let mut pods = Pods {
        node,
        shutdown: shutdown.clone(),
        workers: HashMap::new(),
        listed: HashSet::new(),
        swept: false,
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            event = objects.next() => match event {
                Some(Ok(event)) => pods.changed(event).await,
                Some(Err(error)) => {
                    tracing::debug!(node = pods.node.name, error = %base_types::ErrorChain(&error), "Watch of pods failed");
                }
                None => return,
            },
            event = happenings.recv() => match event {
                Ok(ContainerEvent { pod_uid, .. }) => pods.wake(&pod_uid),
                // Every worker looks for itself what it missed.
                Err(broadcast::error::RecvError::Lagged(_)) => pods.wake_all(),
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

struct Pods {
    node: Arc<Node>,
    shutdown: CancellationToken,
    workers: HashMap<String, Handle>,
    /// Pods of the list being read.
    listed: HashSet<String>,
    /// What an earlier process left without an owner has been cleared.
    swept: bool,
}

// === impl Pods ===

impl Pods {
    async fn changed(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(pod) => {
                self.listed.extend(pod.uid());
                self.apply(pod).await;
            }
            Event::InitDone => {
                let vanished: Vec<_> =
                    self.workers.keys().filter(|uid| !self.listed.contains(*uid)).cloned().collect();
                for uid in vanished {
                    self.vanish(&uid);
                }
                if !std::mem::replace(&mut self.swept, true) {
                    self.sweep().await;
                }
            }
            Event::Apply(pod) => self.apply(pod).await,
            Event::Delete(pod) => {
                if let Some(uid) = pod.uid() {
                    self.vanish(&uid);
                }
            }
        }
    }

    async fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        let pod = Arc::new(pod);
        if let Some(handle) = self.workers.get(&uid) {
            let desired = Desired { pod: pod.clone(), vanished: false };
            if handle.desired.send(desired).is_ok() {
                return;
            }
            // Its worker has finished; a late event of a pod that is going brings nothing new.
            self.workers.remove(&uid);
            if pod::deletion(&pod).is_some() {
                return;
            }
        }
        self.workers.retain(|_, handle| !handle.desired.is_closed());
        let remains = self.remains(&pod, &uid).await;
        let handle = worker::start(self.node.clone(), pod, remains, self.shutdown.clone());
        self.workers.insert(uid, handle);
    }

    /// What an earlier process left of the pod, corrected by what is really there.
    async fn remains(&self, pod: &Pod, uid: &str) -> PodState {
        let directory = self.node.pod_dir(uid);
        if !directory.exists() {
            let mut state = PodState::default();
            checkpoint::recall(&mut state, pod, Timestamp::now());
            return state;
        }
        let mut state = checkpoint::load(&directory);
        if state == PodState::default() {
            checkpoint::recall(&mut state, pod, Timestamp::now());
        }
        let runtime = &self.node.runtime;
        let sandboxes = runtime.list_sandboxes().await.unwrap_or_default();
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.spec.uid == uid);
        let ip = if pod::host_network(pod) {
            Some(self.node.ip)
        } else {
            let nets = self.node.network.existing();
            nets.into_iter().find(|net| net.uid == uid).map(|net| IpAddr::V4(net.ip))
        };
        if sandbox.is_some() && ip.is_none() {
            // Its network is gone, so it cannot be used any more.
            if let Err(error) = runtime.remove_sandbox(uid).await {
                tracing::warn!(pod = pod::name(pod), %error, "Sandbox without network not removed");
            }
        }
        let mut containers = runtime.list_containers().await;
        containers.retain(|status| status.pod_uid == uid);
        let usable = sandbox.filter(|_| ip.is_some());
        checkpoint::reconcile(&mut state, usable.map(|sandbox| (sandbox, ip)), &containers, Timestamp::now());
        state
    }

    fn vanish(&mut self, uid: &str) {
        if let Some(handle) = self.workers.remove(uid) {
            let last = handle.desired.borrow().pod.clone();
            // A worker that has finished knows already.
            let _finished = handle.desired.send(Desired { pod: last, vanished: true });
        }
    }

    fn wake(&self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.wake.notify_one();
        }
    }

    fn wake_all(&self) {
        self.workers.values().for_each(|handle| handle.wake.notify_one());
    }

    /// Clears sandboxes, networks and directories of pods that no longer exist in the API.
    async fn sweep(&self) {
        let mut found: HashSet<String> = HashSet::new();
        let sandboxes = self.node.runtime.list_sandboxes().await.unwrap_or_default();
        found.extend(sandboxes.into_iter().map(|sandbox| sandbox.spec.uid));
        found.extend(self.node.network.existing().into_iter().map(|net| net.uid));
        let names = |directory: &str| {
            let entries = fs::read_dir(self.node.data_dir.join(directory));
            entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
        };
        found.extend(names("pods"));
        for uid in found.difference(&self.listed) {
            let (node, uid) = (self.node.clone(), uid.clone());
            tokio::spawn(async move {
                match worker::take_apart(&node, &uid).await {
                    Ok(()) => drop(fs::remove_dir_all(node.pod_dir(&uid))),
                    Err(error) => tracing::warn!(uid, error, "Remains of a pod not cleared"),
                }
            });
        }
        for name in names("logs") {
            let owned = self.listed.iter().any(|uid| name.ends_with(uid.as_str()));
            if !owned {
                let _absent = fs::remove_dir_all(self.node.data_dir.join("logs").join(name));
            }
        }
    }
}
