//! Limits of request rates: by buckets of this process (`local_ratelimit`), and by a service that counts for many (`ratelimit`).

mod descriptors;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use sidecar_external::grpc;
use sidecar_external::rate_limit::{self, Quota};
use sidecar_http::Body;
use sidecar_model::rate_limit::{GlobalRateLimitRoute, RequestOrigin, TokenBucket};
use sidecar_model::{GlobalRateLimit, HeaderAdd, HeaderOps, LocalRateLimit};

use super::Connection;
use super::callout::Callout;
use super::failure::Failure;
use super::filters::Afterwards;
use super::mutate::{self, Side};
use super::record::Record;
use super::reply;
use super::router::{Chosen, view};
use crate::config::Config;
use descriptors::Describe;

/// Namespace of what a service says about a request.
const METADATA: &str = "envoy.filters.http.ratelimit";
/// On refusals.
const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// Whether a request is from inside, as the edge says.
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
/// Longest answer of a service, beyond which it is none.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Takes tokens for a request; the answer when there is none.
#[expect(clippy::result_large_err, reason = "the answer is passed on, not propagated through layers")]
pub(super) fn local(
    limit: &LocalRateLimit,
    connection: &Connection,
    chosen: Option<&Chosen>,
    parts: &mut http::request::Parts,
    record: &mut Record,
    afterwards: &mut Afterwards,
) -> Result<(), Response<Body>> {
    let worker = &connection.down.worker;
    if !limit.enabled.hit(worker.random()) {
        return Ok(());
    }
    let now = worker.shared.now_nanos();
    let mut limited = false;
    let mut nearest: Option<(&TokenBucket, u32)> = None;
    let mut take = |bucket| {
        let taken = TokenBucket::take(bucket, now);
        if nearest.is_none_or(|(_, remaining)| taken.remaining < remaining) {
            nearest = Some((bucket, taken.remaining));
        }
        limited |= !taken.allowed;
    };
    let mut described = false;
    if !limit.descriptors.is_empty() {
        let view = view(parts, record);
        let describe =
            Describe { view: &view, chosen, node: &worker.shared.node, remote: record.remote.ip() };
        let wanted = descriptors::wanted(&limit.limits, chosen, limit.host_limits, limit.stage);
        let described_as: Vec<_> = wanted.into_iter().filter_map(|limit| describe.entries(limit)).collect();
        for own in &limit.descriptors {
            if described_as.contains(&own.entries) {
                described = true;
                take(&own.bucket);
            }
        }
    }
    if let Some(bucket) = limit.bucket.as_ref().filter(|_| limit.always_default || !described) {
        take(bucket);
    }
    let Some((bucket, remaining)) = nearest else { return Ok(()) };
    let quota = limit.quota_headers.then(|| local_quota(bucket, remaining, now)).flatten();
    if !limited || !limit.enforced.hit(worker.random()) {
        if limited {
            apply(&limit.request_headers_when_not_enforced, &mut parts.headers, record);
        }
        afterwards.headers.extend(quota.into_iter().flatten());
        return Ok(());
    }
    let failure = Failure::RateLimited {
        status: limit.status,
        details: "local_rate_limited",
        body: "local_rate_limited",
        grpc_status: if limit.resource_exhausted { 8 } else { 14 },
    };
    let mut response = reply::failed(&failure, record);
    let headers = response.headers_mut();
    headers.insert(LIMITED, HeaderValue::from_static("true"));
    headers.extend(quota.into_iter().flatten());
    apply(&limit.response_headers, headers, record);
    Err(response)
}

fn local_quota(bucket: &TokenBucket, remaining: u32, now: u64) -> Option<[(HeaderName, HeaderValue); 3]> {
    let quota = Quota {
        limit: bucket.max_tokens,
        window: bucket.fill_interval,
        name: String::new(),
        remaining,
        reset: bucket.until_token(now),
    };
    let mut headers = rate_limit::quota_headers(std::slice::from_ref(&quota))?;
    // One bucket has no list of windows.
    headers[0].1 = HeaderValue::from(bucket.max_tokens);
    Some(headers)
}

fn apply(add: &[HeaderAdd], headers: &mut http::HeaderMap, record: &Record) {
    if !add.is_empty() {
        let ops = HeaderOps { add: add.to_vec(), remove: Vec::new() };
        mutate::apply(&ops, headers, record, &Side::Request);
    }
}

/// A request before a rate limit service.
pub(super) struct Asking<'a> {
    pub(super) connection: &'a Connection,
    pub(super) config: &'a Config,
    pub(super) filter: &'a GlobalRateLimit,
    pub(super) route: Option<&'a GlobalRateLimitRoute>,
    pub(super) chosen: Option<&'a Chosen>,
}

