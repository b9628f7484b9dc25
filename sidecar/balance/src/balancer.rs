//! The balancer of one cluster: immutable lists over shared host states.

use crate::{
    ewma,
    host::{Host, HostState},
    outlier::{self, Ejection, Outcome, Review},
    priority::Situation,
    set::{Choice, Place, Set},
    subset::Subsets,
};
use rand::Rng;
use sidecar_model::{
    Address, Cluster, Endpoints, Health, Metadata,
    cluster::{LbPolicy, LocalityLb, OutlierDetection, PeakEwma, SlowStart},
};
use std::{
    collections::HashMap,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Chooses endpoints of one cluster. Build a new one whenever the cluster or its endpoints change; states carry over.
#[derive(Debug)]
pub struct Balancer {
    hosts: Vec<Host>,
    all: Set,
    subsets: Option<Subsets>,
    locality: LocalityLb,
    overprovisioning: u32,
    outlier: Option<OutlierDetection>,
    slow_start: Option<SlowStart>,
    ewma: Option<PeakEwma>,
    /// Configuration alone puts no host aside.
    all_healthy: bool,
    trouble: Arc<Trouble>,
}

/// What lets a pick see at a glance that every host is well; shared by all balancers that a cluster had.
#[derive(Debug, Default)]
struct Trouble {
    /// End of the ejection that ends last, in milliseconds.
    ejected_until_ms: AtomicU64,
    /// Some host fails its checks.
    failing: AtomicBool,
    /// End of the slow start that ends last.
    warm_ms: AtomicU64,
    review: Review,
}

/// What a pick depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickContext<'a> {
    /// The hash of the request, for consistent hashing.
    pub hash: Option<u64>,
    /// Endpoints tried before: avoided if another can be found.
    pub previous: &'a [Address],
    /// Priorities that are not wanted, if others serve.
    pub excluded: &'a [u32],
    /// Labels under `envoy.lb` that the endpoint must have, where the cluster has subsets; the first to name a label counts.
    pub metadata: [Option<&'a Metadata>; 2],
    /// Milliseconds of the clock that every call to this cluster uses.
    pub now_ms: u64,
}

// === impl Balancer ===

impl Balancer {
    /// Endpoints that `previous` had keep their states; others are new at `now_ms`.
    #[must_use]
    pub fn new(cluster: &Cluster, endpoints: &Endpoints, previous: Option<&Self>, now_ms: u64) -> Self {
        let mut known: HashMap<&Address, &Arc<HostState>> = HashMap::new();
        if let Some(previous) = previous {
            known.extend(previous.hosts.iter().map(|host| (&host.endpoint.address, &host.state)));
        }
        let (mut hosts, mut places): (Vec<Host>, Vec<Place>) =
            (Vec::with_capacity(endpoints.len()), Vec::with_capacity(endpoints.len()));
        for (position, locality) in endpoints.localities.iter().enumerate() {
            for endpoint in &locality.endpoints {
                let kept = known.get(&endpoint.address).map(|state| Arc::clone(state));
                let state = kept.unwrap_or_else(|| {
                    // As in Envoy, an endpoint that is to be checked does not serve until it has passed.
                    Arc::new(HostState::new(now_ms, !cluster.health_checks.is_empty()))
                });
                if cluster.health_checks.is_empty() {
                    state.set_failed_check(false, now_ms);
                }
                hosts.push(Host {
                    endpoint: endpoint.clone(),
                    locality: locality.locality.clone(),
                    priority: locality.priority,
                    state,
                });
                places.push((locality.priority, position, locality.weight));
            }
        }
        let members = 0..u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        let (slow_start, ewma) = match &cluster.lb {
            LbPolicy::RoundRobin { slow_start } | LbPolicy::LeastRequest { slow_start, .. } => {
                (*slow_start, None)
            }
            LbPolicy::PeakEwma(rules) => (None, Some(*rules)),
            _ => (None, None),
        };
        let factor = endpoints.overprovisioning_percent;
        let balancer = Self {
            all: Set::new(&cluster.lb, cluster.locality_lb, &hosts, &places, members),
            subsets: Subsets::new(cluster, &hosts, &places),
            locality: cluster.locality_lb,
            overprovisioning: factor.unwrap_or(cluster.locality_lb.overprovisioning_percent).max(100),
            outlier: cluster.outlier.clone(),
            slow_start,
            ewma,
            all_healthy: hosts
                .iter()
                .all(|host| host.endpoint.health.is_available() && host.endpoint.health != Health::Degraded),
            trouble: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.trouble)),
            hosts,
        };
        balancer.refresh();
        balancer
    }

    /// Takes note of what health checks found: to be called after the states of hosts were changed from outside.
    pub fn refresh(&self) {
        let trouble = &self.trouble;
        trouble.failing.store(self.hosts.iter().any(|host| host.state.failed_check()), Relaxed);
        let ejected = self.hosts.iter().map(|host| host.state.ejected_until_ms.load(Relaxed)).max();
        trouble.ejected_until_ms.fetch_max(ejected.unwrap_or(0), Relaxed);
        if let Some(rules) = &self.slow_start {
            let newest = self.hosts.iter().map(|host| host.state.since_ms()).max().unwrap_or(0);
            trouble.warm_ms.store(newest.saturating_add(millis(rules.window)), Relaxed);
        }
    }

    /// All endpoints, in or out of service.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The endpoint for one attempt; `None` when none serves.
    pub fn pick(&self, context: &PickContext<'_>, rng: &mut impl Rng) -> Option<&Host> {
        let now_ms = context.now_ms;
        let set = match &self.subsets {
            None => &self.all,
            Some(subsets) => subsets.find(context.metadata, &self.all)?,
        };
        let trouble = &self.trouble;
        let calm = self.all_healthy
            && context.excluded.is_empty()
            && trouble.ejected_until_ms.load(Relaxed) <= now_ms
            && !trouble.failing.load(Relaxed);
        let choice = Choice {
            situation: Situation {
                hosts: &self.hosts,
                rules: &self.locality,
                overprovisioning: self.overprovisioning,
                now_ms,
                excluded: context.excluded,
            },
            calm,
            slow_start: self.slow_start.as_ref().filter(|_| trouble.warm_ms.load(Relaxed) > now_ms),
            hash: context.hash,
            previous: context.previous,
        };
        set.pick(&choice, rng)
    }

    /// Tells how a request to `host` ended. `ejected` hears of every endpoint that is put aside now, this one or others.
    pub fn report(
        &self,
        host: &HostState,
        outcome: Outcome,
        now_ms: u64,
        rng: &mut impl Rng,
        mut ejected: impl FnMut(&Host, Ejection),
    ) {
        let Some(rules) = &self.outlier else { return };
        let mut noted = |host: &Host, ejection: Ejection| {
            self.trouble.ejected_until_ms.fetch_max(ejection.until_ms, Relaxed);
            ejected(host, ejection);
        };
        outlier::report(rules, &self.hosts, host, outcome, now_ms, rng, &mut noted);
        if self.trouble.review.is_due(rules, now_ms) {
            outlier::review(rules, &self.hosts, now_ms, rng, &mut noted);
        }
    }

    /// Whether [`Self::observe`] changes what is chosen.
    #[must_use]
    pub fn wants_latency(&self) -> bool {
        self.ewma.is_some()
    }

    /// Tells how long a response took; `None`: there was none.
    pub fn observe(&self, host: &HostState, took: Option<Duration>, now_ms: u64) {
        if let Some(rules) = &self.ewma {
            ewma::observe(rules, host, took, now_ms);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
