//! A control plane that answers by itself: every client is told what the test says its node has.

use crate::DEADLINE;
use crate::control::{ControlPlane, Delta, Whole};
use base_tls::CertificateAuthority;
use parking_lot::Mutex;
use policies_xds::cluster::Cluster;
use policies_xds::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use policies_xds::endpoint::ClusterLoadAssignment;
use policies_xds::listener::Listener;
use policies_xds::protobuf::Any;
use policies_xds::route::RouteConfiguration;
use policies_xds::rpc::Status;
use policies_xds::tls::Secret;
use policies_xds::{type_url, unpack};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Types in the order in which they are sent: what is referred to comes first where it can.
const ORDER: [&str; 5] =
    [type_url::SECRET, type_url::CLUSTER, type_url::ENDPOINTS, type_url::LISTENER, type_url::ROUTE];

/// Which node has what; a node is known by its identifier or, when that is Istio's, by the name of its pod.
#[derive(Debug, Default)]
struct Content {
    /// Of the last change.
    version: u64,
    /// By node, type and name: the version it was set at, and the resource.
    resources: BTreeMap<(String, String, String), (u64, Any)>,
    /// By node and type: when anything last changed.
    changed: BTreeMap<(String, String), u64>,
    /// By node and type: the last version that was acknowledged.
    acknowledged: BTreeMap<(String, String), u64>,
    /// Refusals, in order.
    refused: Vec<Refused>,
    /// Requests of any kind received.
    requests: usize,
}

/// A refusal that a client sent.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Who.
    pub node: String,
    /// Of which type.
    pub type_url: String,
    /// Why.
    pub message: String,
}

/// A control plane and what it tells.
#[derive(Debug)]
pub struct World {
    /// Port of TLS.
    pub port: u16,
    /// Port of plain HTTP/2.
    pub plain_port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    content: Mutex<Content>,
    /// Counts changes and requests, for all who wait for one.
    events: watch::Sender<u64>,
}

/// What a client of one stream was sent of one type.
#[derive(Default)]
struct Told {
    names: BTreeSet<String>,
    wildcard: bool,
    /// By nonce: the version it carried.
    sent: BTreeMap<String, u64>,
    nonce: String,
    /// By name: the version sent last.
    versions: BTreeMap<String, u64>,
    /// Version of the last response.
    at: Option<u64>,
}

// === impl World ===

impl World {
    /// Serves on ports of the loopback; with TLS under the name `localhost`.
    pub async fn start(ca: &Arc<CertificateAuthority>) -> Self {
        let plane = ControlPlane::start(ca, 0, "localhost").await;
        // That of a pod which names no account.
        plane.authority.lock().identity = "spiffe://cluster.local/ns/default/sa/default".to_owned();
        let shared = Arc::new(Shared::default());
        let (port, plain_port) = (plane.port, plane.plain_port);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(plane, shared.clone()));
        Self { port, plain_port, shared, _tasks: tasks }
    }

    /// Sets resources of a node; they are told by the names in them.
    ///
    /// # Panics
    /// When one is not of a known type.
    pub fn set(&self, node: &str, resources: impl IntoIterator<Item = Any>) {
        self.shared.change(|content| {
            for resource in resources {
                let name = name_of(&resource);
                let kind = resource.type_url.clone();
                content.changed.insert((node.to_owned(), kind.clone()), content.version);
                content.resources.insert((node.to_owned(), kind, name), (content.version, resource));
            }
        });
    }

    /// Takes resources of one type away from a node.
    pub fn remove(&self, node: &str, type_url: &str, names: &[&str]) {
        self.shared.change(|content| {
            for name in names {
                content.resources.remove(&(node.to_owned(), type_url.to_owned(), (*name).to_owned()));
            }
            content.changed.insert((node.to_owned(), type_url.to_owned()), content.version);
        });
    }

    /// All refusals so far.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        self.shared.content.lock().refused.clone()
    }

    /// Requests of any kind received so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.content.lock().requests
    }

    /// Waits until a node has acknowledged the last change of a type, or anything has been refused.
    ///
    /// # Errors
    /// The refusals, or what was acknowledged before the deadline.
    pub async fn acknowledged(&self, node: &str, type_url: &str) -> anyhow::Result<()> {
        let key = (node.to_owned(), type_url.to_owned());
        let mut events = self.shared.events.subscribe();
        let done = events.wait_for(|_| {
            let content = self.shared.content.lock();
            let wanted = content.changed.get(&key).copied().unwrap_or(0);
            !content.refused.is_empty() || content.acknowledged.get(&key).is_some_and(|it| *it >= wanted)
        });
        let done = tokio::time::timeout(DEADLINE, done).await.is_ok_and(|it| it.is_ok());
        let content = self.shared.content.lock();
        anyhow::ensure!(content.refused.is_empty(), "refused: {:#?}", content.refused);
        anyhow::ensure!(done, "{node} does not acknowledge {type_url}: {:?}", content.acknowledged);
        Ok(())
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Content)) {
        let mut content = self.content.lock();
        content.version += 1;
        change(&mut content);
        drop(content);
        self.events.send_modify(|count| *count += 1);
    }

    /// Takes note of a request and returns the node it is from.
    fn note(&self, node: &str, type_url: &str, version: Option<u64>, error: Option<&Status>) {
        let mut content = self.content.lock();
        content.requests += 1;
        if let Some(error) = error {
            content.refused.push(Refused {
                node: node.to_owned(),
                type_url: type_url.to_owned(),
                message: error.message.clone(),
            });
        } else if let Some(version) = version {
            content.acknowledged.insert((node.to_owned(), type_url.to_owned()), version);
        }
        drop(content);
        self.events.send_modify(|count| *count += 1);
    }

    /// The resources of a node, by name.
    fn of(&self, node: &str, type_url: &str) -> (u64, BTreeMap<String, (u64, Any)>) {
        let content = self.content.lock();
        let own = content.resources.iter().filter(|((of, kind, _), _)| of == node && kind == type_url);
        let own = own.map(|((_, _, name), resource)| (name.clone(), resource.clone())).collect();
        let changed = content.changed.get(&(node.to_owned(), type_url.to_owned()));
        (changed.copied().unwrap_or(0), own)
    }
}

