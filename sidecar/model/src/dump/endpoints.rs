//! Endpoints, as `envoy.config.endpoint.v3.ClusterLoadAssignment`.

use serde_json::{Value, json};

use super::{address, message, metadata, url};
use crate::endpoint::{Endpoint, Endpoints, Health, LocalityEndpoints};

/// The endpoints of one resource.
pub fn endpoints(endpoints: &Endpoints) -> Value {
    message(&url("envoy.config.endpoint.v3.ClusterLoadAssignment"), fields(endpoints))
}

/// The same without a type.
pub(super) fn fields(endpoints: &Endpoints) -> Value {
    let localities: Vec<Value> = endpoints.localities.iter().map(locality).collect();
    json!({
        "cluster_name": &*endpoints.name,
        "endpoints": localities,
        "policy": endpoints.overprovisioning_percent.map(|percent| json!({ "overprovisioning_factor": percent })),
    })
}

fn locality(of: &LocalityEndpoints) -> Value {
    let all: Vec<Value> = of.endpoints.iter().map(|one| endpoint(one)).collect();
    json!({
        "locality": {
            "region": of.locality.region, "zone": of.locality.zone, "sub_zone": of.locality.sub_zone
        },
        "lb_endpoints": all,
        "load_balancing_weight": of.weight,
        "priority": (of.priority > 0).then_some(of.priority),
    })
}

fn endpoint(of: &Endpoint) -> Value {
    json!({
        "endpoint": { "address": address(&of.address), "hostname": of.hostname },
        "health_status": health(of.health),
        "metadata": metadata(&of.metadata),
        "load_balancing_weight": of.weight,
    })
}

/// Envoy's word for a health; empty for the default.
pub(super) fn health(health: Health) -> &'static str {
    match health {
        Health::Unknown => "",
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
        Health::Timeout => "TIMEOUT",
        Health::Degraded => "DEGRADED",
    }
}
