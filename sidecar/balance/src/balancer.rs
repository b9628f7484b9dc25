//! The balancer of one cluster: immutable lists over shared host states.

use crate::{
    host::{Host, HostState},
    maglev::Maglev,
    outlier::{self, Ejection, Outcome},
    priority::{LocalityGroup, Mode, PriorityGroup, choose, choose_locality},
    ring::Ring,
};
use rand::Rng;
use sidecar_model::{
    Address, Cluster, Endpoints,
    cluster::{LbPolicy, LocalityLb, OutlierDetection},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// How often another endpoint is looked for when the first choice is out of service or was tried before.
const LOOKS_MAX: usize = 8;

/// Chooses endpoints of one cluster. Build a new one whenever the cluster or its endpoints change; states carry over.
#[derive(Debug)]
pub struct Balancer {
    hosts: Vec<Host>,
    priorities: Vec<PriorityGroup>,
    policy: Policy,
    locality: LocalityLb,
    overprovisioning: u32,
    outlier: Option<OutlierDetection>,
    turn: AtomicUsize,
}

#[derive(Debug)]
enum Policy {
    RoundRobin,
    LeastRequest {
        choices: u32,
    },
    Random,
    /// One ring for each priority.
    Ring(Vec<Ring>),
    /// One table for each priority.
    Maglev(Vec<Maglev>),
}

/// What a pick depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickContext<'a> {
    /// The hash of the request, for consistent hashing.
    pub hash: Option<u64>,
    /// Endpoints tried before: avoided if another can be found.
    pub previous: &'a [Address],
    /// Milliseconds of the clock that every call to this cluster uses.
    pub now_ms: u64,
}

// === impl Balancer ===

impl Balancer {
    /// Endpoints that `previous` had keep their states.
    #[must_use]
    pub fn new(cluster: &Cluster, endpoints: &Endpoints, previous: Option<&Self>) -> Self {
        let mut known: HashMap<&Address, &Arc<HostState>> = HashMap::new();
        if let Some(previous) = previous {
            known.extend(previous.hosts.iter().map(|host| (&host.endpoint.address, &host.state)));
        }
        let (mut hosts, mut by_priority) =
            (Vec::with_capacity(endpoints.len()), BTreeMap::<u32, PriorityGroup>::new());
        for locality in &endpoints.localities {
            let group = by_priority.entry(locality.priority).or_default();
            let mut indexes = Vec::with_capacity(locality.endpoints.len());
            for endpoint in &locality.endpoints {
                indexes.push(u32::try_from(hosts.len()).unwrap_or(u32::MAX));
                let state = known.get(&endpoint.address).map_or_else(Arc::default, |state| Arc::clone(state));
                hosts.push(Host { endpoint: endpoint.clone(), locality: locality.locality.clone(), state });
            }
            group.hosts.extend(&indexes);
            group.localities.push(LocalityGroup { weight: locality.weight, hosts: indexes });
        }
        let priorities: Vec<PriorityGroup> = by_priority.into_values().collect();
        let policy = Policy::new(&cluster.lb, &priorities, &hosts);
        let overprovisioning = endpoints
            .overprovisioning_percent
            .unwrap_or(cluster.locality_lb.overprovisioning_percent)
            .max(100);
        Self {
            hosts,
            priorities,
            policy,
            locality: cluster.locality_lb,
            overprovisioning,
            outlier: cluster.outlier.clone(),
            turn: AtomicUsize::new(0),
        }
    }

    /// All endpoints, in or out of service.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The endpoint for one attempt; `None` when none serves.
    pub fn pick(&self, context: &PickContext<'_>, rng: &mut impl Rng) -> Option<&Host> {
        let random = context.hash.unwrap_or_else(|| rng.random());
        let (priority, mode) = choose(
            &self.priorities,
            &self.hosts,
            &self.locality,
            self.overprovisioning,
            context.now_ms,
            random,
        )?;
        let group = &self.priorities[priority];
        let pool = if self.locality.weighted_localities {
            choose_locality(group, &self.hosts, mode, self.overprovisioning, context.now_ms, rng.random())
                .unwrap_or(&group.hosts)
        } else {
            &group.hosts
        };
        let fits = |host: &Host| mode == Mode::Panic || host.available(context.now_ms);
        let fresh = |host: &Host| !context.previous.contains(&host.endpoint.address);
        let mut second_best = None;
        for look in 0..LOOKS_MAX {
            let Some(host) =
                self.propose(priority, pool, context.hash, look, rng).map(|i| &self.hosts[i as usize])
            else {
                break;
            };
            if fits(host) {
                if fresh(host) {
                    return Some(host);
                }
                second_best.get_or_insert(host);
            }
        }
        // Chance did not find one: look through all, from a chance beginning.
        let start = rng.random_range(0..pool.len().max(1));
        let mut rest = pool
            .iter()
            .cycle()
            .skip(start)
            .take(pool.len())
            .map(|i| &self.hosts[*i as usize])
            .filter(|h| fits(h));
        rest.clone().find(|h| fresh(h)).or(second_best).or_else(|| rest.next())
    }

