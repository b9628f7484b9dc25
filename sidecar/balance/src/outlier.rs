//! Outlier detection: endpoints that fail are put aside for a while.
//!
//! Envoy's rules (`cluster.v3.OutlierDetection`): a count of failures in a row ejects at once; at every interval success rates are
//! compared, and failures in percent looked at. An ejection lasts `base × times ejected`, at most `max`, and some jitter more. No more than
//! `max_ejection_percent` of the endpoints are out at once, one always may where the rules say so. Ours in addition: never the last one.

use crate::host::{Host, HostState, Tier};
use rand::Rng;
use sidecar_model::cluster::OutlierDetection;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How a request to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with this HTTP status (gRPC statuses are mapped before).
    Status(u16),
    /// A TCP connection was made.
    Connected,
    /// No connection, a reset before the answer, or no answer in time.
    LocalFailure,
}

/// What made an endpoint be ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectionCause {
    /// 5xx answers, or failures taken as such.
    Consecutive5xx,
    /// 502, 503 and 504 answers.
    ConsecutiveGatewayFailure,
    /// Failures without an answer, when they are counted apart.
    ConsecutiveLocalOriginFailure,
    /// Far fewer successes than the others have.
    SuccessRate,
    /// The same, of connections.
    SuccessRateLocalOrigin,
    /// Too many failures among all answers.
    FailurePercentage,
    /// The same, of connections.
    FailurePercentageLocalOrigin,
}

/// An ejection that has just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: EjectionCause,
    /// Until when, in milliseconds.
    pub until_ms: u64,
}

/// Requests and successes of one endpoint in one interval.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    total: AtomicU32,
    good: AtomicU32,
}

/// When rates are compared next.
#[derive(Debug, Default)]
pub(crate) struct Review {
    due_ms: AtomicU64,
}

// === impl EjectionCause ===

impl EjectionCause {
    const ALL: [Self; 7] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayFailure,
        Self::ConsecutiveLocalOriginFailure,
        Self::SuccessRate,
        Self::SuccessRateLocalOrigin,
        Self::FailurePercentage,
        Self::FailurePercentageLocalOrigin,
    ];

    /// Envoy's name of the cause.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::SuccessRateLocalOrigin => "local_origin_success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::FailurePercentageLocalOrigin => "local_origin_failure_percentage",
        }
    }

    pub(crate) fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Consecutive5xx)
    }
}

// === impl Tally ===

impl Tally {
    fn add(&self, good: bool) {
        self.total.fetch_add(1, Relaxed);
        if good {
            self.good.fetch_add(1, Relaxed);
        }
    }

    /// Requests, and successes in percent, since the last time.
    fn take(&self) -> (u32, f64) {
        let (total, good) = (self.total.swap(0, Relaxed), self.good.swap(0, Relaxed));
        (total, f64::from(good.min(total)) * 100.0 / f64::from(total.max(1)))
    }
}

// === impl Review ===

impl Review {
    /// Whether rates are to be looked at now: true for one caller in each interval.
    pub(crate) fn is_due(&self, rules: &OutlierDetection, now_ms: u64) -> bool {
        let due = self.due_ms.load(Relaxed);
        if now_ms < due {
            return false;
        }
        let next = now_ms.saturating_add(millis(rules.interval).max(1));
        self.due_ms.compare_exchange(due, next, Relaxed, Relaxed).is_ok() && due > 0
    }
}

/// Counts an outcome; ejects `host` out of `all` when a limit is reached.
pub(crate) fn report(
    rules: &OutlierDetection,
    all: &[Host],
    host: &HostState,
    outcome: Outcome,
    now_ms: u64,
    rng: &mut impl Rng,
    ejected: &mut impl FnMut(&Host, Ejection),
) {
    tally(rules, host, outcome);
    let Some(cause) = count(rules, host, outcome, || rng.random_range(0..100)) else { return };
    if let Some(host) = all.iter().find(|one| std::ptr::eq(&raw const *one.state, host)) {
        eject(rules, all, host, cause, now_ms, rng, ejected);
    }
}

