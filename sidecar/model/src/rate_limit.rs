//! Limits of request rates: token buckets of this process, and descriptors for a service that counts for many.

pub(crate) mod proto;

use crate::ext_authz::GrpcService;
use crate::header_ops::HeaderAdd;
use crate::matcher::{Fraction, HeaderMatch, QueryMatch};
use http::{HeaderName, StatusCode};
use serde::{Serialize, Serializer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A bucket of tokens that fills steadily; a request takes one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenBucket {
    /// Tokens it holds, and begins with.
    pub max_tokens: u32,
    /// Tokens that come in each interval; not 0.
    pub tokens_per_fill: u32,
    /// The interval; not below 50 ms.
    pub fill_interval: Duration,
    /// What is in it. It lives with the configuration, as in Envoy: an unchanged one keeps it over pushes.
    pub level: Level,
}

/// The state of a bucket: the time, in nanoseconds of the caller's clock, up to which its tokens are spent; 0: never touched.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

/// What taking a token came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// There was one.
    pub allowed: bool,
    /// Tokens left.
    pub remaining: u32,
}

/// One entry of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DescriptorEntry {
    /// Its key.
    pub key: Arc<str>,
    /// Its value.
    pub value: Arc<str>,
}

/// A bucket for requests with all of these entries.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalDescriptor {
    /// The entries, in order.
    pub entries: Vec<DescriptorEntry>,
    /// Its bucket.
    pub bucket: TokenBucket,
}

/// Which limits of virtual hosts hold beside those of routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostLimits {
    /// They hold when the route has none.
    #[default]
    Override,
    /// They hold too.
    Include,
    /// They do not hold when there is a route.
    Ignore,
}

/// Limits by buckets of this process, shared by all its workers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalRateLimit {
    /// Prefix of its metrics.
    pub stat_prefix: Box<str>,
    /// Status of refused requests.
    #[serde(serialize_with = "crate::dump::status")]
    pub status: StatusCode,
    /// The bucket of requests that no descriptor takes; `None`: no limit for them.
    pub bucket: Option<TokenBucket>,
    /// Chance that a request is counted.
    pub enabled: Fraction,
    /// Chance that a request over the limit is refused.
    pub enforced: Fraction,
    /// Set on requests over the limit that are not refused.
    pub request_headers_when_not_enforced: Vec<HeaderAdd>,
    /// Set on refusals.
    pub response_headers: Vec<HeaderAdd>,
    /// Buckets by descriptor, the slowest first.
    pub descriptors: Vec<LocalDescriptor>,
    /// Which limits of routes and hosts make descriptors here.
    pub stage: u32,
    /// `x-ratelimit-*` headers are set on responses.
    pub quota_headers: bool,
    /// Limits of virtual hosts.
    pub host_limits: HostLimits,
    /// The bucket without descriptor is asked also when a descriptor took the request.
    pub always_default: bool,
    /// gRPC clients get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// Limits of the filter itself, which replace those of routes.
    pub limits: Vec<RateLimit>,
}

/// Limits by a service (`envoy.service.ratelimit.v3`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRateLimit {
    /// The service's name for this set of limits.
    pub domain: Box<str>,
    /// Which limits of routes make descriptors here.
    pub stage: u32,
    /// Requests it is for.
    pub requests: RequestOrigin,
    /// The service.
    pub service: GrpcService,
    /// Without an answer requests are refused.
    pub failure_mode_deny: bool,
    /// Status of those.
    #[serde(serialize_with = "crate::dump::status")]
    pub status_on_error: StatusCode,
    /// Status of requests over the limit.
    #[serde(serialize_with = "crate::dump::status")]
    pub limited_status: StatusCode,
    /// gRPC clients get RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// `x-ratelimit-*` headers are set on responses.
    pub quota_headers: bool,
    /// Refusals do not carry `x-envoy-ratelimited`.
    pub without_limited_header: bool,
    /// Set on refusals.
    pub response_headers: Vec<HeaderAdd>,
    /// Chance that the service is asked.
    pub enabled: Fraction,
    /// Chance that its no is heeded.
    pub enforced: Fraction,
    /// Limits of the filter itself, which replace those of routes.
    pub limits: Vec<RateLimit>,
}

/// Requests by where they come from: `x-envoy-internal` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestOrigin {
    /// All.
    #[default]
    Both,
    /// From inside.
    Internal,
    /// From outside.
    External,
}

/// What a route says about the rate limit service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRateLimitRoute {
    /// Limits of virtual hosts.
    pub host_limits: HostLimits,
    /// Limits here, which replace those of the route.
    pub limits: Vec<RateLimit>,
    /// Another domain; empty: the filter's.
    pub domain: Box<str>,
}

/// How a request becomes a descriptor; a request that lacks what an action asks for has none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Which filters it is for.
    pub stage: u32,
    /// One entry each.
    pub actions: Vec<LimitAction>,
}