impl Asking<'_> {
    /// Asks the service about a request; the answer when it is over a limit.
    pub(super) async fn judge(
        &self,
        parts: &mut http::request::Parts,
        record: &mut Record,
        afterwards: &mut Afterwards,
    ) -> Result<(), Response<Body>> {
        let (filter, worker) = (self.filter, &self.connection.down.worker);
        let internal = parts.headers.get(INTERNAL).is_some_and(|value| value == "true");
        let concerned = match filter.requests {
            RequestOrigin::Both => true,
            RequestOrigin::Internal => internal,
            RequestOrigin::External => !internal,
        };
        if !concerned || !filter.enabled.hit(worker.random()) {
            return Ok(());
        }
        let described = self.descriptors(parts, record);
        if described.is_empty() {
            return Ok(());
        }
        let domain = self.route.map_or(&*filter.domain, |route| &route.domain);
        let domain = if domain.is_empty() { &*filter.domain } else { domain };
        let Some(answer) = self.ask(rate_limit::encode(domain, &described)).await else {
            if !filter.failure_mode_deny {
                return Ok(());
            }
            return Err(reply::failed(&Failure::RateLimitServiceError(filter.status_on_error), record));
        };
        if let Some(serde_json::Value::Object(fields)) = answer.metadata {
            record.metadata.get_or_insert_default().extend(METADATA, fields);
        }
        let quota = filter.quota_headers.then(|| rate_limit::quota_headers(&answer.quotas)).flatten();
        if !answer.limited || !filter.enforced.hit(worker.random()) {
            parts.headers.extend(answer.request_headers);
            afterwards.headers.extend(answer.response_headers.into_iter().chain(quota.into_iter().flatten()));
            return Ok(());
        }
        let failure = Failure::RateLimited {
            status: filter.limited_status,
            details: "request_rate_limited",
            body: "",
            grpc_status: if filter.resource_exhausted { 8 } else { 14 },
        };
        let mut response = reply::failed(&failure, record);
        if !answer.body.is_empty() && !record.grpc {
            *response.body_mut() = Body::full(answer.body);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        let headers = response.headers_mut();
        headers
            .extend(answer.response_headers.into_iter().filter(|(name, _)| *name != header::CONTENT_LENGTH));
        if !filter.without_limited_header {
            headers.insert(LIMITED, HeaderValue::from_static("true"));
        }
        headers.extend(quota.into_iter().flatten());
        apply(&filter.response_headers, headers, record);
        Err(response)
    }

    fn descriptors(
        &self,
        parts: &http::request::Parts,
        record: &Record,
    ) -> Vec<Vec<sidecar_model::rate_limit::DescriptorEntry>> {
        let view = view(parts, record);
        let node = &self.connection.down.worker.shared.node;
        let describe = Describe { view: &view, chosen: self.chosen, node, remote: record.remote.ip() };
        let of_route = self.route.map(|route| &route.limits[..]).filter(|limits| !limits.is_empty());
        let host_limits = self.route.map(|route| route.host_limits).unwrap_or_default();
        let own = of_route.unwrap_or(&self.filter.limits);
        let wanted = descriptors::wanted(own, self.chosen, host_limits, self.filter.stage);
        wanted.into_iter().filter_map(|limit| describe.entries(limit)).collect()
    }

    /// What the service says; none when it says nothing.
    async fn ask(&self, body: bytes::Bytes) -> Option<rate_limit::Answer> {
        let service = &self.filter.service;
        let down = &self.connection.down;
        let callout = Callout {
            worker: &down.worker,
            config: self.config,
            cluster: &service.cluster,
            http2: true,
            timeout: service.timeout,
            body_bytes_max: ANSWER_BYTES_MAX,
            addresses: Some((down.local, down.peer)),
        };
        let answer = match callout.send(&grpc::head(service, rate_limit::METHOD), &body, |_| true).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(cluster = %service.cluster, ?error, "Rate limit service gives no answer");
                return None;
            }
        };
        let status = grpc::status(&answer.parts.headers, answer.trailers.as_ref());
        if answer.status() != StatusCode::OK || status != Some(0) {
            tracing::debug!(cluster = %service.cluster, ?status, "Rate limit service fails");
            return None;
        }
        rate_limit::decode(&answer.body)
            .inspect_err(|error| {
                tracing::debug!(cluster = %service.cluster, %error, "Rate limit service cannot be understood");
            })
            .ok()
    }
}