/// Compares what endpoints did in the interval that has ended.
pub(crate) fn review(
    rules: &OutlierDetection,
    all: &[Host],
    now_ms: u64,
    rng: &mut impl Rng,
    ejected: &mut impl FnMut(&Host, Ejection),
) {
    for host in all {
        forgive(rules, &host.state, now_ms);
    }
    let of_answers = (EjectionCause::SuccessRate, EjectionCause::FailurePercentage);
    let enforced = (rules.enforcing_success_rate, rules.enforcing_failure_percentage);
    judge(rules, all, |host| &host.answers, of_answers, enforced, now_ms, rng, ejected);
    if rules.split_external_local_origin_errors {
        let local = (EjectionCause::SuccessRateLocalOrigin, EjectionCause::FailurePercentageLocalOrigin);
        let enforced =
            (rules.enforcing_local_origin_success_rate, rules.enforcing_failure_percentage_local_origin);
        judge(rules, all, |host| &host.local, local, enforced, now_ms, rng, ejected);
    }
}

#[expect(clippy::too_many_arguments, reason = "two call sites; each is a different fact of the review")]
fn judge(
    rules: &OutlierDetection,
    all: &[Host],
    tally: impl Fn(&HostState) -> &Tally,
    (rate, percentage): (EjectionCause, EjectionCause),
    (rate_chance, percentage_chance): (u8, u8),
    now_ms: u64,
    rng: &mut impl Rng,
    ejected: &mut impl FnMut(&Host, Ejection),
) {
    let taken: Vec<(&Host, u32, f64)> = all
        .iter()
        .map(|host| (host, tally(&host.state).take()))
        .filter(|(host, _)| host.state.ejected_until(now_ms).is_none())
        .map(|(host, (total, good))| (host, total, good))
        .collect();
    let with = |volume: u32| taken.iter().filter(move |(_, total, _)| *total > 0 && *total >= volume);
    let rated: Vec<_> = with(rules.success_rate_request_volume).collect();
    if !rated.is_empty() && rated.len() >= rules.success_rate_minimum_hosts as usize {
        let bound = success_rate_bound(rules, &rated.iter().map(|(_, _, good)| *good).collect::<Vec<_>>());
        for (host, _, good) in rated {
            if *good < bound && rng.random_range(0..100) < rate_chance {
                eject(rules, all, host, rate, now_ms, rng, ejected);
            }
        }
    }
    let counted: Vec<_> = with(rules.failure_percentage_request_volume).collect();
    if !counted.is_empty() && counted.len() >= rules.failure_percentage_minimum_hosts as usize {
        for (host, _, good) in counted {
            let failed = 100.0 - good;
            if failed >= f64::from(rules.failure_percentage_threshold)
                && rng.random_range(0..100) < percentage_chance
            {
                eject(rules, all, host, percentage, now_ms, rng, ejected);
            }
        }
    }
}

/// The success rate in percent below which an endpoint is an outlier: the mean less some standard deviations.
fn success_rate_bound(rules: &OutlierDetection, rates: &[f64]) -> f64 {
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - f64::from(rules.success_rate_stdev_factor) / 1000.0 * variance.sqrt()
}

fn eject(
    rules: &OutlierDetection,
    all: &[Host],
    host: &Host,
    cause: EjectionCause,
    now_ms: u64,
    rng: &mut impl Rng,
    ejected: &mut impl FnMut(&Host, Ejection),
) {
    let state = &*host.state;
    if state.ejected_until(now_ms).is_some() || !room_for_ejection(rules, all, state, now_ms) {
        return;
    }
    forgive(rules, state, now_ms);
    let times = state.ejections.fetch_add(1, Relaxed) + 1;
    let length = rules
        .base_ejection_time
        .saturating_mul(times)
        .min(rules.max_ejection_time.max(rules.base_ejection_time));
    let jitter = rng.random_range(0..=millis(rules.max_ejection_time_jitter));
    let until_ms = now_ms.saturating_add(millis(length)).saturating_add(jitter).max(now_ms + 1);
    state.cause.store(cause as u8, Relaxed);
    state.ejected_until_ms.store(until_ms, Relaxed);
    state.forgiven_ms.store(until_ms, Relaxed);
    ejected(host, Ejection { cause, until_ms });
}

