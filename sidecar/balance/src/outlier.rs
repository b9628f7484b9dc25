//! Outlier detection: endpoints that fail in a row are put aside for a while.
//!
//! Envoy's rules (`cluster.v3.OutlierDetection`): a count of failures in a row ejects; an ejection lasts `base × times ejected`, at most
//! `max`; no more than `max_ejection_percent` of the endpoints are out at once, one always may be. Ours in addition: never the last one.

use crate::host::{Host, HostState};
use sidecar_model::cluster::OutlierDetection;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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
}

/// An ejection that has just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: EjectionCause,
    /// Until when, in milliseconds.
    pub until_ms: u64,
}

// === impl EjectionCause ===

impl EjectionCause {
    /// Envoy's name of the cause.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
        }
    }
}

/// Counts an outcome; ejects `host` out of `all` when its limit is reached. `random` is in `[0, 100)`.
pub(crate) fn report(
    rules: &OutlierDetection,
    all: &[Host],
    host: &HostState,
    outcome: Outcome,
    now_ms: u64,
    random: u8,
) -> Option<Ejection> {
    let cause = count(rules, host, outcome, random)?;
    if host.ejected_until(now_ms).is_some() || !room_for_ejection(rules, all, host, now_ms) {
        return None;
    }
    forgive(rules, host, now_ms);
    let times = host.ejections.fetch_add(1, Relaxed) + 1;
    let length = rules
        .base_ejection_time
        .saturating_mul(times)
        .min(rules.max_ejection_time.max(rules.base_ejection_time));
    let until_ms = now_ms.saturating_add(millis(length)).max(now_ms + 1);
    host.ejected_until_ms.store(until_ms, Relaxed);
    host.forgiven_ms.store(until_ms, Relaxed);
    Some(Ejection { cause, until_ms })
}

/// The cause to eject for, when a count has reached its limit. The counter starts again.
fn count(rules: &OutlierDetection, host: &HostState, outcome: Outcome, random: u8) -> Option<EjectionCause> {
    let (is_5xx, is_gateway, is_local) = match outcome {
        Outcome::Status(status) => (status >= 500, matches!(status, 502..=504), false),
        Outcome::Connected => (false, false, false),
        Outcome::LocalFailure if rules.split_external_local_origin_errors => {
            return reached(&host.consecutive_local, true, rules.consecutive_local_origin_failure)
                .then_some(EjectionCause::ConsecutiveLocalOriginFailure)
                .filter(|_| random < rules.enforcing_consecutive_local_origin_failure);
        }
        Outcome::LocalFailure => (true, true, true),
    };
    if !is_local && rules.split_external_local_origin_errors {
        host.consecutive_local.store(0, Relaxed);
    }
    let gateway = reached(&host.consecutive_gateway, is_gateway, rules.consecutive_gateway_failure);
    let any = reached(&host.consecutive_5xx, is_5xx, rules.consecutive_5xx);
    if gateway && random < rules.enforcing_consecutive_gateway_failure {
        Some(EjectionCause::ConsecutiveGatewayFailure)
    } else if any && random < rules.enforcing_consecutive_5xx {
        Some(EjectionCause::Consecutive5xx)
    } else {
        None
    }
}

fn reached(counter: &AtomicU32, failed: bool, limit: u32) -> bool {
    if !failed {
        counter.store(0, Relaxed);
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
    let another_serves = all.iter().any(|h| !std::ptr::eq(&raw const *h.state, host) && h.available(now_ms));
    if !another_serves {
        return false;
    }
    let percent_after = (ejected + 1) * 100;
    percent_after <= usize::from(rules.max_ejection_percent) * all.len() || ejected == 0
}

/// For every interval that an endpoint was back in service, one ejection is forgotten.
fn forgive(rules: &OutlierDetection, host: &HostState, now_ms: u64) {
    let interval = millis(rules.interval).max(1);
    let since = host.forgiven_ms.load(Relaxed);
    let quiet = u32::try_from(now_ms.saturating_sub(since) / interval).unwrap_or(u32::MAX);
    if since > 0 && quiet > 0 {
        let _ = host.ejections.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(quiet)));
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}
