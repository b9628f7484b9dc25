//! Hosts that are balanced among together: those of a cluster, or those of a subset of it.

use crate::host::Host;
use crate::policy::{Draw, Policy};
use crate::priority::{LocalityGroup, Mode, Pool, PriorityGroup, Situation};
use rand::Rng;
use sidecar_model::Address;
use sidecar_model::cluster::{LbPolicy, LocalityLb, SlowStart};
use std::collections::BTreeMap;

/// Hosts by priority and locality, with the policy's tables over them.
#[derive(Debug)]
pub(crate) struct Set {
    priorities: Vec<PriorityGroup>,
    policy: Policy,
    locality: LocalityLb,
}

/// What a choice in a set depends on.
pub(crate) struct Choice<'h, 'a> {
    pub(crate) situation: Situation<'h, 'a>,
    /// All hosts are known to be healthy: none needs to be looked at.
    pub(crate) calm: bool,
    pub(crate) slow_start: Option<&'a SlowStart>,
    pub(crate) hash: Option<u64>,
    pub(crate) previous: &'a [Address],
}

/// Where each host stands: priority, then position and weight of its locality.
pub(crate) type Place = (u32, usize, Option<u32>);

impl Set {
    /// `members` are indexes into `hosts` and `places`, which are parallel.
    pub(crate) fn new(
        lb: &LbPolicy,
        locality: LocalityLb,
        hosts: &[Host],
        places: &[Place],
        members: impl Iterator<Item = u32>,
    ) -> Self {
        let mut by_priority: BTreeMap<u32, BTreeMap<usize, LocalityGroup>> = BTreeMap::new();
        for index in members {
            let (priority, position, weight) = places[index as usize];
            let group = by_priority.entry(priority).or_default().entry(position);
            group.or_insert_with(|| LocalityGroup { weight, pool: Pool::default() }).pool.hosts.push(index);
        }
        let priorities: Vec<PriorityGroup> = by_priority
            .into_iter()
            .map(|(priority, localities)| PriorityGroup::new(priority, localities.into_values(), hosts))
            .collect();
        let policy = Policy::new(lb, &priorities, hosts, locality.weighted_localities);
        Self { priorities, policy, locality }
    }

    /// The host for one attempt; `None` when none serves.
    pub(crate) fn pick<'h>(&self, choice: &Choice<'h, '_>, rng: &mut impl Rng) -> Option<&'h Host> {
        let situation = &choice.situation;
        let (hosts, now_ms) = (situation.hosts, situation.now_ms);
        let random = choice.hash.unwrap_or_else(|| rng.random());
        let (priority, mode) = if choice.calm {
            (0, Mode::Healthy)
        } else {
            // The lower bits choose within the priority.
            situation.choose(&self.priorities, random.rotate_right(32))?
        };
        let group = self.priorities.get(priority)?;
        let weighted = self.locality.weighted_localities && !self.policy.hashes();
        let pool = if weighted {
            situation.choose_locality(group, mode, rng.random()).unwrap_or(&group.pool)
        } else {
            &group.pool
        };
        let draw = Draw { hosts, priority, pool, hash: random, slow_start: choice.slow_start, now_ms };
        let fits = |host: &Host| choice.calm || mode.fits(host, now_ms);
        let fresh = |host: &Host| !choice.previous.contains(&host.endpoint.address);
        let mut second_best = None;
        for look in 0..self.policy.looks_max(priority) {
            let host = &hosts[self.policy.propose(&draw, look, rng)? as usize];
            if fits(host) {
                if fresh(host) {
                    return Some(host);
                }
                second_best.get_or_insert(host);
            }
        }
        // Chance did not find one: look through all, from a chance beginning.
        let start = (random % pool.hosts.len().max(1) as u64) as usize;
        let (before, behind) = pool.hosts.split_at(start);
        let mut rest =
            behind.iter().chain(before).map(|index| &hosts[*index as usize]).filter(|host| fits(host));
        rest.clone().find(|host| fresh(host)).or(second_best).or_else(|| rest.next())
    }
}

impl Pool {
    fn new(hosts: Vec<u32>, all: &[Host]) -> Self {
        let weight = |index: &u32| all[*index as usize].endpoint.weight;
        let uniform = hosts.windows(2).all(|pair| weight(&pair[0]) == weight(&pair[1]));
        Self { hosts, uniform }
    }
}

impl PriorityGroup {
    fn new(priority: u32, localities: impl Iterator<Item = LocalityGroup>, all: &[Host]) -> Self {
        let localities: Vec<LocalityGroup> =
            localities.map(|one| LocalityGroup { pool: Pool::new(one.pool.hosts, all), ..one }).collect();
        let hosts = localities.iter().flat_map(|one| one.pool.hosts.iter().copied()).collect();
        Self { priority, localities, pool: Pool::new(hosts, all) }
    }
}
