//! `envoy.config.route.v3.RetryPolicy`.

use super::{RateLimitedBackOff, ResetFormat, ResetHeader, RetryOn, RetryPolicy};
use crate::convert::{
    At, Converted, each, enumeration, header_name, number, positive_duration, refuse, timeout, unpack,
};
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
/// Envoy's default bound of a pause that an upstream asks for.
const RATE_LIMITED_MAX: Duration = Duration::from_secs(300);

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
        avoid_previous_priorities: message
            .retry_priority
            .as_ref()
            .map(previous_priorities)
            .transpose()
            .at("retry_priority")?,
        host_selection_attempts_max: attempts(message.host_selection_retry_max_attempts)?,
        rate_limited: message
            .rate_limited_retry_back_off
            .as_ref()
            .map(rate_limited)
            .transpose()
            .at("rate_limited_retry_back_off")?,
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

fn rate_limited(message: &retry_policy::RateLimitedRetryBackOff) -> Converted<RateLimitedBackOff> {
    if message.reset_headers.is_empty() {
        return Err(Invalid::missing("reset_headers"));
    }
    let headers = each("reset_headers", &message.reset_headers, |header| {
        let format = match enumeration("format", header.format)? {
            retry_policy::ResetHeaderFormat::Seconds => ResetFormat::Seconds,
            retry_policy::ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
        };
        Ok(ResetHeader { name: header_name("name", &header.name)?, format })
    })?;
    let max = positive_duration("max_interval", &message.max_interval, RATE_LIMITED_MAX)?;
    Ok(RateLimitedBackOff { headers, max })
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

/// After how many attempts the priorities tried so far are looked at.
fn previous_priorities(message: &retry_policy::RetryPriority) -> Converted<u32> {
    let Some(retry_policy::retry_priority::ConfigType::TypedConfig(any)) = &message.config_type else {
        return Err(Invalid::unsupported("", format!("`{}` without a configuration", message.name)));
    };
    if any.type_url != PreviousPrioritiesConfig::type_url() {
        return Err(Invalid::unsupported("", format!("`{}` of type `{}`", message.name, any.type_url)));
    }
    let config: PreviousPrioritiesConfig = unpack("typed_config", any)?;
    u32::try_from(config.update_frequency)
        .ok()
        .filter(|attempts| *attempts > 0)
        .ok_or_else(|| Invalid::new("typed_config.update_frequency", "must be above zero"))
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
    #[test]
    fn an_upstream_may_ask_for_a_pause() {
        let header = |name: &str, format: retry_policy::ResetHeaderFormat| retry_policy::ResetHeader {
            name: name.into(),
            format: format.into(),
        };
        let message = route::RetryPolicy {
            rate_limited_retry_back_off: Some(retry_policy::RateLimitedRetryBackOff {
                reset_headers: vec![
                    header("retry-after", retry_policy::ResetHeaderFormat::Seconds),
                    header("x-ratelimit-reset", retry_policy::ResetHeaderFormat::UnixTimestamp),
                ],
                max_interval: None,
            }),
            ..Default::default()
        };
        let rules = retry_policy(&message).unwrap().rate_limited.unwrap();
        let pause = |headers: &[(&'static str, &str)]| {
            let named = headers.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
            });
            rules.pause(&named.collect(), 1_000).map(|pause| pause.as_secs())
        };
        assert_eq!(pause(&[("retry-after", "7"), ("x-ratelimit-reset", "1001")]), Some(7), "the first wins");
        assert_eq!(pause(&[("retry-after", "301"), ("x-ratelimit-reset", "1001")]), Some(1), "too long");
        assert_eq!(pause(&[("x-ratelimit-reset", "1000")]), None, "no time is left");
        assert_eq!(pause(&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]), None, "dates are not heeded");
        assert_eq!(pause(&[]), None);
        let empty = retry_policy::RateLimitedRetryBackOff::default();
        let message = route::RetryPolicy { rate_limited_retry_back_off: Some(empty), ..Default::default() };
        assert_eq!(retry_policy(&message).unwrap_err().field, "rate_limited_retry_back_off.reset_headers");
    }

    #[test]
    fn priorities_need_a_frequency() {
        let with = |update_frequency| route::RetryPolicy {
            retry_priority: Some(retry_policy::RetryPriority {
                name: "envoy.retry_priorities.previous_priorities".into(),
                config_type: Some(retry_policy::retry_priority::ConfigType::TypedConfig(any(
                    &PreviousPrioritiesConfig { update_frequency },
                ))),
            }),
            ..Default::default()
        };
        assert_eq!(retry_policy(&with(2)).unwrap().avoid_previous_priorities, Some(2));
        assert_eq!(retry_policy(&with(0)).unwrap_err().field, "retry_priority.typed_config.update_frequency");
    }
}
