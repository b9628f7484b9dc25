//! Retries of a rule; without any, Istio's defaults.

use policies_api::virtual_service::Retries;
use policies_xds::route::RetryPolicy;
use policies_xds::route::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use policies_xds::{any, previous_hosts, previous_priorities};

use crate::proto::{duration, number};

/// Conditions under which nothing of the request was processed.
const DEFAULT_CONDITIONS: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// How often another host is looked for.
const HOST_SELECTION_ATTEMPTS: i64 = 5;

/// The policy of a rule; none when retries are off. `sticky` turns off the search for other hosts.
pub(crate) fn policy(written: Option<&Retries>, sticky: bool) -> Option<RetryPolicy> {
    let default = Retries { attempts: 2, ..Retries::default() };
    let written = written.unwrap_or(&default);
    let attempts = u32::try_from(written.attempts).ok().filter(|it| *it > 0)?;
    let (retry_on, retriable_status_codes) = conditions(&written.retry_on);
    let mut policy = RetryPolicy {
        retry_on,
        retriable_status_codes,
        num_retries: number(attempts),
        per_try_timeout: written.per_try_timeout.filter(|it| !it.0.is_zero()).map(|it| duration(it.0)),
        retry_back_off: written
            .backoff
            .filter(|it| !it.0.is_zero())
            .map(|it| RetryBackOff { base_interval: Some(duration(it.0)), max_interval: None }),
        ..Default::default()
    };
    if written.retry_ignore_previous_hosts != Some(false) && !sticky {
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &previous_hosts::PreviousHostsPredicate {},
            ))),
        }];
        policy.host_selection_retry_max_attempts = HOST_SELECTION_ATTEMPTS;
    }
    if written.retry_remote_localities == Some(true) {
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(any(
                &previous_priorities::PreviousPrioritiesConfig { update_frequency: 2 },
            ))),
        });
    }
    Some(policy)
}

/// Numbers among the conditions are status codes.
fn conditions(written: &str) -> (String, Vec<u32>) {
    if written.trim().is_empty() {
        return (DEFAULT_CONDITIONS.to_owned(), Vec::new());
    }
    let mut names: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for part in written.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(part),
        }
    }
    if !codes.is_empty() && !names.contains(&"retriable-status-codes") {
        names.push("retriable-status-codes");
    }
    (names.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_codes() {
        assert_eq!(
            conditions("5xx, 503,connect-failure"),
            ("5xx,connect-failure,retriable-status-codes".to_owned(), vec![503])
        );
        assert_eq!(conditions(""), (DEFAULT_CONDITIONS.to_owned(), vec![]));
    }

    #[test]
    fn zero_attempts_turn_retries_off() {
        assert!(policy(Some(&Retries::default()), false).is_none());
        assert_eq!(policy(None, false).unwrap().num_retries, number(2));
        assert!(policy(None, true).unwrap().retry_host_predicate.is_empty());
    }
}
