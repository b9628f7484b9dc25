//! Peak-EWMA: a moving average of response times that jumps up at once and comes down slowly, times the requests under way.
//!
//! The algorithm is Finagle's and linkerd's. What is stored is the average as it was at some time; reading it lets it decay since then.

use crate::host::HostState;
use sidecar_model::cluster::PeakEwma;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What a failed request counts as, whatever it took: fast failures must not attract more.
const FAILURE: Duration = Duration::from_secs(1);

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The average now, in microseconds.
fn average(rules: &PeakEwma, host: &HostState, now_ms: u64) -> f64 {
    let stored = host.latency_us.load(Relaxed);
    if stored == 0 {
        return micros(rules.default_rtt);
    }
    let since = now_ms.saturating_sub(host.latency_ms.load(Relaxed)) as f64;
    stored as f64 * (-since / 1e3 / rules.decay.as_secs_f64()).exp()
}

/// What another request would cost there.
pub(crate) fn cost(rules: &PeakEwma, host: &HostState, weight: f64, now_ms: u64) -> f64 {
    average(rules, host, now_ms) * f64::from(host.active() + 1) / weight
}

/// Counts the time to a response; `None`: there was none.
pub(crate) fn observe(rules: &PeakEwma, host: &HostState, took: Option<Duration>, now_ms: u64) {
    let sample = micros(took.unwrap_or(FAILURE));
    let before = host.latency_us.load(Relaxed) as f64;
    let since = now_ms.saturating_sub(host.latency_ms.load(Relaxed)) as f64;
    let kept = (-since / 1e3 / rules.decay.as_secs_f64()).exp();
    let next = if sample > before { sample } else { before * kept + sample * (1.0 - kept) };
    // Two workers may overwrite each other's sample: one of them counts.
    host.latency_us.store((next as u64).max(1), Relaxed);
    host.latency_ms.store(now_ms, Relaxed);
}
