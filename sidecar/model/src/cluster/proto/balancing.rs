//! How an endpoint is chosen.

use crate::cluster::{ClusterKind, HashFunction, LbPolicy, LocalityLb, SlowStart};
use crate::convert::{
    At, Converted, bounded, enumeration, number, percent, positive_duration, refuse, required,
};
use crate::invalid::Invalid;
use policies_xds::cluster::cluster::common_lb_config::LocalityConfigSpecifier;
use policies_xds::cluster::cluster::{self as pb, LbConfig, ring_hash_lb_config};
use policies_xds::cluster::{Cluster, cluster};
use std::time::Duration;

/// Envoy's bound and default for the points of a ring.
const RING_SIZE_MAX: u64 = 8 * 1024 * 1024;
const RING_SIZE_MIN: u64 = 1024;
/// Envoy's default and bound for a Maglev table.
const MAGLEV_SIZE: u64 = 65_537;
const MAGLEV_SIZE_MAX: u64 = 5_000_011;

pub(super) fn policy(message: &Cluster, kind: &ClusterKind) -> Converted<LbPolicy> {
    let policy = match enumeration("lb_policy", message.lb_policy)? {
        cluster::LbPolicy::RoundRobin => LbPolicy::RoundRobin {
            slow_start: match &message.lb_config {
                Some(LbConfig::RoundRobinLbConfig(config)) => slow_start(config.slow_start_config.as_ref())?,
                _ => None,
            },
        },
        cluster::LbPolicy::LeastRequest => least_request(message.lb_config.as_ref())?,
        cluster::LbPolicy::Random => LbPolicy::Random,
        cluster::LbPolicy::RingHash => ring_hash(message.lb_config.as_ref()).at("ring_hash_lb_config")?,
        cluster::LbPolicy::Maglev => maglev(message.lb_config.as_ref()).at("maglev_lb_config")?,
        cluster::LbPolicy::ClusterProvided => LbPolicy::ClusterProvided,
        cluster::LbPolicy::LoadBalancingPolicyConfig => {
            return Err(Invalid::unsupported("lb_policy", "LOAD_BALANCING_POLICY_CONFIG"));
        }
    };
    let provides = matches!(kind, ClusterKind::OriginalDst { .. });
    if provides != (policy == LbPolicy::ClusterProvided) {
        let reason = "must be CLUSTER_PROVIDED in clusters of original destination, and only there";
        return Err(Invalid::new("lb_policy", reason));
    }
    Ok(policy)
}

pub(super) fn least_request(config: Option<&LbConfig>) -> Converted<LbPolicy> {
    let default = pb::LeastRequestLbConfig::default();
    let config = match config {
        Some(LbConfig::LeastRequestLbConfig(config)) => config,
        _ => &default,
    };
    let bias = config.active_request_bias.as_ref().map_or(1.0, |bias| bias.default_value);
    if !bias.is_finite() || bias < 0.0 {
        return Err(Invalid::new("active_request_bias", "must not be negative"))
            .at("least_request_lb_config");
    }
    Ok(LbPolicy::LeastRequest {
        choices: bounded("choice_count", number(&config.choice_count).unwrap_or(2), 2..=u32::MAX)
            .at("least_request_lb_config")?,
        slow_start: slow_start(config.slow_start_config.as_ref())?,
        active_request_bias: bias,
    })
}

pub(super) fn slow_start(message: Option<&pb::SlowStartConfig>) -> Converted<Option<SlowStart>> {
    let Some(message) = message else { return Ok(None) };
    required("slow_start_config.slow_start_window", &message.slow_start_window)?;
    let aggression = message.aggression.as_ref().map_or(1.0, |value| value.default_value);
    if !aggression.is_finite() || aggression <= 0.0 {
        return Err(Invalid::new("slow_start_config.aggression", "must be above zero"));
    }
    let window = positive_duration("slow_start_window", &message.slow_start_window, Duration::ZERO);
    let weight_min = percent("min_weight_percent", &message.min_weight_percent, 10.0);
    Ok(Some(SlowStart {
        window: window.at("slow_start_config")?,
        aggression,
        weight_min: weight_min.at("slow_start_config")? / 100.0,
    }))
}

pub(super) fn ring_hash(config: Option<&LbConfig>) -> Converted<LbPolicy> {
    let default = pb::RingHashLbConfig::default();
    let config = match config {
        Some(LbConfig::RingHashLbConfig(config)) => config,
        _ => &default,
    };
    let ring_size_min = config.minimum_ring_size.as_ref().map_or(RING_SIZE_MIN, |size| size.value);
    let ring_size_max = config.maximum_ring_size.as_ref().map_or(RING_SIZE_MAX, |size| size.value);
    if ring_size_max > RING_SIZE_MAX {
        return Err(Invalid::new("maximum_ring_size", format!("must not be above {RING_SIZE_MAX}")));
    }
    if ring_size_min > ring_size_max {
        return Err(Invalid::new("minimum_ring_size", "must not be above the maximum"));
    }
    let hash = match enumeration("hash_function", config.hash_function)? {
        ring_hash_lb_config::HashFunction::XxHash => HashFunction::XxHash,
        ring_hash_lb_config::HashFunction::MurmurHash2 => HashFunction::MurmurHash2,
    };
    Ok(LbPolicy::RingHash { ring_size_min: ring_size_min.max(1), ring_size_max: ring_size_max.max(1), hash })
}

pub(super) fn maglev(config: Option<&LbConfig>) -> Converted<LbPolicy> {
    let table_size = match config {
        Some(LbConfig::MaglevLbConfig(config)) => config.table_size.as_ref().map(|size| size.value),
        _ => None,
    };
    let table_size = table_size.unwrap_or(MAGLEV_SIZE);
    if table_size > MAGLEV_SIZE_MAX || !is_prime(table_size) {
        let reason = format!("must be a prime number up to {MAGLEV_SIZE_MAX}");
        return Err(Invalid::new("table_size", reason));
    }
    Ok(LbPolicy::Maglev { table_size })
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

pub(super) fn locality(message: &Cluster) -> Converted<LocalityLb> {
    let default = LocalityLb::default();
    let none = cluster::CommonLbConfig::default();
    let config = message.common_lb_config.as_ref().unwrap_or(&none);
    refuse("common_lb_config.consistent_hashing_lb_config", config.consistent_hashing_lb_config.is_some())?;
    let panic = percent(
        "common_lb_config.healthy_panic_threshold",
        &config.healthy_panic_threshold,
        default.healthy_panic_percent.into(),
    )?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
    let healthy_panic_percent = panic.round() as u8;
    Ok(LocalityLb {
        weighted_localities: matches!(
            config.locality_config_specifier,
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
        ),
        healthy_panic_percent,
        close_connections_on_host_health_failure: message.close_connections_on_host_health_failure,
        ..default
    })
}