/// Counts for the rates, where they matter.
fn tally(rules: &OutlierDetection, host: &HostState, outcome: Outcome) {
    let split = rules.split_external_local_origin_errors;
    if split
        && rules.enforcing_local_origin_success_rate + rules.enforcing_failure_percentage_local_origin > 0
    {
        host.local.add(outcome != Outcome::LocalFailure);
    }
    if rules.enforcing_success_rate == 0 && rules.enforcing_failure_percentage == 0 {
        return;
    }
    match outcome {
        Outcome::Status(status) => host.answers.add(status < 500),
        Outcome::Connected if !split => host.answers.add(true),
        Outcome::LocalFailure if !split => host.answers.add(false),
        Outcome::Connected | Outcome::LocalFailure => {}
    }
}

/// The cause to eject for, when a count has reached its limit. The counter starts again.
fn count(
    rules: &OutlierDetection,
    host: &HostState,
    outcome: Outcome,
    mut random: impl FnMut() -> u8,
) -> Option<EjectionCause> {
    let (is_5xx, is_gateway, is_local) = match outcome {
        Outcome::Status(status) => (status >= 500, matches!(status, 502..=504), false),
        Outcome::Connected => (false, false, false),
        Outcome::LocalFailure if rules.split_external_local_origin_errors => {
            return reached(&host.consecutive_local, true, rules.consecutive_local_origin_failure)
                .then_some(EjectionCause::ConsecutiveLocalOriginFailure)
                .filter(|_| random() < rules.enforcing_consecutive_local_origin_failure);
        }
        Outcome::LocalFailure => (true, true, true),
    };
    if !is_local && rules.split_external_local_origin_errors {
        reached(&host.consecutive_local, false, 0);
    }
    if outcome == Outcome::Connected && rules.split_external_local_origin_errors {
        // A connection says nothing of answers.
        return None;
    }
    let gateway = reached(&host.consecutive_gateway, is_gateway, rules.consecutive_gateway_failure);
    let any = reached(&host.consecutive_5xx, is_5xx, rules.consecutive_5xx);
    if gateway && random() < rules.enforcing_consecutive_gateway_failure {
        Some(EjectionCause::ConsecutiveGatewayFailure)
    } else if any && random() < rules.enforcing_consecutive_5xx {
        Some(EjectionCause::Consecutive5xx)
    } else {
        None
    }
}

fn reached(counter: &AtomicU32, failed: bool, limit: u32) -> bool {
    if !failed {
        // A store would take the line from the other workers; most of the time there is nothing to do.
        if counter.load(Relaxed) > 0 {
            counter.store(0, Relaxed);
        }
        return false;
    }
    let count = counter.fetch_add(1, Relaxed) + 1;
    let reached = limit > 0 && count >= limit;
    if reached {
        counter.store(0, Relaxed);
    }
    reached
}

fn room_for_ejection(rules: &OutlierDetection, all: &[Host], host: &HostState, now_ms: u64) -> bool {
    let ejected = all.iter().filter(|h| h.state.ejected_until(now_ms).is_some()).count();
    let serves = |one: &Host| one.tier(now_ms) != Tier::Unavailable;
    let another_serves = all.iter().any(|h| !std::ptr::eq(&raw const *h.state, host) && serves(h));
    if !another_serves {
        return false;
    }
    let percent_after = (ejected + 1) * 100;
    percent_after <= usize::from(rules.max_ejection_percent) * all.len()
        || (rules.always_eject_one && ejected == 0)
}

/// For every interval that an endpoint was back in service, one ejection is forgotten.
fn forgive(rules: &OutlierDetection, host: &HostState, now_ms: u64) {
    let interval = millis(rules.interval).max(1);
    let since = host.forgiven_ms.load(Relaxed);
    let quiet = now_ms.saturating_sub(since) / interval;
    if since > 0 && quiet > 0 {
        let times = u32::try_from(quiet).unwrap_or(u32::MAX);
        let _ = host.ejections.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(times)));
        host.forgiven_ms.store(since + quiet * interval, Relaxed);
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
