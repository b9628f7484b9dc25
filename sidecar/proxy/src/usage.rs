//! What is under way in a cluster, shared by all workers: circuit breakers read it, statistics show it.

use std::collections::VecDeque;
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
    waiters: Mutex<VecDeque<(u64, Waker)>>,
    next_waiter: AtomicU64,
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
    /// Requests dropped because the control plane wants it.
    pub upstream_rq_drop_overload: AtomicU64,
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

    /// A place in the queue of those that wait for a connection.
    pub(crate) fn queue(self: &Arc<Self>) -> Waiting {
        Waiting { usage: Arc::clone(self), place: None, served: false }
    }

    /// A connection is free: the request that waits longest looks again.
    pub(crate) fn released(&self) {
        if self.waiting.load(Relaxed) == 0 {
            return;
        }
        let first = {
            let mut waiters = self.waiters.lock();
            let first = waiters.pop_front();
            self.count(&waiters);
            first
        };
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    fn count(&self, waiters: &VecDeque<(u64, Waker)>) {
        self.waiting.store(u32::try_from(waiters.len()).unwrap_or(u32::MAX), Relaxed);
    }
}

/// A request in the queue for a connection. Dropped unserved it passes on what it was woken for.
pub(crate) struct Waiting {
    usage: Arc<Usage>,
    place: Option<u64>,
    served: bool,
}

impl Waiting {
    /// Takes or keeps a place: at the end at first, in front again when it was woken in vain.
    pub(crate) fn register(&mut self, waker: &Waker) {
        let mut waiters = self.usage.waiters.lock();
        match self.place {
            None => {
                let place = self.usage.next_waiter.fetch_add(1, Relaxed);
                self.place = Some(place);
                waiters.push_back((place, waker.clone()));
            }
            Some(place) => match waiters.iter_mut().find(|(other, _)| *other == place) {
                Some((_, known)) => known.clone_from(waker),
                None => waiters.push_front((place, waker.clone())),
            },
        }
        self.usage.count(&waiters);
    }

    /// There is a connection: nobody needs to be woken for this one.
    pub(crate) fn serve(&mut self) {
        self.served = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let was_woken = {
            let mut waiters = self.usage.waiters.lock();
            let before = waiters.len();
            waiters.retain(|(other, _)| *other != place);
            self.usage.count(&waiters);
            waiters.len() == before
        };
        if was_woken && !self.served {
            self.usage.released();
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn the_longest_waiting_is_woken_and_a_wake_is_never_lost() {
        let usage = Arc::new(Usage::default());
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let counts = || (first.0.load(Relaxed), second.0.load(Relaxed));
        let (mut one, mut two) = (usage.queue(), usage.queue());
        one.register(&Waker::from(Arc::clone(&first)));
        one.register(&Waker::from(Arc::clone(&first)));
        two.register(&Waker::from(Arc::clone(&second)));
        drop(usage.first_connection());
        assert_eq!(counts(), (1, 0));
        one.register(&Waker::from(Arc::clone(&first)));
        usage.released();
        assert_eq!(counts(), (2, 0), "woken in vain, it is in front again");
        drop(one);
        assert_eq!(counts(), (2, 1), "it goes away and passes the wake on");
        two.serve();
        drop(two);
        assert_eq!(usage.waiting.load(Relaxed), 0);
        usage.released();
        assert_eq!(counts(), (2, 1));
    }
}
