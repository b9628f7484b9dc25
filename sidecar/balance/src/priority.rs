//! Which priority and locality a request goes to, by the share of endpoints in service.

use crate::host::Host;
use sidecar_model::cluster::LocalityLb;

/// Hosts of one locality, as indexes into the balancer's list.
#[derive(Debug)]
pub(crate) struct LocalityGroup {
    pub(crate) weight: Option<u32>,
    pub(crate) hosts: Vec<u32>,
}

/// Hosts of one priority.
#[derive(Debug, Default)]
pub(crate) struct PriorityGroup {
    pub(crate) localities: Vec<LocalityGroup>,
    pub(crate) hosts: Vec<u32>,
}

/// Whether only endpoints in service count, or all because too few are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Normal,
    Panic,
}

impl PriorityGroup {
    fn in_service(&self, all: &[Host], now_ms: u64) -> usize {
        self.hosts.iter().filter(|i| all[**i as usize].available(now_ms)).count()
    }
}

/// Chooses the priority. Each takes `health × overprovisioning` of what those before it left over (Envoy, "Priority levels").
pub(crate) fn choose(
    groups: &[PriorityGroup],
    all: &[Host],
    rules: &LocalityLb,
    overprovisioning: u32,
    now_ms: u64,
    random: u64,
) -> Option<(usize, Mode)> {
    let health: Vec<u64> = groups
        .iter()
        .map(|group| {
            if group.hosts.is_empty() {
                0
            } else {
                (group.in_service(all, now_ms) as u64 * u64::from(overprovisioning)
                    / group.hosts.len() as u64)
                    .min(100)
            }
        })
        .collect();
    let total: u64 = health.iter().sum::<u64>().min(100);
    if total == 0 {
        // Nobody serves: the first priority that has endpoints, in panic if that is allowed.
        let first = groups.iter().position(|group| !group.hosts.is_empty())?;
        return (rules.healthy_panic_percent > 0).then_some((first, Mode::Panic));
    }
    let mut left = random % total;
    for (index, share) in health.iter().enumerate() {
        if left < *share {
            let group = &groups[index];
            let percent = group.in_service(all, now_ms) * 100 / group.hosts.len().max(1);
            // Panic only when the priorities together cannot carry the load.
            let panic = total < 100 && percent < usize::from(rules.healthy_panic_percent);
            return Some((index, if panic { Mode::Panic } else { Mode::Normal }));
        }
        left -= share;
    }
    None
}

/// Chooses a locality of a priority by weight and health; `None`: all its hosts alike.
pub(crate) fn choose_locality<'a>(
    group: &'a PriorityGroup,
    all: &[Host],
    mode: Mode,
    overprovisioning: u32,
    now_ms: u64,
    random: u64,
) -> Option<&'a [u32]> {
    let effective = |locality: &LocalityGroup| -> u64 {
        let weight = u64::from(locality.weight.unwrap_or(0));
        if mode == Mode::Panic {
            return weight * 100;
        }
        let serving = locality.hosts.iter().filter(|i| all[**i as usize].available(now_ms)).count() as u64;
        weight * (serving * u64::from(overprovisioning) / (locality.hosts.len() as u64).max(1)).min(100)
    };
    let total: u64 = group.localities.iter().map(effective).sum();
    if total == 0 {
        return None;
    }
    let mut left = random % total;
    for locality in &group.localities {
        let share = effective(locality);
        if left < share {
            return Some(&locality.hosts);
        }
        left -= share;
    }
    None
}
