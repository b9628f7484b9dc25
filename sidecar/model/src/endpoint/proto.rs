//! `envoy.config.endpoint.v3.ClusterLoadAssignment`.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{Endpoint, Endpoints, Health, Locality, LocalityEndpoints};
use crate::address::proto::{address, resolved_address};
use crate::convert::{At, Converted, bounded, decode, each, enumeration, not_empty, number, required};
use crate::invalid::Invalid;
use crate::matcher::proto::fraction;
use crate::metadata::proto::metadata;
use policies_xds::core::HealthStatus;
use policies_xds::endpoint::lb_endpoint::HostIdentifier;
use policies_xds::endpoint::locality_lb_endpoints::LbConfig;
use policies_xds::endpoint::{self as pb, ClusterLoadAssignment};
use std::sync::Arc;

/// Envoy's greatest priority.
const PRIORITY_MAX: u32 = 128;

/// Whether endpoints may be names to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Refused,
    Allowed,
}

impl Endpoints {
    /// Reads an encoded `ClusterLoadAssignment`; its endpoints must be addresses, not names.
    pub fn decode(message: &[u8]) -> Result<Self, Invalid> {
        endpoints(&decode(message)?, Names::Refused)
    }
}

pub(crate) fn endpoints(message: &ClusterLoadAssignment, names: Names) -> Converted<Endpoints> {
    let default = pb::cluster_load_assignment::Policy::default();
    let policy = message.policy.as_ref().unwrap_or(&default);
    let overprovisioning_percent = number(&policy.overprovisioning_factor)
        .map(|value| bounded("policy.overprovisioning_factor", value, 1..=u32::MAX))
        .transpose()?;
    Ok(Endpoints {
        name: not_empty("cluster_name", &message.cluster_name)?.into(),
        localities: each("endpoints", &message.endpoints, |message_of| locality(message, message_of, names))?,
        drop_overloads: each("policy.drop_overloads", &policy.drop_overloads, |drop| {
            let share = required("drop_percentage", &drop.drop_percentage)?;
            Ok((not_empty("category", &drop.category)?.into(), fraction(share).at("drop_percentage")?))
        })?,
        overprovisioning_percent,
        weighted_priority_health: policy.weighted_priority_health,
    })
}

fn locality(
    all: &ClusterLoadAssignment,
    message: &pb::LocalityLbEndpoints,
    names: Names,
) -> Converted<LocalityEndpoints> {
    let convert = |one: &pb::LbEndpoint| endpoint(all, one, names).map(Arc::new);
    let endpoints = match &message.lb_config {
        None => each("lb_endpoints", &message.lb_endpoints, convert)?,
        Some(LbConfig::LoadBalancerEndpoints(list)) => {
            each("load_balancer_endpoints.lb_endpoints", &list.lb_endpoints, convert)?
        }
        Some(LbConfig::LedsClusterLocalityConfig(_)) => {
            return Err(Invalid::unsupported("leds_cluster_locality_config", "LEDS"));
        }
    };
    let total: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    if total > u64::from(u32::MAX) {
        return Err(Invalid::new("lb_endpoints", "has weights whose sum is above 2^32 - 1"));
    }
    let place = message.locality.as_ref();
    Ok(LocalityEndpoints {
        locality: Locality {
            region: place.map_or_else(Box::default, |place| place.region.as_str().into()),
            zone: place.map_or_else(Box::default, |place| place.zone.as_str().into()),
            sub_zone: place.map_or_else(Box::default, |place| place.sub_zone.as_str().into()),
        },
        priority: bounded("priority", message.priority, 0..=PRIORITY_MAX)?,
        weight: number(&message.load_balancing_weight)
            .map(|value| bounded("load_balancing_weight", value, 1..=u32::MAX))
            .transpose()?,
        endpoints,
    })
}

fn endpoint(all: &ClusterLoadAssignment, message: &pb::LbEndpoint, names: Names) -> Converted<Endpoint> {
    let host = match required("endpoint", &message.host_identifier)? {
        HostIdentifier::Endpoint(endpoint) => endpoint,
        HostIdentifier::EndpointName(name) => all.named_endpoints.get(name).ok_or_else(|| {
            Invalid::new("endpoint_name", format!("there is no endpoint `{}`", name.escape_debug()))
        })?,
    };
    let place = required("endpoint.address", &host.address)?;
    let place = match names {
        Names::Refused => resolved_address(place),
        Names::Allowed => address(place),
    };
    let weight = number(&message.load_balancing_weight).unwrap_or(1);
    Ok(Endpoint {
        address: place.at("endpoint.address")?,
        weight: bounded("load_balancing_weight", weight, 1..=u32::MAX)?,
        health: match enumeration("health_status", message.health_status)? {
            HealthStatus::Unknown => Health::Unknown,
            HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Unhealthy => Health::Unhealthy,
            HealthStatus::Draining => Health::Draining,
            HealthStatus::Timeout => Health::Timeout,
            HealthStatus::Degraded => Health::Degraded,
        },
        hostname: host.hostname.as_str().into(),
        metadata: metadata(&message.metadata),
    })
}

#[cfg(test)]
mod tests;