async fn serve(mut plane: ControlPlane, shared: Arc<Shared>) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            Some(delta) = plane.deltas.recv() => { streams.spawn(changes(delta, shared.clone())); }
            Some(whole) = plane.wholes.recv() => { streams.spawn(states(whole, shared.clone())); }
            else => return,
        }
    }
}

/// Plays a stream of changes.
async fn changes(mut stream: Delta, shared: Arc<Shared>) {
    let mut events = shared.events.subscribe();
    let (mut node, mut told) = (String::new(), BTreeMap::<String, Told>::new());
    loop {
        for kind in ORDER {
            let Some(one) = told.get_mut(kind) else { continue };
            let Some(response) = one.difference(kind, &shared, &node, stream.nonce(kind)) else { continue };
            if !stream.reply(response).await {
                return;
            }
        }
        tokio::select! {
            changed = events.changed() => if changed.is_err() { return },
            request = stream.next() => {
                let Some(request) = request else { return };
                if let Some(from) = &request.node {
                    node = short_name(&from.id);
                }
                let one = told.entry(request.type_url.clone()).or_default();
                one.subscribe(&request);
                let version = one.sent.remove(&request.response_nonce);
                shared.note(&node, &request.type_url, version, request.error_detail.as_ref());
            }
        }
    }
}

/// Plays a stream of whole states.
async fn states(mut stream: Whole, shared: Arc<Shared>) {
    let mut events = shared.events.subscribe();
    let (mut node, mut told) = (String::new(), BTreeMap::<String, Told>::new());
    loop {
        for kind in ORDER {
            let Some(one) = told.get_mut(kind) else { continue };
            let Some(response) = one.state(kind, &shared, &node, stream.nonce(kind)) else { continue };
            if !stream.reply(response).await {
                return;
            }
        }
        tokio::select! {
            changed = events.changed() => if changed.is_err() { return },
            request = stream.next() => {
                let Some(request) = request else { return };
                if let Some(from) = &request.node {
                    node = short_name(&from.id);
                }
                let one = told.entry(request.type_url.clone()).or_default();
                let version = one.sent.remove(&request.response_nonce);
                one.ask(&request);
                shared.note(&node, &request.type_url, version, request.error_detail.as_ref());
            }
        }
    }
}

/// `sidecar~10.0.0.1~pod.namespace~…` is `pod`; another identifier is what it is.
fn short_name(id: &str) -> String {
    let pod = id.split('~').nth(2).and_then(|name| name.split('.').next());
    pod.unwrap_or(id).to_owned()
}

