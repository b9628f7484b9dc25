//! Load balancing policies: which host of a pool is proposed.

use crate::ewma;
use crate::host::Host;
use crate::maglev::Maglev;
use crate::priority::{Pool, PriorityGroup};
use crate::ring::Ring;
use rand::Rng;
use sidecar_model::cluster::{LbPolicy, PeakEwma, SlowStart};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Weights of the weighted turn are scaled to this.
const STRIDE_MAX: u64 = 65_535;

/// How a host is chosen; with what had to be made for it.
#[derive(Debug)]
pub(crate) enum Policy {
    RoundRobin {
        turn: AtomicUsize,
    },
    LeastRequest {
        choices: u32,
        bias: f64,
    },
    Random,
    PeakEwma(PeakEwma),
    /// One ring for each priority.
    Ring(Vec<Ring>),
    /// One table for each priority.
    Maglev(Vec<Maglev>),
}

/// A host as hashing knows it.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) weight: f64,
}

/// What a proposal depends on.
pub(crate) struct Draw<'a> {
    pub(crate) hosts: &'a [Host],
    /// Position of the priority among the set's.
    pub(crate) priority: usize,
    pub(crate) pool: &'a Pool,
    pub(crate) hash: u64,
    /// Slow start, while some host is new.
    pub(crate) slow_start: Option<&'a SlowStart>,
    pub(crate) now_ms: u64,
}

impl Policy {
    pub(crate) fn new(
        lb: &LbPolicy,
        priorities: &[PriorityGroup],
        hosts: &[Host],
        by_locality: bool,
    ) -> Self {
        let named = |group: &PriorityGroup| named(group, hosts, by_locality);
        match lb {
            LbPolicy::RoundRobin { .. } => Self::RoundRobin { turn: AtomicUsize::new(0) },
            LbPolicy::LeastRequest { choices, active_request_bias, .. } => {
                Self::LeastRequest { choices: *choices, bias: *active_request_bias }
            }
            LbPolicy::Random | LbPolicy::ClusterProvided => Self::Random,
            LbPolicy::PeakEwma(rules) => Self::PeakEwma(*rules),
            LbPolicy::RingHash { ring_size_min, ring_size_max, hash } => {
                let ring = |group| Ring::new(&named(group), *ring_size_min, *ring_size_max, *hash);
                Self::Ring(priorities.iter().map(ring).collect())
            }
            LbPolicy::Maglev { table_size } => {
                let table = |group| Maglev::new(&named(group), *table_size);
                Self::Maglev(priorities.iter().map(table).collect())
            }
        }
    }

    /// Whether the same hash gives the same host.
    pub(crate) fn hashes(&self) -> bool {
        matches!(self, Self::Ring(_) | Self::Maglev(_))
    }

    /// How many looks are worth it until all hosts are gone through instead.
    pub(crate) fn looks_max(&self, priority: usize) -> usize {
        match self {
            // The places after the hash, so that what an ill host leaves behind is spread over all others.
            Self::Ring(rings) => rings.get(priority).map_or(0, |ring| ring.len().min(256)),
            Self::Maglev(_) => 64,
            _ => 8,
        }
    }

    pub(crate) fn propose(&self, draw: &Draw<'_>, look: usize, rng: &mut impl Rng) -> Option<u32> {
        match self {
            Self::RoundRobin { turn } => draw.in_turn(turn),
            Self::Random => draw.evenly(rng),
            Self::LeastRequest { choices, .. } if draw.uniform() => draw.least_busy(*choices, rng),
            Self::LeastRequest { bias, .. } => {
                draw.by_weight(rng, |host, weight| weight / f64::from(host.state.active() + 1).powf(*bias))
            }
            Self::PeakEwma(rules) => {
                draw.cheaper(rng, |host, weight| ewma::cost(rules, &host.state, weight, draw.now_ms))
            }
            Self::Ring(rings) => rings.get(draw.priority)?.get(draw.hash, look),
            Self::Maglev(tables) => tables.get(draw.priority)?.get(draw.hash, look),
        }
    }
}

