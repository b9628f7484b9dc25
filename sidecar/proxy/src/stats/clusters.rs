//! The admin port's `/clusters`: every endpoint with its health and load, as text and as JSON in Envoy's forms.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sidecar_balance::{Host, Unavailable};
use sidecar_model::cluster::Thresholds;
use sidecar_model::endpoint::Health;

use crate::config::{ClusterPlan, Config};
use crate::shared::Shared;

fn sorted(config: &Config) -> Vec<&ClusterPlan> {
    let mut all: Vec<_> = config.clusters.iter().collect();
    all.sort_by_key(|(name, _)| *name);
    all.into_iter().map(|(_, plan)| &**plan).collect()
}

/// Flags of an endpoint that gets no new requests, in Envoy's words; `healthy` for the others.
fn flags(host: &Host, now_ms: u64) -> &'static str {
    match host.unavailable(now_ms) {
        None => "healthy",
        Some(Unavailable::Health) => "/failed_eds_health",
        Some(Unavailable::FailedCheck) => "/failed_active_hc",
        Some(Unavailable::Ejected { .. }) => "/failed_outlier_check",
    }
}

/// The text: `<cluster>::<endpoint>::<name>::<value>` a line.
pub fn clusters(shared: &Shared) -> String {
    let config: &Config = &shared.config.load();
    let now = shared.now_ms();
    let mut out = String::new();
    for plan in sorted(config) {
        let name = &plan.cluster.name;
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "{name}::observability_name::{name}");
        let breakers = &plan.cluster.circuit_breakers;
        for (priority, limits) in [("default", &breakers.default), ("high", &breakers.high)] {
            for (limit, value) in thresholds(limits) {
                let _ = writeln!(out, "{name}::{priority}_priority::{limit}::{value}");
            }
        }
        let _ = writeln!(out, "{name}::added_via_api::true");
        if let Some(service) = plan.cluster.eds_name() {
            let _ = writeln!(out, "{name}::eds_service_name::{service}");
        }
        for host in plan.balancer.hosts() {
            endpoint(&mut out, plan, host, now);
        }
    }
    out
}

fn thresholds(limits: &Thresholds) -> [(&'static str, u32); 4] {
    [
        ("max_connections", limits.max_connections),
        ("max_pending_requests", limits.max_pending_requests),
        ("max_requests", limits.max_requests),
        ("max_retries", limits.max_retries),
    ]
}

fn endpoint(out: &mut String, plan: &ClusterPlan, host: &Host, now: u64) {
    let (name, address) = (&plan.cluster.name, &host.endpoint.address);
    let mut line = |field: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{name}::{address}::{field}::{value}");
    };
    line("rq_active", &host.state.active());
    line("hostname", &host.endpoint.hostname);
    line("health_flags", &flags(host, now));
    if let Some(Unavailable::Ejected { until_ms, cause }) = host.unavailable(now) {
        line("ejected_for_ms", &until_ms.saturating_sub(now));
        line("ejection_cause", &cause.as_str());
    }
    line("weight", &host.endpoint.weight);
    line("region", &host.locality.region);
    line("zone", &host.locality.zone);
    line("sub_zone", &host.locality.sub_zone);
    line("canary", &false);
    line("priority", &host.priority);
}

/// The JSON: `envoy.admin.v3.Clusters`.
pub fn clusters_json(shared: &Shared) -> Value {
    let config: &Config = &shared.config.load();
    let now = shared.now_ms();
    let one = |plan: &ClusterPlan| {
        let hosts: Vec<Value> = plan.balancer.hosts().iter().map(|host| status(host, now)).collect();
        let breakers = &plan.cluster.circuit_breakers;
        let limits = |limits: &Thresholds| {
            thresholds(limits).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
        };
        let (default, mut high): (Value, Value) =
            (Value::Object(limits(&breakers.default)), Value::Object(limits(&breakers.high)));
        high["priority"] = "HIGH".into();
        json!({
            "name": &*plan.cluster.name,
            "observability_name": &*plan.cluster.name,
            "added_via_api": true,
            "host_statuses": hosts,
            "circuit_breakers": { "thresholds": [default, high] },
            "eds_service_name": plan.cluster.eds_name().map_or("", |name| name),
        })
    };
    json!({ "cluster_statuses": sorted(config).into_iter().map(one).collect::<Vec<_>>() })
}

fn status(host: &Host, now: u64) -> Value {
    let endpoint = &host.endpoint;
    let mut health = json!({ "eds_health_status": match endpoint.health {
        Health::Unknown | Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
        Health::Timeout => "TIMEOUT",
    } });
    match host.unavailable(now) {
        Some(Unavailable::Ejected { until_ms, cause }) => {
            health["failed_outlier_check"] = true.into();
            // Ours; Envoy does not tell.
            health["ejection"] = json!({ "cause": cause.as_str(), "for_ms": until_ms.saturating_sub(now) });
        }
        Some(Unavailable::FailedCheck) => health["failed_active_health_check"] = true.into(),
        Some(Unavailable::Health) | None => {}
    }
    let mut status = json!({
        "address": sidecar_model::dump::address(&endpoint.address),
        "stats": [{ "name": "rq_active", "type": "GAUGE", "value": host.state.active().to_string() }],
        "health_status": health,
        "weight": endpoint.weight,
        "hostname": endpoint.hostname,
        "locality": {
            "region": host.locality.region, "zone": host.locality.zone, "sub_zone": host.locality.sub_zone
        },
    });
    if host.priority > 0 {
        status["priority"] = host.priority.into();
    }
    status
}
