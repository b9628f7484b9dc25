//! Whether a failed attempt is made again, and when.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base_types::Backoff;
use http::{HeaderName, Response};
use sidecar_http::Body;
use sidecar_model::{RetryOn, RetryPolicy};
use sidecar_route::{RequestView, headers_match};

use super::failure::Failure;
use super::grpc;

const RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// The retries of one request.
pub(super) struct Retries {
    policy: Arc<RetryPolicy>,
    left: u32,
    backoff: Backoff,
    /// What the last answer asked for.
    asked: Option<Duration>,
}

impl Retries {
    /// From the route's policy; none if nothing is retried. What the headers of a request ask for is not heard: they are taken off
    /// before.
    pub(super) fn new(policy: Option<&Arc<RetryPolicy>>, view: &RequestView<'_>) -> Option<Self> {
        let policy = policy.filter(|policy| !policy.on.is_empty())?;
        let wanted = &policy.retriable_request_headers;
        if !wanted.is_empty() && !wanted.iter().any(|one| headers_match(std::slice::from_ref(one), view)) {
            return None;
        }
        Some(Self {
            policy: Arc::clone(policy),
            left: policy.num_retries,
            backoff: Backoff::new(policy.back_off_base, policy.back_off_max),
            asked: None,
        })
    }

    /// Whether endpoints that were tried are avoided.
    pub(super) fn avoids_previous(&self) -> bool {
        self.policy.avoid_previous_hosts
    }

    /// Takes one retry, if one is left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        left
    }

    /// How long to wait before the next attempt: as long as the answer asked for and up to half of that more, else by the
    /// back-off; `random` is in `[0, 1)`.
    pub(super) fn pause(&mut self, random: f64) -> Duration {
        match self.asked.take() {
            Some(asked) => asked + (asked / 2).mul_f64(random),
            None => self.backoff.next_delay(random),
        }
    }

    /// How long one attempt may be still.
    pub(super) fn per_try_idle_timeout(&self) -> Option<Duration> {
        self.policy.per_try_idle_timeout.filter(|timeout| !timeout.is_zero())
    }

    /// After how many attempts the priorities tried so far are avoided.
    pub(super) fn avoids_priorities(&self) -> Option<u32> {
        self.policy.avoid_previous_priorities
    }

    /// Whether a failure without a response is one to retry. `begun` says that a connection was there to send the request on,
    /// `reused` that it had carried others before.
    pub(super) fn wants_after_failure(&self, failure: &Failure, begun: bool, reused: bool) -> bool {
        // Envoy counts every reset as the 5xx that it would become.
        let mut wanted = RetryOn::STATUS_5XX.union(RetryOn::GATEWAY_ERROR).union(RetryOn::RESET);
        match failure {
            Failure::Connect(_) => wanted = wanted.union(RetryOn::CONNECT_FAILURE),
            Failure::RefusedStream => wanted = wanted.union(RetryOn::REFUSED_STREAM),
            Failure::ConnectionTermination
            | Failure::RemoteReset
            | Failure::Protocol(_)
            | Failure::PerTryTimeout
            | Failure::PerTryIdleTimeout => {}
            _ => return false,
        }
        // A refused stream was not looked at, and what was written into a kept connection that was closing was not read.
        let unread = !begun
            || *failure == Failure::RefusedStream
            || (reused && *failure == Failure::ConnectionTermination);
        if unread {
            wanted = wanted.union(RetryOn::RESET_BEFORE_REQUEST);
        }
        self.policy.on.intersects(wanted)
    }

    /// Whether a response is one to retry; remembers for how long it asks to wait.
    pub(super) fn wants_after_response(&mut self, response: &Response<Body>) -> bool {
        let wanted = self.wants_status(response);
        if wanted && let Some(rules) = self.policy.rate_limited.as_ref() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.asked = rules.pause(response.headers(), now.as_secs());
        }
        wanted
    }

    fn wants_status(&self, response: &Response<Body>) -> bool {
        let status = response.status().as_u16();
        let on = |flag| self.policy.on.contains(flag);
        if response.headers().contains_key(RATELIMITED) {
            // Another proxy limits the rate: only who says so tries again.
            return on(RetryOn::ENVOY_RATELIMITED);
        }
        (on(RetryOn::STATUS_5XX) && status >= 500)
            || (on(RetryOn::GATEWAY_ERROR) && matches!(status, 502..=504))
            || (on(RetryOn::RETRIABLE_4XX) && status == 409)
            || (on(RetryOn::RETRIABLE_STATUS_CODES) && self.policy.retriable_status_codes.contains(&status))
            || (on(RetryOn::RETRIABLE_HEADERS) && self.header_wanted(response))
            || self.grpc_wanted(response)
    }

    fn header_wanted(&self, response: &Response<Body>) -> bool {
        let view = RequestView {
            method: "",
            authority: "",
            path: "",
            scheme: "",
            headers: response.headers(),
            metadata: None,
        };
        let headers = &self.policy.retriable_headers;
        headers.iter().any(|one| headers_match(std::slice::from_ref(one), &view))
    }

    /// A gRPC status in the headers alone: once messages have come it is too late.
    fn grpc_wanted(&self, response: &Response<Body>) -> bool {
        let flag = match grpc::status(response.headers()) {
            Some(1) => RetryOn::GRPC_CANCELLED,
            Some(4) => RetryOn::GRPC_DEADLINE_EXCEEDED,
            Some(8) => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            Some(13) => RetryOn::GRPC_INTERNAL,
            Some(14) => RetryOn::GRPC_UNAVAILABLE,
            _ => return false,
        };
        self.policy.on.contains(flag)
    }
}