impl Draw<'_> {
    fn uniform(&self) -> bool {
        self.pool.uniform && self.slow_start.is_none()
    }

    fn weight(&self, index: u32) -> f64 {
        let host = &self.hosts[index as usize];
        let weight = f64::from(host.endpoint.weight);
        match self.slow_start {
            None => weight,
            Some(rules) => weight * share(rules, self.now_ms.saturating_sub(host.state.since_ms())),
        }
    }

    /// Each in turn; with weights by strides: a host is passed over in the rounds that are not its own, without any state but the turn.
    fn in_turn(&self, turn: &AtomicUsize) -> Option<u32> {
        let hosts = &self.pool.hosts;
        if hosts.is_empty() {
            return None;
        }
        if self.uniform() {
            return Some(hosts[turn.fetch_add(1, Relaxed) % hosts.len()]);
        }
        let heaviest = hosts.iter().map(|index| self.weight(*index)).fold(0.0, f64::max);
        // The heaviest is never passed over: one round is enough.
        for _ in 0..hosts.len() {
            let now = turn.fetch_add(1, Relaxed);
            let (position, round) = (now % hosts.len(), (now / hosts.len()) as u64);
            let stride = (self.weight(hosts[position]) / heaviest * STRIDE_MAX as f64).ceil() as u64;
            // Hosts of equal weight take their turns in different rounds.
            let at = round.wrapping_mul(stride).wrapping_add(position as u64 * (STRIDE_MAX / 2)) % STRIDE_MAX;
            if at >= STRIDE_MAX.saturating_sub(stride) {
                return Some(hosts[position]);
            }
        }
        hosts.iter().copied().max_by(|a, b| self.weight(*a).total_cmp(&self.weight(*b)))
    }

    /// By chance, in proportion to the weights.
    fn evenly(&self, rng: &mut impl Rng) -> Option<u32> {
        let hosts = &self.pool.hosts;
        if self.pool.uniform {
            return (!hosts.is_empty()).then(|| hosts[rng.random_range(0..hosts.len())]);
        }
        self.by_weight(rng, |_, weight| weight)
    }

    fn by_weight(&self, rng: &mut impl Rng, weigh: impl Fn(&Host, f64) -> f64) -> Option<u32> {
        let weight = |index: u32| weigh(&self.hosts[index as usize], self.weight(index));
        let total: f64 = self.pool.hosts.iter().map(|index| weight(*index)).sum();
        let mut left = rng.random::<f64>() * total;
        for index in &self.pool.hosts {
            left -= weight(*index);
            if left < 0.0 {
                return Some(*index);
            }
        }
        self.pool.hosts.last().copied()
    }

    /// The least busy of some drawn by chance; one host may be drawn twice, as in Envoy.
    fn least_busy(&self, choices: u32, rng: &mut impl Rng) -> Option<u32> {
        let mut best = self.evenly(rng)?;
        let active = |index: u32| self.hosts[index as usize].state.active();
        for _ in 1..choices.max(2) {
            let other = self.evenly(rng)?;
            if active(other) < active(best) {
                best = other;
            }
        }
        Some(best)
    }

    /// The cheaper of two different ones drawn by chance.
    fn cheaper(&self, rng: &mut impl Rng, cost: impl Fn(&Host, f64) -> f64) -> Option<u32> {
        let hosts = &self.pool.hosts;
        if hosts.len() < 2 {
            return hosts.first().copied();
        }
        let first = rng.random_range(0..hosts.len());
        let second = (first + rng.random_range(1..hosts.len())) % hosts.len();
        let cost = |at: usize| cost(&self.hosts[hosts[at] as usize], self.weight(hosts[at]));
        Some(if cost(second) < cost(first) { hosts[second] } else { hosts[first] })
    }
}

/// The share of its weight that a host has after so long.
fn share(rules: &SlowStart, age_ms: u64) -> f64 {
    let window = rules.window.as_secs_f64() * 1e3;
    // Envoy lets the first moment count as one millisecond.
    let passed = age_ms.max(1) as f64 / window;
    if passed >= 1.0 { 1.0 } else { passed.powf(1.0 / rules.aggression).max(rules.weight_min) }
}

fn named(group: &PriorityGroup, hosts: &[Host], by_locality: bool) -> Vec<Named> {
    let named = |index: u32, factor: f64| {
        let endpoint = &hosts[index as usize].endpoint;
        Named { index, name: endpoint.address.to_string(), weight: f64::from(endpoint.weight) * factor }
    };
    if !by_locality {
        return group.pool.hosts.iter().map(|index| named(*index, 1.0)).collect();
    }
    // The locality's weight is shared by its hosts.
    let mut all = Vec::new();
    for locality in &group.localities {
        let total: f64 =
            locality.pool.hosts.iter().map(|i| f64::from(hosts[*i as usize].endpoint.weight)).sum();
        let factor = f64::from(locality.weight.unwrap_or(0)) / total.max(1.0);
        all.extend(
            locality.pool.hosts.iter().map(|index| named(*index, factor)).filter(|it| it.weight > 0.0),
        );
    }
    all
}
