//! `envoy.config.route.v3.RetryPolicy`.

use super::{RetryOn, RetryPolicy};
use crate::convert::{At, Converted, each, number, positive_duration, refuse, timeout};
use crate::invalid::Invalid;
use crate::matcher::proto::header_match;
use policies_xds::previous_hosts::PreviousHostsPredicate;
use policies_xds::previous_priorities::PreviousPrioritiesConfig;
use policies_xds::route::{self, retry_policy};
use prost::Name;
use std::time::Duration;

/// Envoy's default pause.
const BACK_OFF_BASE: Duration = Duration::from_millis(25);
/// Envoy's default bound is this many times the pause.
const BACK_OFF_MAX_FACTOR: u32 = 10;

pub(crate) fn retry_policy(message: &route::RetryPolicy) -> Converted<RetryPolicy> {
    refuse("retry_options_predicates", !message.retry_options_predicates.is_empty())?;
    let (back_off_base, back_off_max) = back_off(message.retry_back_off.as_ref()).at("retry_back_off")?;
    let mut avoid_previous_hosts = false;
    for (index, predicate) in message.retry_host_predicate.iter().enumerate() {
        avoid_previous_hosts |= previous_hosts(predicate).at_item("retry_host_predicate", index)?;
    }
    Ok(RetryPolicy {
        on: RetryOn::parse(&message.retry_on),
        num_retries: number(&message.num_retries).unwrap_or(1),
        per_try_timeout: timeout("per_try_timeout", &message.per_try_timeout, None)?,
        per_try_idle_timeout: timeout("per_try_idle_timeout", &message.per_try_idle_timeout, None)?,
        back_off_base,
        back_off_max,
        retriable_status_codes: each("retriable_status_codes", &message.retriable_status_codes, |code| {
            u16::try_from(*code).map_err(|_| Invalid::new("", format!("{code} is not a status")))
        })?,
        retriable_headers: each("retriable_headers", &message.retriable_headers, header_match)?,
        retriable_request_headers: each(
            "retriable_request_headers",
            &message.retriable_request_headers,
            header_match,
        )?,
        avoid_previous_hosts,
        avoid_previous_priorities: match &message.retry_priority {
            Some(priority) => previous_priorities(priority).at("retry_priority")?,
            None => false,
        },
        host_selection_attempts_max: attempts(message.host_selection_retry_max_attempts)?,
    })
}

fn back_off(message: Option<&retry_policy::RetryBackOff>) -> Converted<(Duration, Duration)> {
    let default = retry_policy::RetryBackOff::default();
    let message = message.unwrap_or(&default);
    let base = positive_duration("base_interval", &message.base_interval, BACK_OFF_BASE)?;
    let max =
        positive_duration("max_interval", &message.max_interval, base.saturating_mul(BACK_OFF_MAX_FACTOR))?;
    if max < base {
        return Err(Invalid::new("max_interval", "must not be shorter than `base_interval`"));
    }
    Ok((base, max))
}

fn attempts(value: i64) -> Converted<u32> {
    match value {
        0 => Ok(1),
        _ => u32::try_from(value).map_err(|_| {
            Invalid::new("host_selection_retry_max_attempts", "must not be negative or above 2^32 - 1")
        }),
    }
}

fn previous_hosts(message: &retry_policy::RetryHostPredicate) -> Converted<bool> {
    let url = message
        .config_type
        .as_ref()
        .map_or("", |retry_policy::retry_host_predicate::ConfigType::TypedConfig(any)| any.type_url.as_str());
    if url == PreviousHostsPredicate::type_url()
        || (url.is_empty() && message.name == "envoy.retry_host_predicates.previous_hosts")
    {
        return Ok(true);
    }
    Err(Invalid::unsupported("", format!("predicate `{}` of type `{url}`", message.name)))
}

fn previous_priorities(message: &retry_policy::RetryPriority) -> Converted<bool> {
    let url = message
        .config_type
        .as_ref()
        .map_or("", |retry_policy::retry_priority::ConfigType::TypedConfig(any)| any.type_url.as_str());
    if url == PreviousPrioritiesConfig::type_url() {
        return Ok(true);
    }
    Err(Invalid::unsupported("", format!("`{}` of type `{url}`", message.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies_xds::any;
    use policies_xds::protobuf::{self, UInt32Value};

    #[test]
    fn envoys_defaults() {
        let policy =
            retry_policy(&route::RetryPolicy { retry_on: "5xx".into(), ..Default::default() }).unwrap();
        assert_eq!((policy.num_retries, policy.host_selection_attempts_max), (1, 1));
        assert_eq!((policy.back_off_base, policy.back_off_max), (BACK_OFF_BASE, Duration::from_millis(250)));
        assert_eq!(policy.on, RetryOn::STATUS_5XX);
        assert!(!policy.avoid_previous_hosts && policy.per_try_timeout.is_none());
    }

    #[test]
    fn what_istio_sends() {
        let config = any(&PreviousHostsPredicate {});
        let mut message = route::RetryPolicy {
            retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes".into(),
            num_retries: Some(UInt32Value { value: 2 }),
            retriable_status_codes: vec![503],
            host_selection_retry_max_attempts: 5,
            retry_host_predicate: vec![retry_policy::RetryHostPredicate {
                name: "envoy.retry_host_predicates.previous_hosts".into(),
                config_type: Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(config)),
            }],
            ..Default::default()
        };
        let policy = retry_policy(&message).unwrap();
        assert!(policy.avoid_previous_hosts && policy.on.contains(RetryOn::GRPC_CANCELLED));
        assert_eq!((policy.retriable_status_codes, policy.host_selection_attempts_max), (vec![503], 5));

        message.host_selection_retry_max_attempts = -1;
        assert_eq!(retry_policy(&message).unwrap_err().field, "host_selection_retry_max_attempts");
        message.retry_host_predicate[0].config_type = None;
        message.retry_host_predicate[0].name = "other".into();
        assert_eq!(retry_policy(&message).unwrap_err().field, "retry_host_predicate[0]");
        let base_interval = Some(protobuf::Duration { seconds: 0, nanos: 0 });
        message.retry_back_off = Some(retry_policy::RetryBackOff { base_interval, max_interval: None });
        assert_eq!(retry_policy(&message).unwrap_err().field, "retry_back_off.base_interval");
    }
}