/// What makes one entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitAction {
    /// `source_cluster`: this process's own cluster.
    SourceCluster,
    /// `destination_cluster`: the cluster of the route.
    DestinationCluster,
    /// A header's value.
    Header {
        /// The header.
        #[serde(serialize_with = "crate::dump::display")]
        name: HeaderName,
        /// Key of the entry.
        key: Arc<str>,
        /// Without the header there is no entry, but still a descriptor.
        skip_if_absent: bool,
    },
    /// A query parameter's value.
    Query {
        /// The parameter.
        name: Box<str>,
        /// Key of the entry.
        key: Arc<str>,
        /// Without the parameter there is no entry, but still a descriptor.
        skip_if_absent: bool,
    },
    /// `remote_address`: the client, as far as it is known and trusted.
    RemoteAddress,
    /// `masked_remote_address`: the client's network.
    MaskedRemoteAddress {
        /// Bits of IPv4 addresses.
        v4_bits: u8,
        /// Bits of IPv6 addresses.
        v6_bits: u8,
    },
    /// A fixed entry.
    Fixed(DescriptorEntry),
    /// A fixed entry for requests whose headers match, or do not.
    HeaderMatch {
        /// The entry.
        entry: DescriptorEntry,
        /// Whether they must match.
        expect: bool,
        /// All of these.
        headers: Vec<HeaderMatch>,
    },
    /// A fixed entry for requests whose query matches, or does not.
    QueryMatch {
        /// The entry.
        entry: DescriptorEntry,
        /// Whether it must match.
        expect: bool,
        /// All of these.
        parameters: Vec<QueryMatch>,
    },
    /// A text of the request's metadata.
    Metadata {
        /// Namespace.
        filter: Box<str>,
        /// Keys down to the text.
        path: Vec<Box<str>>,
        /// Key of the entry.
        key: Arc<str>,
        /// The value when there is none; empty: no descriptor.
        default: Arc<str>,
        /// Without a value there is no entry, but still a descriptor.
        skip_if_absent: bool,
    },
}

// === impl Level ===

impl Clone for Level {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for Level {
    /// Levels are no configuration.
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

// === impl TokenBucket ===

impl TokenBucket {
    /// Nanoseconds until one token comes.
    fn token_nanos(&self) -> u64 {
        let interval = u64::try_from(self.fill_interval.as_nanos()).unwrap_or(u64::MAX);
        (interval / u64::from(self.tokens_per_fill.max(1))).max(1)
    }

    /// Takes a token at `now_nanos` of a clock that does not go back and has left 0. No lock: at worst the attempt is repeated.
    pub fn take(&self, now_nanos: u64) -> Taken {
        let token = self.token_nanos();
        // Full means that everything is spent only up to so long ago.
        let full = now_nanos.saturating_sub(token.saturating_mul(u64::from(self.max_tokens)));
        let mut spent = self.level.0.load(Ordering::Relaxed);
        loop {
            let next = spent.max(full).saturating_add(token);
            if next > now_nanos {
                return Taken { allowed: false, remaining: 0 };
            }
            match self.level.0.compare_exchange_weak(spent, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let remaining = (now_nanos - next) / token;
                    return Taken { allowed: true, remaining: u32::try_from(remaining).unwrap_or(u32::MAX) };
                }
                Err(current) => spent = current,
            }
        }
    }

    /// Time until the next token, as of `now_nanos`.
    pub fn until_token(&self, now_nanos: u64) -> Duration {
        let next = self.level.0.load(Ordering::Relaxed).saturating_add(self.token_nanos());
        Duration::from_nanos(next.saturating_sub(now_nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bucket(max_tokens: u32, tokens_per_fill: u32) -> TokenBucket {
        TokenBucket {
            max_tokens,
            tokens_per_fill,
            fill_interval: Duration::from_secs(1),
            level: Level::default(),
        }
    }

    #[test]
    fn a_bucket_begins_full_empties_and_fills_steadily() {
        let bucket = bucket(3, 2);
        let start = 1000 * SECOND;
        let left: Vec<_> = (0..3).map(|_| bucket.take(start).remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        assert!(!bucket.take(start).allowed && !bucket.take(start + SECOND / 2 - 1).allowed);
        assert_eq!(bucket.until_token(start), Duration::from_millis(500));
        assert!(bucket.take(start + SECOND / 2).allowed);
        assert!(!bucket.take(start + SECOND / 2).allowed);
        let taken = (0..100).filter(|_| bucket.take(start + 60 * SECOND).allowed).count();
        assert_eq!(taken, 3, "it never holds more than its size");
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let bucket = Arc::new(bucket(1000, 1));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let bucket = Arc::clone(&bucket);
                std::thread::spawn(move || (0..1000).filter(|_| bucket.take(5000 * SECOND).allowed).count())
            })
            .collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 1000);
    }
}
