//! What all workers share: the configuration in force, who we are, and where reports go.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use base_tls::Rotating;
use http::HeaderValue;
use sidecar_telemetry::log::LogWriter;
use sidecar_telemetry::tap::Tap;
use sidecar_telemetry::{Metrics, Workload, peer};

use crate::config::Config;
use crate::overload::Overload;
use crate::stats::Stats;

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Beside a workload.
    Sidecar,
    /// A gateway.
    Router,
}

/// Who we are.
#[derive(Debug)]
pub struct Node {
    /// Sidecar or gateway.
    pub kind: NodeKind,
    /// The workload, as metrics name it.
    pub workload: Arc<Workload>,
    /// Our own addresses.
    pub addresses: Vec<IpAddr>,
    /// Name of the host.
    pub hostname: Box<str>,
    pub(crate) metadata: HeaderValue,
    pub(crate) metadata_id: HeaderValue,
    /// What the producer of its spans is called.
    pub(crate) cluster: Box<str>,
    environment: Vec<(Box<str>, Box<str>)>,
}

impl Node {
    /// Describes this process; `id` is the xDS node's.
    pub fn new(kind: NodeKind, id: &str, workload: Workload, addresses: Vec<IpAddr>, hostname: &str) -> Self {
        Self {
            kind,
            metadata: peer::encode(&workload),
            metadata_id: HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("")),
            workload: Arc::new(workload),
            addresses,
            hostname: hostname.into(),
            cluster: "".into(),
            environment: Vec::new(),
        }
    }

    /// The same with the xDS node's cluster, and with variables that configuration may refer to.
    #[must_use]
    pub fn described(self, cluster: &str, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self { cluster: cluster.into(), environment: environment.collect(), ..self }
    }

    /// The xDS node's identifier.
    pub(crate) fn id(&self) -> &str {
        self.metadata_id.to_str().unwrap_or_default()
    }

    /// A variable of the process' environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

/// State of the whole data path.
#[derive(Debug)]
pub struct Shared {
    /// The configuration in force.
    pub config: ArcSwap<Config>,
    /// Who we are.
    pub node: Node,
    /// The workload's certificate.
    pub identity: Rotating,
    /// Istio's metrics.
    pub metrics: Metrics,
    /// Access logs.
    pub log: LogWriter,
    /// Counters of listeners and workers.
    pub stats: Stats,
    /// Who watches requests, and what failed.
    pub tap: Tap,
    /// What is given up for want of memory.
    pub overload: Overload,
    pub(crate) begun: Instant,
    next_connection: AtomicU64,
}

impl Shared {
    pub(crate) fn new(node: Node, identity: Rotating, metrics: Metrics, log: LogWriter) -> Self {
        Self {
            config: ArcSwap::default(),
            node,
            identity,
            metrics,
            log,
            stats: Stats::default(),
            tap: Tap::default(),
            overload: Overload::default(),
            begun: Instant::now(),
            next_connection: AtomicU64::new(1),
        }
    }

    /// Milliseconds since the start: the clock of outlier detection.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since long before the start: the clock of token buckets, whose zero must be far away.
    pub(crate) fn now_nanos(&self) -> u64 {
        let elapsed = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        elapsed.saturating_add(1 << 62)
    }

    pub(crate) fn connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}
