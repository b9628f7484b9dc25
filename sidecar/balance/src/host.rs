//! An endpoint, and what all workers know of it.

use crate::outlier::{EjectionCause, Tally};
use sidecar_model::{Endpoint, Health, Locality};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// Live facts of an endpoint; they outlive a change of configuration as long as its address stays.
#[derive(Debug, Default)]
pub struct HostState {
    active: AtomicU32,
    pub(crate) consecutive_5xx: AtomicU32,
    pub(crate) consecutive_gateway: AtomicU32,
    pub(crate) consecutive_local: AtomicU32,
    /// Answers in this interval of outlier detection.
    pub(crate) answers: Tally,
    /// Connections and their failures in this interval, when they are counted apart.
    pub(crate) local: Tally,
    /// How often it was ejected, less one for every quiet interval since.
    pub(crate) ejections: AtomicU32,
    /// End of the ejection in milliseconds; 0: not ejected.
    pub(crate) ejected_until_ms: AtomicU64,
    /// [`EjectionCause`] of the last ejection, as a number.
    pub(crate) cause: AtomicU8,
    /// When `ejections` was last lowered.
    pub(crate) forgiven_ms: AtomicU64,
    /// Active health checks fail.
    failed_check: AtomicBool,
    /// Since when it serves, in milliseconds: slow start begins here.
    since_ms: AtomicU64,
    /// Peak-EWMA of the time to a response, in microseconds, as it was at `latency_ms`; 0: none yet.
    pub(crate) latency_us: AtomicU64,
    pub(crate) latency_ms: AtomicU64,
}

/// An endpoint in a balancer.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its configuration.
    pub endpoint: Arc<Endpoint>,
    /// Where it is.
    pub locality: Locality,
    /// Its priority; 0 is used first.
    pub priority: u32,
    /// Its live facts.
    pub state: Arc<HostState>,
}

/// Why an endpoint gets no new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The control plane says that it does not serve.
    Health,
    /// Active health checks fail.
    FailedCheck,
    /// It was ejected and comes back at this time, in milliseconds.
    Ejected {
        /// End of the ejection.
        until_ms: u64,
        /// What it was ejected for.
        cause: EjectionCause,
    },
}

/// How willingly an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Healthy,
    /// Serves, if too few others do.
    Degraded,
    Unavailable,
}

// === impl HostState ===

impl HostState {
    pub(crate) fn new(now_ms: u64, unchecked: bool) -> Self {
        Self { since_ms: now_ms.into(), failed_check: unchecked.into(), ..Self::default() }
    }

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

    /// Ends an ejection before its time.
    pub fn uneject(&self) {
        self.ejected_until_ms.store(0, Relaxed);
    }

    /// Whether active health checks fail.
    #[must_use]
    pub fn failed_check(&self) -> bool {
        self.failed_check.load(Relaxed)
    }

    /// What active health checks found. An endpoint that comes back starts slowly. Afterwards
    /// [`Balancer::refresh`](crate::Balancer::refresh) must be called.
    pub fn set_failed_check(&self, failed: bool, now_ms: u64) {
        if self.failed_check.swap(failed, Relaxed) && !failed {
            self.since_ms.store(now_ms, Relaxed);
        }
    }

    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms.load(Relaxed)
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
        if self.state.failed_check() {
            return Some(Unavailable::FailedCheck);
        }
        let cause = || EjectionCause::from_number(self.state.cause.load(Relaxed));
        self.state.ejected_until(now_ms).map(|until_ms| Unavailable::Ejected { until_ms, cause: cause() })
    }

    pub(crate) fn tier(&self, now_ms: u64) -> Tier {
        let out = !self.endpoint.health.is_available()
            || self.state.failed_check()
            || self.state.ejected_until(now_ms).is_some();
        match (out, self.endpoint.health) {
            (true, _) => Tier::Unavailable,
            (false, Health::Degraded) => Tier::Degraded,
            (false, _) => Tier::Healthy,
        }
    }
}