    /// Tells how a request to `host` ended. Returns the ejection when this made the host be ejected.
    pub fn report(
        &self,
        host: &HostState,
        outcome: Outcome,
        now_ms: u64,
        rng: &mut impl Rng,
    ) -> Option<Ejection> {
        let rules = self.outlier.as_ref()?;
        outlier::report(rules, &self.hosts, host, outcome, now_ms, rng.random_range(0..100))
    }

    fn propose(
        &self,
        priority: usize,
        pool: &[u32],
        hash: Option<u64>,
        look: usize,
        rng: &mut impl Rng,
    ) -> Option<u32> {
        match &self.policy {
            Policy::RoundRobin => self.in_turn(pool, rng),
            Policy::Random => self.by_chance(pool, rng),
            Policy::LeastRequest { choices } => self.least_busy(pool, *choices, rng),
            Policy::Ring(rings) => rings.get(priority)?.get(hash.unwrap_or_else(|| rng.random()), look),
            Policy::Maglev(tables) => tables.get(priority)?.get(hash.unwrap_or_else(|| rng.random()), look),
        }
    }

    fn in_turn(&self, pool: &[u32], rng: &mut impl Rng) -> Option<u32> {
        if self.weights_differ(pool) {
            return self.by_chance(pool, rng);
        }
        (!pool.is_empty()).then(|| pool[self.turn.fetch_add(1, Relaxed) % pool.len()])
    }

    fn by_chance(&self, pool: &[u32], rng: &mut impl Rng) -> Option<u32> {
        if pool.is_empty() {
            return None;
        }
        if !self.weights_differ(pool) {
            return Some(pool[rng.random_range(0..pool.len())]);
        }
        let total: u64 = pool.iter().map(|i| self.weight(*i)).sum();
        let mut left = rng.random_range(0..total.max(1));
        for index in pool {
            let weight = self.weight(*index);
            if left < weight {
                return Some(*index);
            }
            left -= weight;
        }
        pool.last().copied()
    }

    /// The least busy of some drawn by chance, by requests under way.
    fn least_busy(&self, pool: &[u32], choices: u32, rng: &mut impl Rng) -> Option<u32> {
        let mut best = self.by_chance(pool, rng)?;
        for _ in 1..choices.max(2) {
            let other = self.by_chance(pool, rng)?;
            if self.hosts[other as usize].state.active() < self.hosts[best as usize].state.active() {
                best = other;
            }
        }
        Some(best)
    }

    fn weight(&self, index: u32) -> u64 {
        u64::from(self.hosts[index as usize].endpoint.weight)
    }

    fn weights_differ(&self, pool: &[u32]) -> bool {
        pool.windows(2).any(|pair| self.weight(pair[0]) != self.weight(pair[1]))
    }
}

impl Policy {
    fn new(lb: &LbPolicy, priorities: &[PriorityGroup], hosts: &[Host]) -> Self {
        let named = |group: &PriorityGroup| -> Vec<(u32, String, u32)> {
            let name = |i: u32| hosts[i as usize].endpoint.address.to_string();
            group.hosts.iter().map(|i| (*i, name(*i), hosts[*i as usize].endpoint.weight)).collect()
        };
        match lb {
            LbPolicy::RoundRobin { .. } => Self::RoundRobin,
            LbPolicy::LeastRequest { choices, .. } => Self::LeastRequest { choices: *choices },
            LbPolicy::Random | LbPolicy::ClusterProvided => Self::Random,
            LbPolicy::RingHash { ring_size_min, ring_size_max, .. } => Self::Ring(
                priorities
                    .iter()
                    .map(|group| Ring::new(&named(group), *ring_size_min, *ring_size_max))
                    .collect(),
            ),
            LbPolicy::Maglev { table_size, .. } => {
                Self::Maglev(priorities.iter().map(|group| Maglev::new(&named(group), *table_size)).collect())
            }
        }
    }
}
