//! All of it as one list: the admin port's `/stats`, and Prometheus' text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::ClusterPlan;
use crate::shared::Shared;
use crate::usage::Totals;

/// Whether a value only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does.
    Counter,
    /// It does not.
    Gauge,
}

/// A number under Envoy's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Such as `cluster.outbound|9080||reviews.default.svc.cluster.local.upstream_rq_total`.
    pub name: String,
    /// Counter or gauge.
    pub kind: Kind,
    /// Its value.
    pub value: u64,
    /// Prometheus' name.
    family: String,
    /// Prometheus' labels, without braces.
    labels: String,
}

type Field = fn(&Totals) -> &AtomicU64;

const TOTALS: [(&str, Field); 12] = [
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
    ("upstream_rq_drop_overload", |totals| &totals.upstream_rq_drop_overload),
    ("outlier_detection.ejections_enforced_total", |totals| &totals.outlier_ejections),
];

const NOW: [&str; 4] =
    ["upstream_cx_active", "upstream_rq_pending_active", "upstream_rq_active", "upstream_rq_retry_active"];

/// Every number, ordered by name.
pub fn list(shared: &Shared) -> Vec<Stat> {
    let config = shared.config.load();
    let mut all = Vec::new();
    for (name, value) in shared.stats.listeners() {
        all.push(Stat::new("listener", "", name, "", value));
    }
    for (prefix, values) in shared.stats.http.sums() {
        let label = label("http_conn_manager_prefix", &prefix);
        all.extend(values.map(|(name, value)| Stat::new("http", &prefix, name, &label, value)));
    }
    for (prefix, allowed, denied) in shared.stats.shadows() {
        all.push(Stat::new("rbac", "", &format!("{prefix}shadow_allowed"), "", allowed));
        all.push(Stat::new("rbac", "", &format!("{prefix}shadow_denied"), "", denied));
    }
    for (name, plan) in &config.clusters {
        cluster(name, plan, &mut all);
    }
    all.extend(shared.overload.figures().map(|(name, value)| Stat::new("overload", "", name, "", value)));
    let count = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
    let plain = [
        ("cluster_manager", "active_clusters", count(config.clusters.len())),
        ("listener_manager", "total_listeners_active", count(config.listeners.len())),
        ("listener_manager", "workers_started", 1),
        ("access_log", "dropped", shared.log.dropped()),
        ("tracing", "spans_sent", shared.stats.spans.sent.load(Relaxed)),
        ("tracing", "spans_dropped", shared.stats.spans.dropped.load(Relaxed)),
        ("tracing", "spans_failed", shared.stats.spans.failed.load(Relaxed)),
        ("server", "uptime", shared.begun.elapsed().as_secs()),
    ];
    all.extend(plain.map(|(scope, name, value)| Stat::new(scope, "", name, "", value)));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn cluster(name: &str, plan: &ClusterPlan, all: &mut Vec<Stat>) {
    let label = label("cluster_name", name);
    let mut push = |field: &str, value| all.push(Stat::new("cluster", name, field, &label, value));
    for (field, read) in TOTALS {
        push(field, read(&plan.usage.totals).load(Relaxed));
    }
    for (field, value) in NOW.iter().zip(plan.usage.now()) {
        push(field, value.into());
    }
    let mut completed = 0;
    for (hundreds, count) in plan.usage.totals.upstream_rq_xx.iter().enumerate().skip(1) {
        let count = count.load(Relaxed);
        completed += count;
        push(&format!("upstream_rq_{hundreds}xx"), count);
    }
    push("upstream_rq_completed", completed);
    let hosts = plan.balancer.hosts();
    push("membership_total", hosts.len() as u64);
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

impl Stat {
    fn new(scope: &str, prefix: &str, field: &str, label: &str, value: u64) -> Self {
        let dot = if prefix.is_empty() { "" } else { "." };
        let (family, labels) = match class(field) {
            Some((family, class)) => {
                let comma = if label.is_empty() { "" } else { "," };
                (family, format!("response_code_class=\"{class}\"{comma}{label}"))
            }
            None => (field, label.to_owned()),
        };
        Self {
            name: format!("{scope}{dot}{prefix}.{field}"),
            kind: if is_gauge(field) { Kind::Gauge } else { Kind::Counter },
            value,
            family: format!("envoy_{scope}_{}", family.replace('.', "_")),
            labels,
        }
    }
}

fn is_gauge(field: &str) -> bool {
    let exact =
        ["active_clusters", "total_listeners_active", "workers_started", "uptime", "membership_total"];
    field.ends_with("_active")
        || field.ends_with(".active")
        || field.ends_with(".pressure")
        || exact.contains(&field)
}

/// `upstream_rq_5xx` is `upstream_rq_xx` with a label, as in Istio's exposition.
fn class(field: &str) -> Option<(&str, &str)> {
    let class = field.get(field.len().checked_sub(3)?..)?;
    let family = match field.strip_suffix(class)? {
        "upstream_rq_" => "upstream_rq_xx",
        "downstream_rq_" => "downstream_rq_xx",
        _ => return None,
    };
    class.ends_with("xx").then_some((family, class))
}

/// Appends Prometheus' text of what was ever used.
pub fn prometheus(shared: &Shared, out: &mut String) {
    let all = list(shared);
    let mut families: BTreeMap<&str, Vec<&Stat>> = BTreeMap::new();
    for stat in &all {
        // A series for each thing that never happened would drown the others.
        if stat.value > 0 || stat.labels.is_empty() {
            families.entry(&stat.family).or_default().push(stat);
        }
    }
    for (family, stats) in families {
        let kind = if stats.iter().any(|stat| stat.kind == Kind::Gauge) { "gauge" } else { "counter" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE {family} {kind}");
        for stat in stats {
            let (open, close) = if stat.labels.is_empty() { ("", "") } else { ("{", "}") };
            let _ = writeln!(out, "{family}{open}{}{close} {}", stat.labels, stat.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_envoys_and_labels_istios() {
        let label = label("cluster_name", "a\"b");
        let stat = Stat::new("cluster", "a\"b", "upstream_rq_5xx", &label, 3);
        assert_eq!(stat.name, "cluster.a\"b.upstream_rq_5xx");
        assert_eq!(stat.family, "envoy_cluster_upstream_rq_xx");
        assert_eq!(stat.labels, "response_code_class=\"5xx\",cluster_name=\"a\\\"b\"");
        assert_eq!(Stat::new("server", "", "uptime", "", 3).kind, Kind::Gauge);
        assert_eq!(class("rx"), None);
    }
}
