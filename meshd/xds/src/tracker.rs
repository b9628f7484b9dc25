//! Which proxy has which snapshot in force: what status of policies, `proxy list` and debug pages are made of.

use crate::session::Settled;
use meshd_compile::ResourceType;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// Settled versions remembered for each proxy; an object that waits longer counts every proxy that has settled since as reached.
const HISTORY: usize = 256;

/// What is known of one connected proxy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// `<pod>.<namespace>`.
    pub proxy: Arc<str>,
    /// `sidecar` or `router`.
    pub kind: &'static str,
    /// Address that the stream came from.
    pub peer: String,
    /// Unix seconds of the connection.
    pub connected_since: u64,
    /// Version of the snapshot that is in force there.
    pub version: u64,
    /// Resources in force by type.
    pub resources: BTreeMap<&'static str, usize>,
    /// Refused types with the proxy's reasons.
    pub rejected: BTreeMap<&'static str, String>,
    #[serde(skip)]
    history: VecDeque<(u64, bool)>,
    #[serde(skip)]
    stream: u64,
}

/// How far a version has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connected proxies.
    pub proxies: usize,
    /// Proxies that have it in force, whether it meant anything to them or not.
    pub settled: usize,
    /// Proxies to which something was sent for it and that have acknowledged.
    pub acked: usize,
    /// Proxies that refuse something, with a reason of each.
    pub rejected: Vec<(Arc<str>, String)>,
    /// Proxies that have not acknowledged yet.
    pub laggards: Vec<Arc<str>>,
}

/// Shared by all streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracker {
    proxies: Arc<Mutex<BTreeMap<Arc<str>, ProxyStatus>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Tracker {
    fn default() -> Self {
        Self { proxies: Arc::default(), changes: Arc::new(watch::Sender::new(0)) }
    }
}

impl Tracker {
    /// Wakes whenever a proxy connects, settles or leaves.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A proxy has connected. A later stream of the same proxy replaces an earlier one.
    pub fn connected(&self, proxy: &Arc<str>, kind: &'static str, peer: String, stream: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let status = ProxyStatus {
            proxy: proxy.clone(),
            kind,
            peer,
            connected_since: since,
            version: 0,
            resources: BTreeMap::new(),
            rejected: BTreeMap::new(),
            history: VecDeque::new(),
            stream,
        };
        self.proxies.lock().insert(proxy.clone(), status);
        self.wake();
    }

    /// Everything up to a version is in force at the proxy.
    pub fn settled(
        &self,
        proxy: &Arc<str>,
        stream: u64,
        settled: &Settled,
        resources: BTreeMap<&'static str, usize>,
    ) {
        if let Some(status) = self.proxies.lock().get_mut(proxy).filter(|s| s.stream == stream) {
            status.version = settled.version;
            status.resources = resources;
            status.rejected =
                settled.rejected.iter().map(|(kind, reason)| (type_name(*kind), reason.clone())).collect();
            status.history.push_back((settled.version, settled.affected));
            if status.history.len() > HISTORY {
                status.history.pop_front();
            }
        }
        self.wake();
    }

    /// A stream has ended.
    pub fn left(&self, proxy: &Arc<str>, stream: u64) {
        let mut proxies = self.proxies.lock();
        if proxies.get(proxy).is_some_and(|s| s.stream == stream) {
            proxies.remove(proxy);
        }
        drop(proxies);
        self.wake();
    }

    /// All connected proxies, by name.
    #[must_use]
    pub fn all(&self) -> Vec<ProxyStatus> {
        self.proxies.lock().values().cloned().collect()
    }

    /// How far `version` has come.
    #[must_use]
    pub fn progress(&self, version: u64) -> Progress {
        let proxies = self.proxies.lock();
        let mut progress = Progress { proxies: proxies.len(), ..Progress::default() };
        for (name, status) in proxies.iter() {
            if status.version < version {
                progress.laggards.push(name.clone());
                continue;
            }
            progress.settled += 1;
            // The first settling at or after the version is the one that carried it.
            if status.history.iter().find(|(v, _)| *v >= version).is_some_and(|(_, affected)| *affected) {
                progress.acked += 1;
            }
            if let Some(reason) = status.rejected.values().next() {
                progress.rejected.push((name.clone(), reason.clone()));
            }
        }
        progress
    }

    fn wake(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Istio's short name of a type: `CDS`, `EDS`, `LDS`, `RDS`, `SDS`.
#[must_use]
pub const fn type_name(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "CDS",
        ResourceType::Endpoint => "EDS",
        ResourceType::Listener => "LDS",
        ResourceType::Route => "RDS",
        ResourceType::Secret => "SDS",
    }
}
