//! `load_balancing_policy`: policies as extensions, the first that is known counts.

use super::balancing;
use crate::cluster::{LbPolicy, LocalityLb, PeakEwma};
use crate::convert::{At, Converted, positive_duration, refuse, unpack};
use crate::invalid::Invalid;
use policies_xds::cluster::LoadBalancingPolicy;
use policies_xds::cluster::cluster::{
    LbConfig, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, SlowStartConfig, ring_hash_lb_config,
};
use policies_xds::lb::common::locality_lb_config::LocalityConfigSpecifier;
use policies_xds::lb::{common, least_request, maglev, random, ring_hash, round_robin};
use policies_xds::peak_ewma;
use policies_xds::protobuf::Any;
use prost::Name;
use std::time::Duration;

/// Envoy's defaults.
const DECAY: Duration = Duration::from_secs(10);
const DEFAULT_RTT: Duration = Duration::from_millis(10);

/// The first policy of the list that this sidecar has.
pub(super) fn policy(message: &LoadBalancingPolicy, locality: &mut LocalityLb) -> Converted<LbPolicy> {
    for (index, one) in message.policies.iter().enumerate() {
        let config = one.typed_extension_config.as_ref().and_then(|it| it.typed_config.as_ref());
        let Some(config) = config else { continue };
        let found = known(config, locality).at("typed_extension_config.typed_config");
        if let Some(policy) = found.at_item("policies", index)? {
            return Ok(policy);
        }
    }
    Err(Invalid::unsupported("policies", "every policy listed"))
}

fn known(any: &Any, locality: &mut LocalityLb) -> Converted<Option<LbPolicy>> {
    let url = any.type_url.as_str();
    let is = |wanted: String| url == wanted;
    let policy = if is(peak_ewma::PeakEwma::type_url()) {
        let message: peak_ewma::PeakEwma = unpack("", any)?;
        LbPolicy::PeakEwma(PeakEwma {
            decay: positive_duration("decay_time", &message.decay_time, DECAY)?,
            default_rtt: positive_duration("default_rtt", &message.default_rtt, DEFAULT_RTT)?,
        })
    } else if is(round_robin::RoundRobin::type_url()) {
        let message: round_robin::RoundRobin = unpack("", any)?;
        by_locality(locality, message.locality_lb_config.as_ref());
        let slow_start = message.slow_start_config.as_ref().map(older);
        LbPolicy::RoundRobin { slow_start: balancing::slow_start(slow_start.as_ref())? }
    } else if is(least_request::LeastRequest::type_url()) {
        let message: least_request::LeastRequest = unpack("", any)?;
        let full = least_request::least_request::SelectionMethod::FullScan;
        refuse("selection_method", message.selection_method == i32::from(full))?;
        refuse("enable_full_scan", message.enable_full_scan.is_some_and(|it| it.value))?;
        by_locality(locality, message.locality_lb_config.as_ref());
        let config = LeastRequestLbConfig {
            choice_count: message.choice_count,
            active_request_bias: message.active_request_bias,
            slow_start_config: message.slow_start_config.as_ref().map(older),
        };
        balancing::least_request(Some(&LbConfig::LeastRequestLbConfig(config)))?
    } else if is(random::Random::type_url()) {
        let message: random::Random = unpack("", any)?;
        by_locality(locality, message.locality_lb_config.as_ref());
        LbPolicy::Random
    } else if is(ring_hash::RingHash::type_url()) {
        ring(&unpack("", any)?, locality)?
    } else if is(maglev::Maglev::type_url()) {
        let message: maglev::Maglev = unpack("", any)?;
        consistent(message.consistent_hashing_lb_config.as_ref())?;
        locality.weighted_localities = message.locality_weighted_lb_config.is_some();
        balancing::maglev(Some(&LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: message.table_size })))?
    } else {
        return Ok(None);
    };
    Ok(Some(policy))
}

fn ring(message: &ring_hash::RingHash, locality: &mut LocalityLb) -> Converted<LbPolicy> {
    refuse("use_hostname_for_hashing", message.use_hostname_for_hashing)?;
    refuse("hash_balance_factor", message.hash_balance_factor.is_some())?;
    consistent(message.consistent_hashing_lb_config.as_ref())?;
    locality.weighted_localities = message.locality_weighted_lb_config.is_some();
    let murmur = message.hash_function == i32::from(ring_hash::ring_hash::HashFunction::MurmurHash2);
    let function = if murmur {
        ring_hash_lb_config::HashFunction::MurmurHash2
    } else {
        ring_hash_lb_config::HashFunction::XxHash
    };
    balancing::ring_hash(Some(&LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: message.minimum_ring_size,
        maximum_ring_size: message.maximum_ring_size,
        hash_function: function.into(),
    })))
}

fn consistent(message: Option<&common::ConsistentHashingLbConfig>) -> Converted<()> {
    let Some(message) = message else { return Ok(()) };
    refuse("use_hostname_for_hashing", message.use_hostname_for_hashing)
        .and_then(|()| refuse("hash_balance_factor", message.hash_balance_factor.is_some()))
        .and_then(|()| refuse("hash_policy", !message.hash_policy.is_empty()))
        .at("consistent_hashing_lb_config")
}

fn by_locality(locality: &mut LocalityLb, message: Option<&common::LocalityLbConfig>) {
    let specifier = message.and_then(|it| it.locality_config_specifier.as_ref());
    locality.weighted_localities =
        matches!(specifier, Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)));
}

fn older(message: &common::SlowStartConfig) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: message.slow_start_window,
        aggression: message.aggression.clone(),
        min_weight_percent: message.min_weight_percent,
    }
}