fn name_of(resource: &Any) -> String {
    let name = match resource.type_url.as_str() {
        type_url::CLUSTER => unpack::<Cluster>(resource).map(|it| it.name),
        type_url::ENDPOINTS => unpack::<ClusterLoadAssignment>(resource).map(|it| it.cluster_name),
        type_url::LISTENER => unpack::<Listener>(resource).map(|it| it.name),
        type_url::ROUTE => unpack::<RouteConfiguration>(resource).map(|it| it.name),
        type_url::SECRET => unpack::<Secret>(resource).map(|it| it.name),
        other => panic!("{other} is no type of resources"),
    };
    name.expect("the message is of its type")
}

// === impl Told ===

impl Told {
    fn subscribe(&mut self, request: &DeltaDiscoveryRequest) {
        let first = self.nonce.is_empty() && self.names.is_empty() && !self.wildcard;
        for name in &request.resource_names_subscribe {
            if name == "*" {
                self.wildcard = true;
            } else {
                // Asked for anew, it is told anew.
                self.versions.remove(name);
                self.names.insert(name.clone());
            }
        }
        for name in &request.resource_names_unsubscribe {
            self.names.remove(name);
            self.versions.remove(name);
            self.wildcard &= name != "*";
        }
        self.wildcard |= first && request.resource_names_subscribe.is_empty();
        if first {
            let held = request.initial_resource_versions.iter();
            self.versions.extend(held.map(|(name, version)| (name.clone(), version.parse().unwrap_or(0))));
        }
    }

    fn is_asked(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// What is new to the client; nothing at all is said only to the first question.
    fn difference(
        &mut self,
        kind: &str,
        shared: &Shared,
        node: &str,
        nonce: String,
    ) -> Option<DeltaDiscoveryResponse> {
        let (at, own) = shared.of(node, kind);
        let removed: Vec<String> =
            self.versions.keys().filter(|name| !own.contains_key(*name)).cloned().collect();
        let new: Vec<Resource> = own
            .into_iter()
            .filter(|(name, (version, _))| self.is_asked(name) && self.versions.get(name) != Some(version))
            .map(|(name, (version, resource))| Resource {
                name,
                version: version.to_string(),
                resource: Some(resource),
                ..Default::default()
            })
            .collect();
        if new.is_empty() && removed.is_empty() && (self.at.is_some() || !self.wildcard) {
            return None;
        }
        for resource in &new {
            self.versions.insert(resource.name.clone(), resource.version.parse().unwrap_or(0));
        }
        self.versions.retain(|name, _| !removed.contains(name));
        self.at = Some(at);
        self.nonce.clone_from(&nonce);
        self.sent.insert(nonce.clone(), at);
        Some(DeltaDiscoveryResponse {
            type_url: kind.into(),
            system_version_info: at.to_string(),
            nonce,
            resources: new,
            removed_resources: removed,
            ..Default::default()
        })
    }

    fn ask(&mut self, request: &DiscoveryRequest) {
        if !request.response_nonce.is_empty() && request.response_nonce != self.nonce {
            // It answers a response that another has followed.
            return;
        }
        let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
        self.wildcard = names.is_empty() || names.contains("*");
        if names != self.names {
            self.names = names;
            self.at = None;
        }
    }

    /// The whole state, when it is not what the client has.
    fn state(&mut self, kind: &str, shared: &Shared, node: &str, nonce: String) -> Option<DiscoveryResponse> {
        let (at, own) = shared.of(node, kind);
        if self.at == Some(at) {
            return None;
        }
        // As with real servers, nobody is told that named resources are not there.
        let named = matches!(kind, type_url::ENDPOINTS | type_url::ROUTE | type_url::SECRET);
        if named && self.wildcard {
            return None;
        }
        let asked = own.into_iter().filter(|(name, _)| self.is_asked(name));
        let resources: Vec<Any> = asked.map(|(_, (_, resource))| resource).collect();
        if named && resources.is_empty() {
            return None;
        }
        self.at = Some(at);
        self.nonce.clone_from(&nonce);
        self.sent.insert(nonce.clone(), at);
        Some(DiscoveryResponse {
            type_url: kind.into(),
            version_info: at.to_string(),
            nonce,
            resources,
            ..Default::default()
        })
    }
}
