//! Active health checks: how endpoints are asked whether they serve.

pub(crate) mod proto;

use serde::Serialize;
use std::time::Duration;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Probe {
    /// An HTTP request must be answered with an expected status.
    Http(HttpProbe),
    /// A connection must be made; what is expected must be received in order, when something is.
    Tcp {
        /// Sent first.
        send: Vec<u8>,
        /// Pieces to receive in this order, with anything between them.
        receive: Vec<Vec<u8>>,
    },
    /// `grpc.health.v1.Health/Check` must answer `SERVING`.
    Grpc {
        /// The service asked for; empty: the server as a whole.
        service: Box<str>,
        /// Authority of the request; empty: the cluster's name.
        authority: Box<str>,
        /// Headers added.
        headers: Vec<(Box<str>, Box<str>)>,
    },
}

/// An HTTP request that asks for health.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    /// Host of the request; empty: the endpoint's host name, else the cluster's name.
    pub host: Box<str>,
    /// Its path.
    pub path: Box<str>,
    /// Its method.
    #[serde(serialize_with = "crate::dump::display")]
    pub method: http::Method,
    /// Headers added.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Good statuses, each a range with its end left out; never empty.
    pub expected: Vec<(u16, u16)>,
    /// Statuses that count towards the threshold instead of being a failure at once.
    pub retriable: Vec<(u16, u16)>,
    /// HTTP/2 is spoken.
    pub http2: bool,
}

/// A health check of every endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// An answer must come within this time.
    pub timeout: Duration,
    /// Time between checks of a healthy endpoint with traffic.
    pub interval: Duration,
    /// The first check comes after a random part of this.
    pub initial_jitter: Duration,
    /// A random part of this is added to every interval.
    pub interval_jitter: Duration,
    /// A random part of this percentage of the interval is added.
    pub interval_jitter_percent: u32,
    /// Failures in a row that make an endpoint unhealthy.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it healthy again.
    pub healthy_threshold: u32,
    /// Asked instead of the endpoint's port.
    pub alt_port: Option<u16>,
    /// Interval while the cluster has had no traffic.
    pub no_traffic_interval: Duration,
    /// The same for healthy endpoints.
    pub no_traffic_healthy_interval: Duration,
    /// Interval of unhealthy endpoints.
    pub unhealthy_interval: Duration,
    /// Interval behind the failure that makes an endpoint unhealthy.
    pub unhealthy_edge_interval: Duration,
    /// Interval behind the success that makes an endpoint healthy.
    pub healthy_edge_interval: Duration,
    /// Every failure is logged, not only changes.
    pub logs_failures: bool,
}

/// What checks of one endpoint have found, and what that means; pure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it counts as unhealthy; before the first check it does.
    pub failed: Option<bool>,
    /// Results in a row that speak against that.
    against: u32,
}

/// What one check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It serves.
    Good,
    /// It does not answer as expected, which may pass: the threshold counts.
    Bad,
    /// It says itself that it does not serve: no threshold counts.
    Worst,
}

// === impl HttpProbe ===

impl HttpProbe {
    /// What a status means.
    pub fn finding(&self, status: u16) -> Finding {
        let within = |ranges: &[(u16, u16)]| ranges.iter().any(|(from, to)| (*from..*to).contains(&status));
        if within(&self.expected) {
            Finding::Good
        } else if within(&self.retriable) {
            Finding::Bad
        } else {
            Finding::Worst
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Counts a finding; tells whether the verdict has changed. The first finding decides alone, as in Envoy.
    pub fn add(&mut self, check: &HealthCheck, finding: Finding) -> bool {
        let failed = finding != Finding::Good;
        if self.failed == Some(failed) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let threshold = if failed { check.unhealthy_threshold } else { check.healthy_threshold };
        let decides = self.failed.is_none() || finding == Finding::Worst || self.against >= threshold;
        if decides {
            *self = Self { failed: Some(failed), against: 0 };
        }
        decides
    }
}

// === impl HealthCheck ===

impl HealthCheck {
    /// How long to wait until the next check; `random` is in `[0, 1)`.
    pub fn pause(&self, verdict: Verdict, changed: bool, has_traffic: bool, random: f64) -> Duration {
        let failed = verdict.failed.unwrap_or(true);
        let base = match (failed, changed) {
            (true, true) => self.unhealthy_edge_interval,
            (false, true) => self.healthy_edge_interval,
            (false, false) if !has_traffic => self.no_traffic_healthy_interval,
            (true, false) if !has_traffic => self.no_traffic_interval,
            (true, false) => self.unhealthy_interval,
            (false, false) => self.interval,
        };
        let share = base.mul_f64(f64::from(self.interval_jitter_percent) / 100.0);
        base + (self.interval_jitter + share).mul_f64(random)
    }
}
