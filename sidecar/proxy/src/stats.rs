//! What the data path counts besides Istio's standard metrics, under Envoy's names, for the admin port and Prometheus.

mod clusters;
mod http;
mod list;

pub use clusters::{clusters, clusters_json};
pub(crate) use http::{HttpStats, Known};
pub use list::{Kind, Stat, list, prometheus};

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Counters of all listeners.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub downstream_cx_total: AtomicU64,
    /// Connections open.
    pub downstream_cx_active: AtomicI64,
    /// Connections that found no filter chain.
    pub no_filter_chain_match: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_errors: AtomicU64,
    /// Connections that authorization refused.
    pub rbac_denied: AtomicU64,
    /// Connections without a proper PROXY protocol header where one is asked for.
    pub proxy_protocol_errors: AtomicU64,
    /// Counters of connection managers.
    pub(crate) http: http::Registry,
}

impl Stats {
    /// Of all listeners together, by Envoy's names.
    fn listeners(&self) -> [(&'static str, u64); 6] {
        let active = u64::try_from(self.downstream_cx_active.load(Relaxed)).unwrap_or(0);
        [
            ("downstream_cx_total", self.downstream_cx_total.load(Relaxed)),
            ("downstream_cx_active", active),
            ("no_filter_chain_match", self.no_filter_chain_match.load(Relaxed)),
            ("ssl.connection_error", self.tls_errors.load(Relaxed)),
            ("rbac.denied", self.rbac_denied.load(Relaxed)),
            ("proxy_proto.error", self.proxy_protocol_errors.load(Relaxed)),
        ]
    }
}
