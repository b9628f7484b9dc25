//! An endpoint, and what all workers know of it.

use sidecar_model::{Endpoint, Locality};
use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// Live facts of an endpoint; they outlive a change of configuration as long as its address stays.
#[derive(Debug, Default)]
pub struct HostState {
    active: AtomicU32,
    pub(crate) consecutive_5xx: AtomicU32,
    pub(crate) consecutive_gateway: AtomicU32,
    pub(crate) consecutive_local: AtomicU32,
    /// How often it was ejected, less one for every quiet interval since.
    pub(crate) ejections: AtomicU32,
    /// End of the ejection in milliseconds; 0: not ejected.
    pub(crate) ejected_until_ms: AtomicU64,
    /// When `ejections` was last lowered.
    pub(crate) forgiven_ms: AtomicU64,
}

/// An endpoint in a balancer.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its configuration.
    pub endpoint: Arc<Endpoint>,
    /// Where it is.
    pub locality: Locality,
    /// Its live facts.
    pub state: Arc<HostState>,
}

/// Why an endpoint gets no new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The control plane says that it does not serve.
    Health,
    /// It was ejected and comes back at this time, in milliseconds.
    Ejected {
        /// End of the ejection.
        until_ms: u64,
    },
}

// === impl HostState ===

impl HostState {
    /// Requests under way.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// A request begins.
    pub fn begin(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    /// A request ends.
    pub fn end(&self) {
        // An end without a begin would be a bug of the caller; wrapping round would make the endpoint look busy for ever.
        let _ = self.active.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }

    /// End of the ejection in force, in milliseconds.
    #[must_use]
    pub fn ejected_until(&self, now_ms: u64) -> Option<u64> {
        Some(self.ejected_until_ms.load(Relaxed)).filter(|until| *until > now_ms)
    }
}

// === impl Host ===

impl Host {
    /// Why it gets no new requests, if it gets none.
    #[must_use]
    pub fn unavailable(&self, now_ms: u64) -> Option<Unavailable> {
        if !self.endpoint.health.is_available() {
            return Some(Unavailable::Health);
        }
        self.state.ejected_until(now_ms).map(|until_ms| Unavailable::Ejected { until_ms })
    }

    pub(crate) fn available(&self, now_ms: u64) -> bool {
        self.unavailable(now_ms).is_none()
    }
}
