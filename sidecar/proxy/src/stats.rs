//! What the data path counts besides Istio's standard metrics, under Envoy's names, for the admin port and Prometheus.

mod clusters;
mod http;
mod list;

pub use clusters::{clusters, clusters_json};
pub(crate) use http::{Event, HttpStats, Known};
pub use list::{Kind, Stat, list, prometheus};

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use sidecar_model::Rbac;

use crate::shared::Shared;

/// Counters of all listeners.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub downstream_cx_total: AtomicU64,
    /// Connections open.
    pub downstream_cx_active: AtomicI64,
    /// Connections open that carry bytes or an upgraded protocol.
    pub downstream_tunnels_active: AtomicI64,
    /// Connections of bytes closed because the configuration takes no such connection any more.
    pub downstream_cx_orphaned: AtomicU64,
    /// Connections beyond a connection limit.
    pub connection_limited: AtomicU64,
    /// Connections that found no filter chain.
    pub no_filter_chain_match: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_errors: AtomicU64,
    /// Connections that authorization refused.
    pub rbac_denied: AtomicU64,
    /// Connections without a proper PROXY protocol header where one is asked for.
    pub proxy_protocol_errors: AtomicU64,
    /// Spans of traces.
    pub(crate) spans: crate::http::Exported,
    /// Counters of connection managers.
    pub(crate) http: http::Registry,
    /// Verdicts of policies that are only tried, by their kind: those that would allow, those that would deny, others.
    shadow: [ShadowStats; 3],
}

/// Verdicts of policies that are only tried.
#[derive(Debug, Default)]
struct ShadowStats {
    allowed: AtomicU64,
    denied: AtomicU64,
}

/// Prefixes of the names under which such verdicts are counted: Istio's.
const SHADOWS: [&str; 3] = ["istio_dry_run_allow_", "istio_dry_run_deny_", ""];

impl Stats {
    /// A counter of all connection managers together.
    #[cfg(test)]
    pub(crate) fn http_total(&self, name: &str) -> u64 {
        self.http.sums().values().flatten().filter(|(known, _)| *known == name).map(|(_, value)| value).sum()
    }

    /// Counts the verdict of policies that are only tried.
    pub(crate) fn count_shadow(&self, rbac: &Rbac, allowed: bool) {
        let kind = SHADOWS.iter().position(|prefix| **prefix == *rbac.shadow_prefix).unwrap_or(2);
        let stats = &self.shadow[kind];
        if allowed { &stats.allowed } else { &stats.denied }.fetch_add(1, Relaxed);
    }

    /// Those verdicts: the prefix of their names, how many would have passed, how many not.
    fn shadows(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let of = |stats: &ShadowStats| (stats.allowed.load(Relaxed), stats.denied.load(Relaxed));
        SHADOWS.iter().zip(&self.shadow).map(move |(prefix, stats)| (*prefix, of(stats).0, of(stats).1))
    }

    /// Of all listeners together, by Envoy's names.
    fn listeners(&self) -> [(&'static str, u64); 8] {
        let active = u64::try_from(self.downstream_cx_active.load(Relaxed)).unwrap_or(0);
        [
            ("downstream_cx_total", self.downstream_cx_total.load(Relaxed)),
            ("downstream_cx_active", active),
            ("no_filter_chain_match", self.no_filter_chain_match.load(Relaxed)),
            ("ssl.connection_error", self.tls_errors.load(Relaxed)),
            ("rbac.denied", self.rbac_denied.load(Relaxed)),
            ("downstream_cx_orphaned", self.downstream_cx_orphaned.load(Relaxed)),
            ("connection_limit.limited_connections", self.connection_limited.load(Relaxed)),
            ("proxy_proto.error", self.proxy_protocol_errors.load(Relaxed)),
        ]
    }
}

/// Counts a connection of bytes while it is open.
pub(crate) struct Tunnel(Arc<Shared>);

impl Tunnel {
    pub(crate) fn open(shared: &Arc<Shared>) -> Self {
        shared.stats.downstream_tunnels_active.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.stats.downstream_tunnels_active.fetch_sub(1, Relaxed);
    }
}
