//! What is under way in a cluster, shared by all workers: circuit breakers read it, statistics show it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use parking_lot::Mutex;
use sidecar_model::Cluster;
use sidecar_model::cluster::Thresholds;

/// Counters of one cluster.
#[derive(Debug, Default)]
pub struct Usage {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
    waiting: AtomicU32,
    waiters: Mutex<Vec<Waker>>,
    /// Totals.
    pub totals: Totals,
}

/// Totals of one cluster, under Envoy's names.
#[derive(Debug, Default)]
pub struct Totals {
    /// Connections made.
    pub upstream_cx_total: AtomicU64,
    /// Connections that could not be made.
    pub upstream_cx_connect_fail: AtomicU64,
    /// Times the limit of connections was reached.
    pub upstream_cx_overflow: AtomicU64,
    /// Requests sent.
    pub upstream_rq_total: AtomicU64,
    /// Requests refused because too many were waiting or under way.
    pub upstream_rq_pending_overflow: AtomicU64,
    /// Retries.
    pub upstream_rq_retry: AtomicU64,
    /// Retries that succeeded.
    pub upstream_rq_retry_success: AtomicU64,
    /// Retries not made because too many were under way.
    pub upstream_rq_retry_overflow: AtomicU64,
    /// Requests that took too long.
    pub upstream_rq_timeout: AtomicU64,
    /// Attempts that took too long.
    pub upstream_rq_per_try_timeout: AtomicU64,
    /// Answers by hundreds of their status.
    pub upstream_rq_xx: [AtomicU64; 6],
    /// Endpoints put aside.
    pub outlier_ejections: AtomicU64,
}

impl Totals {
    /// One more.
    pub fn inc(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// An answer with this status.
    pub fn status(&self, code: u16) {
        if let Some(counter) = self.upstream_rq_xx.get(usize::from(code / 100)) {
            Self::inc(counter);
        }
    }
}

/// One unit of something that is limited; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    usage: Arc<Usage>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Pending,
    Request,
    Retry,
}

impl Usage {
    pub(crate) fn carry_over(previous: Option<&Arc<Self>>, _cluster: &Cluster) -> Arc<Self> {
        // The limits themselves are read from the cluster at each use, so a change of limits needs no new counters.
        previous.map_or_else(Arc::default, Arc::clone)
    }

    fn counter(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Pending => &self.pending,
            Kind::Request => &self.requests,
            Kind::Retry => &self.retries,
        }
    }

    fn acquire(self: &Arc<Self>, kind: Kind, limit: u32) -> Option<Permit> {
        let counter = self.counter(kind);
        if limit == u32::MAX {
            counter.fetch_add(1, Relaxed);
        } else {
            counter.fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1)).ok()?;
        }
        Some(Permit { usage: Arc::clone(self), kind })
    }

    /// Connections now.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// A connection within `limit`.
    pub(crate) fn connection(self: &Arc<Self>, limit: u32) -> Option<Permit> {
        self.acquire(Kind::Connection, limit)
    }

    /// A connection whatever the limit: an endpoint may always have one.
    pub(crate) fn first_connection(self: &Arc<Self>) -> Permit {
        self.connections.fetch_add(1, Relaxed);
        Permit { usage: Arc::clone(self), kind: Kind::Connection }
    }

    /// A request that waits for a connection.
    pub(crate) fn pending(self: &Arc<Self>, limit: u32) -> Option<Permit> {
        self.acquire(Kind::Pending, limit)
    }

    /// A request under way.
    pub(crate) fn request(self: &Arc<Self>, limit: u32) -> Option<Permit> {
        self.acquire(Kind::Request, limit)
    }

    /// A retry under way, within the number or the budget.
    pub(crate) fn retry(self: &Arc<Self>, thresholds: &Thresholds) -> Option<Permit> {
        let limit = match thresholds.retry_budget {
            None => thresholds.max_retries,
            Some(budget) => {
                let active = self.requests.load(Relaxed) + self.pending.load(Relaxed);
                // Saturating by definition of `as` for floats.
                let share = (f64::from(active) * budget.percent / 100.0) as u32;
                share.max(budget.min_concurrency)
            }
        };
        self.acquire(Kind::Retry, limit)
    }

    /// Connections, waiting requests, requests and retries at this moment.
    pub fn now(&self) -> [u32; 4] {
        [&self.connections, &self.pending, &self.requests, &self.retries].map(|counter| counter.load(Relaxed))
    }

    /// Wakes `waker` once a connection is given back or becomes idle.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut waiters = self.waiters.lock();
        waiters.push(waker.clone());
        self.waiting.store(u32::try_from(waiters.len()).unwrap_or(u32::MAX), Relaxed);
    }

    /// A connection is free: requests that wait for one look again.
    pub(crate) fn released(&self) {
        if self.waiting.load(Relaxed) == 0 {
            return;
        }
        let waiters = {
            let mut waiters = self.waiters.lock();
            self.waiting.store(0, Relaxed);
            std::mem::take(&mut *waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.usage.counter(self.kind).fetch_sub(1, Relaxed);
        if self.kind == Kind::Connection {
            self.usage.released();
        }
    }
}
