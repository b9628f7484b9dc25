//! When and how failed requests are tried again.

pub(crate) mod proto;

use crate::matcher::HeaderMatch;
use http::{HeaderMap, HeaderName};
use serde::{Serialize, Serializer};
use std::time::Duration;

/// The conditions under which a request is tried again, a set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

/// How a request is tried again.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// When.
    pub on: RetryOn,
    /// How often, after the first attempt.
    pub num_retries: u32,
    /// How long one attempt may take; `None`: as long as the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// How long one attempt may be still; `None`: no limit.
    pub per_try_idle_timeout: Option<Duration>,
    /// Upper bound of the first pause; pauses are drawn evenly from zero up to a bound that doubles.
    pub back_off_base: Duration,
    /// Upper bound of any pause.
    pub back_off_max: Duration,
    /// Statuses that [`RetryOn::RETRIABLE_STATUS_CODES`] means.
    pub retriable_status_codes: Vec<u16>,
    /// Response headers that [`RetryOn::RETRIABLE_HEADERS`] means.
    pub retriable_headers: Vec<HeaderMatch>,
    /// Only requests whose headers match one of these are tried again; empty: all.
    pub retriable_request_headers: Vec<HeaderMatch>,
    /// An endpoint tried before is not chosen again if another can be found.
    pub avoid_previous_hosts: bool,
    /// Priorities tried before are avoided; they are looked at anew after every so many attempts (at least 1). `None`: not avoided.
    pub avoid_previous_priorities: Option<u32>,
    /// How often another endpoint is looked for.
    pub host_selection_attempts_max: u32,
    /// Pauses that the upstream itself asks for; `None`: not heeded.
    pub rate_limited: Option<RateLimitedBackOff>,
}

/// Pauses that an upstream asks for in its answer, in place of those of the back-off.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitedBackOff {
    /// Headers that say when, the first that is there and not too far away wins; never empty.
    pub headers: Vec<ResetHeader>,
    /// A header that asks for more is passed over.
    pub max: Duration,
}

/// A response header that says when a request may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetHeader {
    /// Its name.
    #[serde(serialize_with = "crate::dump::display")]
    pub name: HeaderName,
    /// What its number means.
    pub format: ResetFormat,
}

/// What the number in a [`ResetHeader`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ResetFormat {
    /// Seconds from now.
    Seconds,
    /// Seconds since 1970.
    UnixTimestamp,
}

// === impl RateLimitedBackOff ===

impl RateLimitedBackOff {
    /// How long to wait at least by what these headers say; `unix` is the wall clock in seconds since 1970.
    pub fn pause(&self, headers: &HeaderMap, unix: u64) -> Option<Duration> {
        self.headers.iter().find_map(|header| {
            let number: u64 = headers.get(&header.name)?.to_str().ok()?.trim().parse().ok()?;
            let seconds = match header.format {
                ResetFormat::Seconds => number,
                ResetFormat::UnixTimestamp => number.checked_sub(unix).filter(|left| *left > 0)?,
            };
            Some(Duration::from_secs(seconds)).filter(|pause| *pause <= self.max)
        })
    }
}

// === impl RetryOn ===

impl RetryOn {
    /// Any 5xx answer, and whatever [`Self::GATEWAY_ERROR`] and resets mean.
    pub const STATUS_5XX: Self = Self(1);
    /// 502, 503 and 504.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// The upstream closed before it answered.
    pub const RESET: Self = Self(1 << 2);
    /// The upstream closed before the request was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// No connection could be made.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// The answer carries `x-envoy-ratelimited`.
    pub const ENVOY_RATELIMITED: Self = Self(1 << 5);
    /// 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// The upstream refused the stream.
    pub const REFUSED_STREAM: Self = Self(1 << 7);
    /// A status in the policy's list.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 8);
    /// A header in the policy's list.
    pub const RETRIABLE_HEADERS: Self = Self(1 << 9);
    /// gRPC status 1.
    pub const GRPC_CANCELLED: Self = Self(1 << 10);
    /// gRPC status 4.
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 11);
    /// gRPC status 13.
    pub const GRPC_INTERNAL: Self = Self(1 << 12);
    /// gRPC status 8.
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    /// gRPC status 14.
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 14);
    /// HTTP/3 was refused after it was offered; never happens here.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);

    const NAMES: [(&'static str, Self); 16] = [
        ("5xx", Self::STATUS_5XX),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("envoy-ratelimited", Self::ENVOY_RATELIMITED),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
    ];

    /// Reads a comma-separated list as in `x-envoy-retry-on`; words that are not known are passed over, as Envoy does.
    pub fn parse(list: &str) -> Self {
        let mut on = Self::default();
        for word in list.split(',').map(str::trim) {
            if let Some((_, flag)) = Self::NAMES.iter().find(|(name, _)| *name == word) {
                on = on.union(*flag);
            }
        }
        on
    }

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Display for RetryOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        for (name, _) in Self::NAMES.iter().filter(|(_, flag)| self.contains(*flag)) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl Serialize for RetryOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
