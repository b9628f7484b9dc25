//! Circuit breakers and outlier detection, with Envoy's defaults.

use crate::cluster::{CircuitBreakers, OutlierDetection, RetryBudget, Thresholds};
use crate::convert::{
    At, Converted, duration_or, enumeration, flag, number, percent, positive_duration, whole_percent,
};
use crate::invalid::Invalid;
use policies_xds::cluster::circuit_breakers::{self as pb, thresholds};
use policies_xds::cluster::{self};
use policies_xds::core::RoutingPriority;
use std::time::Duration;

pub(super) fn circuit_breakers(message: Option<&cluster::CircuitBreakers>) -> Converted<CircuitBreakers> {
    let mut breakers = CircuitBreakers::default();
    let Some(message) = message else { return Ok(breakers) };
    for (index, one) in message.thresholds.iter().enumerate() {
        let priority = enumeration("priority", one.priority).at_item("thresholds", index)?;
        let converted = thresholds(one).at_item("thresholds", index)?;
        match priority {
            RoutingPriority::Default => breakers.default = converted,
            RoutingPriority::High => breakers.high = converted,
        }
    }
    let per_host = message.per_host_thresholds.iter().find(|one| one.priority == 0);
    breakers.per_host_max_connections = per_host.and_then(|one| number(&one.max_connections));
    Ok(breakers)
}

fn thresholds(message: &pb::Thresholds) -> Converted<Thresholds> {
    let default = Thresholds::default();
    Ok(Thresholds {
        max_connections: number(&message.max_connections).unwrap_or(default.max_connections),
        max_pending_requests: number(&message.max_pending_requests).unwrap_or(default.max_pending_requests),
        max_requests: number(&message.max_requests).unwrap_or(default.max_requests),
        max_retries: number(&message.max_retries).unwrap_or(default.max_retries),
        max_connection_pools: number(&message.max_connection_pools).unwrap_or(default.max_connection_pools),
        retry_budget: message.retry_budget.as_ref().map(retry_budget).transpose().at("retry_budget")?,
        track_remaining: message.track_remaining,
    })
}

fn retry_budget(message: &thresholds::RetryBudget) -> Converted<RetryBudget> {
    Ok(RetryBudget {
        percent: percent("budget_percent", &message.budget_percent, 20.0)?,
        min_concurrency: number(&message.min_retry_concurrency).unwrap_or(3),
    })
}

pub(super) fn outlier(message: &cluster::OutlierDetection) -> Converted<OutlierDetection> {
    if !message.monitors.is_empty() {
        return Err(Invalid::unsupported("monitors", "this field"));
    }
    let base_ejection_time =
        positive_duration("base_ejection_time", &message.base_ejection_time, Duration::from_secs(30))?;
    let max_default = Duration::from_secs(300).max(base_ejection_time);
    let max_ejection_time = positive_duration("max_ejection_time", &message.max_ejection_time, max_default)?;
    if max_ejection_time < base_ejection_time {
        return Err(Invalid::new("max_ejection_time", "must not be shorter than `base_ejection_time`"));
    }
    let or = |value, default| number(value).unwrap_or(default);
    Ok(OutlierDetection {
        consecutive_5xx: or(&message.consecutive_5xx, 5),
        enforcing_consecutive_5xx: whole_percent(
            "enforcing_consecutive_5xx",
            &message.enforcing_consecutive_5xx,
            100,
        )?,
        consecutive_gateway_failure: or(&message.consecutive_gateway_failure, 5),
        enforcing_consecutive_gateway_failure: whole_percent(
            "enforcing_consecutive_gateway_failure",
            &message.enforcing_consecutive_gateway_failure,
            0,
        )?,
        split_external_local_origin_errors: message.split_external_local_origin_errors,
        consecutive_local_origin_failure: or(&message.consecutive_local_origin_failure, 5),
        enforcing_consecutive_local_origin_failure: whole_percent(
            "enforcing_consecutive_local_origin_failure",
            &message.enforcing_consecutive_local_origin_failure,
            100,
        )?,
        interval: positive_duration("interval", &message.interval, Duration::from_secs(10))?,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter: duration_or(
            "max_ejection_time_jitter",
            &message.max_ejection_time_jitter,
            Duration::ZERO,
        )?,
        max_ejection_percent: whole_percent("max_ejection_percent", &message.max_ejection_percent, 10)?,
        always_eject_one: flag(&message.always_eject_one_host, false),
        enforcing_success_rate: whole_percent(
            "enforcing_success_rate",
            &message.enforcing_success_rate,
            100,
        )?,
        success_rate_minimum_hosts: or(&message.success_rate_minimum_hosts, 5),
        success_rate_request_volume: or(&message.success_rate_request_volume, 100),
        success_rate_stdev_factor: or(&message.success_rate_stdev_factor, 1900),
        enforcing_failure_percentage: whole_percent(
            "enforcing_failure_percentage",
            &message.enforcing_failure_percentage,
            0,
        )?,
        failure_percentage_threshold: whole_percent(
            "failure_percentage_threshold",
            &message.failure_percentage_threshold,
            85,
        )?,
        failure_percentage_minimum_hosts: or(&message.failure_percentage_minimum_hosts, 5),
        failure_percentage_request_volume: or(&message.failure_percentage_request_volume, 50),
        enforcing_local_origin_success_rate: whole_percent(
            "enforcing_local_origin_success_rate",
            &message.enforcing_local_origin_success_rate,
            100,
        )?,
        enforcing_failure_percentage_local_origin: whole_percent(
            "enforcing_failure_percentage_local_origin",
            &message.enforcing_failure_percentage_local_origin,
            0,
        )?,
        successful_check_unejects: flag(&message.successful_active_health_check_uneject_host, true),
    })
}
