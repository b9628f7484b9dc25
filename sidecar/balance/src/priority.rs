//! Which priority and locality a request goes to, by the share of endpoints in service.

use crate::host::{Host, Tier};
use sidecar_model::cluster::LocalityLb;

/// Hosts that are chosen among together, as indexes into the balancer's list.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) hosts: Vec<u32>,
    /// All have the same weight.
    pub(crate) uniform: bool,
}

/// Hosts of one locality.
#[derive(Debug)]
pub(crate) struct LocalityGroup {
    pub(crate) weight: Option<u32>,
    pub(crate) pool: Pool,
}

/// Hosts of one priority.
#[derive(Debug, Default)]
pub(crate) struct PriorityGroup {
    pub(crate) priority: u32,
    pub(crate) localities: Vec<LocalityGroup>,
    pub(crate) pool: Pool,
}

/// Which endpoints of a priority count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Healthy,
    Degraded,
    /// All, because too few are in service.
    Panic,
}

/// What the choice depends on.
pub(crate) struct Situation<'h, 'a> {
    pub(crate) hosts: &'h [Host],
    pub(crate) rules: &'a LocalityLb,
    /// 100 × factor.
    pub(crate) overprovisioning: u32,
    pub(crate) now_ms: u64,
    /// Priorities that are not wanted, if there are others.
    pub(crate) excluded: &'a [u32],
}

/// Shares of one priority in percent.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    healthy: u64,
    degraded: u64,
    panic: bool,
    empty: bool,
}

impl Mode {
    pub(crate) fn fits(self, host: &Host, now_ms: u64) -> bool {
        match self {
            Self::Healthy => host.tier(now_ms) == Tier::Healthy,
            Self::Degraded => host.tier(now_ms) == Tier::Degraded,
            Self::Panic => true,
        }
    }
}

impl Situation<'_, '_> {
    /// Healthy and degraded hosts of a pool.
    fn count(&self, pool: &Pool) -> (u64, u64) {
        let tier = |index: &u32| self.hosts[*index as usize].tier(self.now_ms);
        pool.hosts.iter().map(tier).fold((0, 0), |(healthy, degraded), tier| match tier {
            Tier::Healthy => (healthy + 1, degraded),
            Tier::Degraded => (healthy, degraded + 1),
            Tier::Unavailable => (healthy, degraded),
        })
    }

    fn availability(&self, group: &PriorityGroup, exclude: bool) -> Load {
        let total = group.pool.hosts.len() as u64;
        if total == 0 || (exclude && self.excluded.contains(&group.priority)) {
            return Load { empty: true, ..Load::default() };
        }
        let (healthy, degraded) = self.count(&group.pool);
        let share = |count: u64| (count * u64::from(self.overprovisioning) / total).min(100);
        Load {
            healthy: share(healthy),
            degraded: share(degraded),
            panic: (healthy + degraded) * 100 / total < u64::from(self.rules.healthy_panic_percent),
            empty: false,
        }
    }

    /// Chooses the priority. Each takes `health × overprovisioning` of what those before it left over, first by healthy endpoints,
    /// then by degraded ones (Envoy, "Priority levels", "Degraded endpoints", "Panic threshold").
    pub(crate) fn choose(&self, groups: &[PriorityGroup], random: u64) -> Option<(usize, Mode)> {
        let mut loads: Vec<Load> = groups.iter().map(|group| self.availability(group, true)).collect();
        let available = |loads: &[Load]| loads.iter().map(|load| load.healthy + load.degraded).sum::<u64>();
        if !self.excluded.is_empty() && available(&loads) == 0 {
            loads = groups.iter().map(|group| self.availability(group, false)).collect();
        }
        let total = available(&loads).min(100);
        // Panic only when the priorities together cannot carry the load.
        let panics = |load: &Load| total < 100 && load.panic;
        if loads.iter().all(|load| load.empty || panics(load)) {
            return self.in_total_panic(groups, &loads, random);
        }
        if total == 0 {
            return None;
        }
        let mut left = random % total;
        for mode in [Mode::Healthy, Mode::Degraded] {
            for (index, load) in loads.iter().enumerate() {
                let share = if mode == Mode::Healthy { load.healthy } else { load.degraded };
                if left < share {
                    return Some((index, if panics(load) { Mode::Panic } else { mode }));
                }
                left -= share;
            }
        }
        None
    }

    /// Every priority panics: each gets what its number of hosts says.
    fn in_total_panic(&self, groups: &[PriorityGroup], loads: &[Load], random: u64) -> Option<(usize, Mode)> {
        let hosts = |index: usize| if loads[index].empty { 0 } else { groups[index].pool.hosts.len() as u64 };
        let total: u64 = (0..groups.len()).map(hosts).sum();
        let mut left = random.checked_rem(total)?;
        (0..groups.len()).find_map(|index| {
            let share = hosts(index);
            let here = left < share;
            left = left.saturating_sub(share);
            here.then_some((index, Mode::Panic))
        })
    }

    /// Chooses a locality of a priority by weight and health; `None`: all its hosts alike.
    pub(crate) fn choose_locality<'g>(
        &self,
        group: &'g PriorityGroup,
        mode: Mode,
        random: u64,
    ) -> Option<&'g Pool> {
        let effective = |locality: &LocalityGroup| -> u64 {
            let weight = u64::from(locality.weight.unwrap_or(0));
            let (healthy, degraded) = self.count(&locality.pool);
            let serving = match mode {
                Mode::Panic => return weight * 100,
                Mode::Healthy => healthy,
                Mode::Degraded => degraded,
            };
            let total = (locality.pool.hosts.len() as u64).max(1);
            weight * (serving * u64::from(self.overprovisioning) / total).min(100)
        };
        let total: u64 = group.localities.iter().map(effective).sum();
        let mut left = random.checked_rem(total)?;
        for locality in &group.localities {
            let share = effective(locality);
            if left < share {
                return Some(&locality.pool);
            }
            left -= share;
        }
        None
    }
}
