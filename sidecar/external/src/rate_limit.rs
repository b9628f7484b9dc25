//! `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use policies_xds::core;
use policies_xds::ratelimit_common::{RateLimitDescriptor, rate_limit_descriptor};
use policies_xds::ratelimit_service::rate_limit_response::{Code, DescriptorStatus, rate_limit};
use policies_xds::ratelimit_service::{RateLimitRequest, RateLimitResponse};
use serde_json::Value;
use sidecar_model::rate_limit::DescriptorEntry;

use crate::{AnswerError, grpc, structure};

/// What is called.
pub const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// What a service said.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The request is over a limit.
    pub limited: bool,
    /// Headers for the response.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers for the request.
    pub request_headers: Vec<(HeaderName, HeaderValue)>,
    /// Body of a refusal.
    pub body: Bytes,
    /// The limits that were looked at.
    pub quotas: Vec<Quota>,
    /// Metadata about the request.
    pub metadata: Option<Value>,
}

/// What is left of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Requests allowed in the window.
    pub limit: u32,
    /// Its window.
    pub window: Duration,
    /// Its name; may be empty.
    pub name: String,
    /// Requests left.
    pub remaining: u32,
    /// Until there are more.
    pub reset: Duration,
}

/// The body of the call.
#[must_use]
pub fn encode(domain: &str, descriptors: &[Vec<DescriptorEntry>]) -> Bytes {
    let entry = |entry: &DescriptorEntry| rate_limit_descriptor::Entry {
        key: entry.key.to_string(),
        value: entry.value.to_string(),
    };
    let descriptors = descriptors.iter().map(|entries| RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        ..Default::default()
    });
    grpc::frame(&RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.collect(),
        ..Default::default()
    })
}

/// Reads the answer of a call that gRPC calls a success.
///
/// # Errors
/// When it says nothing clear.
pub fn decode(body: &[u8]) -> Result<Answer, AnswerError> {
    let message: RateLimitResponse = grpc::unframe(body)?;
    let limited = match Code::try_from(message.overall_code) {
        Ok(Code::Ok) => false,
        Ok(Code::OverLimit) => true,
        Ok(Code::Unknown) | Err(_) => return Err(AnswerError::NoVerdict),
    };
    Ok(Answer {
        limited,
        response_headers: headers(&message.response_headers_to_add)?,
        request_headers: headers(&message.request_headers_to_add)?,
        quotas: message.statuses.iter().filter_map(quota).collect(),
        metadata: message.dynamic_metadata.as_ref().map(structure::to_json),
        body: message.raw_body.into(),
    })
}

fn headers(messages: &[core::HeaderValue]) -> Result<Vec<(HeaderName, HeaderValue)>, AnswerError> {
    let one = |message: &core::HeaderValue| {
        let invalid = || AnswerError::Header(message.key.clone());
        let value = if message.raw_value.is_empty() { message.value.as_bytes() } else { &message.raw_value };
        let name = message.key.parse().map_err(|_| invalid())?;
        Ok((name, HeaderValue::from_bytes(value).map_err(|_| invalid())?))
    };
    messages.iter().map(one).collect()
}

fn quota(status: &DescriptorStatus) -> Option<Quota> {
    let limit = status.current_limit.as_ref()?;
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let window = match rate_limit::Unit::try_from(limit.unit).ok()? {
        rate_limit::Unit::Unknown => return None,
        rate_limit::Unit::Second => Duration::from_secs(1),
        rate_limit::Unit::Minute => Duration::from_secs(60),
        rate_limit::Unit::Hour => Duration::from_secs(3600),
        rate_limit::Unit::Day => days(1),
        rate_limit::Unit::Week => days(7),
        rate_limit::Unit::Month => days(30),
        rate_limit::Unit::Year => days(365),
    };
    let reset = status.duration_until_reset.as_ref().map_or(0, |reset| reset.seconds);
    Some(Quota {
        limit: limit.requests_per_unit,
        window,
        name: limit.name.clone(),
        remaining: status.limit_remaining,
        reset: Duration::from_secs(u64::try_from(reset).unwrap_or_default()),
    })
}

/// `x-ratelimit-limit`, `-remaining` and `-reset` (draft-polli-ratelimit-headers-03): of the limit that is nearest to its end.
#[must_use]
pub fn quota_headers(quotas: &[Quota]) -> Option<[(HeaderName, HeaderValue); 3]> {
    let nearest = quotas.iter().min_by_key(|quota| quota.remaining)?;
    let mut limit = nearest.limit.to_string();
    for quota in quotas {
        limit.push_str(&format!(", {};w={}", quota.limit, quota.window.as_secs()));
        if !quota.name.is_empty() {
            limit.push_str(&format!(";name=\"{}\"", quota.name));
        }
    }
    Some([
        (HeaderName::from_static("x-ratelimit-limit"), HeaderValue::try_from(limit).ok()?),
        (HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(nearest.remaining)),
        (HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from(nearest.reset.as_secs())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_no_answer() {
        let answer = |code: i32| {
            decode(&grpc::frame(&RateLimitResponse { overall_code: code, ..Default::default() }))
                .map(|answer| answer.limited)
        };
        assert_eq!(answer(Code::Ok.into()), Ok(false));
        assert_eq!(answer(Code::OverLimit.into()), Ok(true));
        assert_eq!(answer(0), Err(AnswerError::NoVerdict));
        assert_eq!(answer(9), Err(AnswerError::NoVerdict));
    }

    #[test]
    fn headers_tell_of_the_limit_that_ends_first() {
        let quota = |limit, seconds, remaining, name: &str| Quota {
            limit,
            window: Duration::from_secs(seconds),
            name: name.into(),
            remaining,
            reset: Duration::from_secs(seconds / 2),
        };
        let headers = quota_headers(&[quota(100, 60, 40, ""), quota(1000, 3600, 7, "hourly")]).unwrap();
        assert_eq!(headers[0].1, "1000, 100;w=60, 1000;w=3600;name=\"hourly\"");
        assert_eq!((&headers[1].1, &headers[2].1), (&HeaderValue::from(7), &HeaderValue::from(1800)));
        assert!(quota_headers(&[]).is_none());
    }
}
