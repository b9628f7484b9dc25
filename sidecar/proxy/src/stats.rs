//! Counters of listeners, and the text in which the admin port shows all of the data path's state.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::config::Config;
use crate::shared::Shared;
use crate::usage::Totals;

/// Counters of all listeners.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub downstream_cx_total: AtomicU64,
    /// Connections open.
    pub downstream_cx_active: AtomicI64,
    /// Connections that found no filter chain.
    pub no_filter_chain_match: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_errors: AtomicU64,
    /// Connections that authorization refused.
    pub rbac_denied: AtomicU64,
    /// Connections without a proper PROXY protocol header where one is asked for.
    pub proxy_protocol_errors: AtomicU64,
    /// Requests begun.
    pub downstream_rq_total: AtomicU64,
    /// Messages refused for breaking HTTP.
    pub downstream_cx_protocol_error: AtomicU64,
}

type Field = fn(&Totals) -> &AtomicU64;

const TOTALS: [(&str, Field); 11] = [
    ("upstream_cx_total", |totals| &totals.upstream_cx_total),
    ("upstream_cx_connect_fail", |totals| &totals.upstream_cx_connect_fail),
    ("upstream_cx_overflow", |totals| &totals.upstream_cx_overflow),
    ("upstream_rq_total", |totals| &totals.upstream_rq_total),
    ("upstream_rq_pending_overflow", |totals| &totals.upstream_rq_pending_overflow),
    ("upstream_rq_retry", |totals| &totals.upstream_rq_retry),
    ("upstream_rq_retry_success", |totals| &totals.upstream_rq_retry_success),
    ("upstream_rq_retry_overflow", |totals| &totals.upstream_rq_retry_overflow),
    ("upstream_rq_timeout", |totals| &totals.upstream_rq_timeout),
    ("upstream_rq_per_try_timeout", |totals| &totals.upstream_rq_per_try_timeout),
    ("outlier_detection.ejections_enforced_total", |totals| &totals.outlier_ejections),
];

const GAUGES: [&str; 4] =
    ["upstream_cx_active", "upstream_rq_pending_active", "upstream_rq_active", "upstream_rq_retry_active"];

fn listeners(stats: &Stats) -> [(&'static str, i64); 8] {
    let total = |counter: &AtomicU64| i64::try_from(counter.load(Relaxed)).unwrap_or(i64::MAX);
    [
        ("downstream_cx_total", total(&stats.downstream_cx_total)),
        ("downstream_cx_active", stats.downstream_cx_active.load(Relaxed)),
        ("no_filter_chain_match", total(&stats.no_filter_chain_match)),
        ("ssl.connection_error", total(&stats.tls_errors)),
        ("rbac.denied", total(&stats.rbac_denied)),
        ("proxy_proto.error", total(&stats.proxy_protocol_errors)),
        ("downstream_rq_total", total(&stats.downstream_rq_total)),
        ("downstream_cx_protocol_error", total(&stats.downstream_cx_protocol_error)),
    ]
}

/// The admin port's `/stats`: a name and a number a line.
pub fn text(shared: &Shared) -> String {
    let config = shared.config.load();
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    for (name, value) in listeners(&shared.stats) {
        let _ = writeln!(out, "listener.{name}: {value}");
    }
    for (name, plan) in &config.clusters {
        for (field, read) in TOTALS {
            let _ = writeln!(out, "cluster.{name}.{field}: {}", read(&plan.usage.totals).load(Relaxed));
        }
        for (field, value) in GAUGES.iter().zip(plan.usage.now()) {
            let _ = writeln!(out, "cluster.{name}.{field}: {value}");
        }
        for (hundreds, count) in plan.usage.totals.upstream_rq_xx.iter().enumerate().skip(1) {
            let _ = writeln!(out, "cluster.{name}.upstream_rq_{hundreds}xx: {}", count.load(Relaxed));
        }
    }
    let _ = writeln!(out, "access_log.dropped: {}", shared.log.dropped());
    out
}

/// The admin port's `/clusters`: every endpoint with its health and load.
pub fn clusters(shared: &Shared) -> String {
    let config: &Config = &shared.config.load();
    let now = shared.now_ms();
    let mut out = String::new();
    let mut names: Vec<_> = config.clusters.keys().collect();
    names.sort();
    for name in names {
        let plan = &config.clusters[name];
        for host in plan.balancer.hosts() {
            let address = &host.endpoint.address;
            let health = match host.unavailable(now) {
                None => "healthy".to_owned(),
                Some(sidecar_balance::Unavailable::Health) => "/failed_eds_health".to_owned(),
                Some(sidecar_balance::Unavailable::Ejected { until_ms }) => {
                    format!("/failed_outlier_check until_ms={}", until_ms.saturating_sub(now))
                }
            };
            let _ = writeln!(out, "{name}::{address}::rq_active::{}", host.state.active());
            let _ = writeln!(out, "{name}::{address}::health_flags::{health}");
            let _ = writeln!(out, "{name}::{address}::weight::{}", host.endpoint.weight);
        }
    }
    out
}

/// Prometheus text of what is not among Istio's standard metrics.
pub fn prometheus(shared: &Shared, out: &mut String) {
    let config = shared.config.load();
    for (name, value) in listeners(&shared.stats) {
        let name = name.replace('.', "_");
        let kind = if name.ends_with("_active") { "gauge" } else { "counter" };
        let _ = writeln!(out, "# TYPE envoy_listener_{name} {kind}\nenvoy_listener_{name} {value}");
    }
    for (field, read) in TOTALS {
        let field = field.replace('.', "_");
        let _ = writeln!(out, "# TYPE envoy_cluster_{field} counter");
        for (name, plan) in &config.clusters {
            let value = read(&plan.usage.totals).load(Relaxed);
            if value > 0 {
                let _ = writeln!(out, "envoy_cluster_{field}{{cluster_name=\"{name}\"}} {value}");
            }
        }
    }
    for (index, field) in GAUGES.iter().enumerate() {
        let _ = writeln!(out, "# TYPE envoy_cluster_{field} gauge");
        for (name, plan) in &config.clusters {
            if plan.usage.totals.upstream_cx_total.load(Relaxed) > 0 {
                let _ = writeln!(
                    out,
                    "envoy_cluster_{field}{{cluster_name=\"{name}\"}} {}",
                    plan.usage.now()[index]
                );
            }
        }
    }
}
