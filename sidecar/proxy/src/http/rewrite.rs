//! How a request is changed before it is forwarded, and whether it may be.

use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use sidecar_model::route_action::GrpcTimeout;
use sidecar_route::{host_rewrite, path_rewrite};

use super::attempt::Forwarding;
use super::mutate::{self, Side};
use super::record::Record;
use super::respond::{ATTEMPT_COUNT, Which, levels};
use super::router::view;
use super::{grpc, prepare};

/// `x-envoy-original-path`
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// `x-envoy-original-host`
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
/// `x-forwarded-host`
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `x-envoy-expected-rq-timeout-ms`
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// One attempt.
    pub(super) attempt: Option<Duration>,
    /// All of them.
    pub(super) whole: Option<Duration>,
}

/// What becomes of a request that wants another protocol on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// It wants none.
    None,
    /// It is passed on, and the connection with it.
    Forward,
    /// CONNECT ends here: the upstream gets the bytes.
    Terminate,
    /// Neither the route nor the connection manager allows it.
    Denied,
}

/// Upgrades and CONNECT must be allowed by the route or, when it does not say, by the connection manager.
pub(super) fn switch(cx: &Forwarding<'_>, parts: &Parts) -> Switch {
    let protocol = match (&parts.method, parts.headers.get(header::UPGRADE)) {
        (&Method::CONNECT, _) => "CONNECT",
        (_, None) => return Switch::None,
        (_, Some(name)) => name.to_str().unwrap_or_default(),
    };
    let of_route = cx.action.upgrades.iter().find(|one| one.protocol.eq_ignore_ascii_case(protocol));
    match of_route {
        Some(one) if one.enabled && one.terminates => Switch::Terminate,
        Some(one) if one.enabled => Switch::Forward,
        None if cx.plan.hcm.allows_upgrade(protocol) => Switch::Forward,
        _ => Switch::Denied,
    }
}

/// How long the whole exchange may take: the route's time, or what the request's headers ask for within it.
pub(super) fn timeout(cx: &Forwarding<'_>, parts: &Parts, record: &Record) -> Option<Duration> {
    let asked = grpc::timeout(&parts.headers).filter(|_| record.grpc);
    let timeout = match (cx.action.grpc_timeout, asked) {
        (GrpcTimeout::Unbounded, Some(asked)) => Some(asked),
        (GrpcTimeout::UpTo(most), Some(asked)) => Some(if most.is_zero() { asked } else { asked.min(most) }),
        _ => cx.action.timeout,
    };
    timeout.filter(|timeout| !timeout.is_zero())
}

/// Changes path, host and headers as the route says.
pub(super) fn rewrite(cx: &Forwarding<'_>, parts: &mut Parts, record: &mut Record, timeout: Limits) {
    if cx.chosen.host.include_request_attempt_count {
        parts.headers.insert(ATTEMPT_COUNT, HeaderValue::from(1));
    }
    let levels = levels(cx.chosen, Which::Request);
    if !levels.is_empty() {
        record.path = parts.uri.clone();
    }
    let mut entry = cx.chosen.weighted().and_then(|weighted| weighted.host_rewrite.as_deref());
    let own = cx.chosen.weighted().map(|weighted| &weighted.request_headers);
    for ops in levels {
        // What the weighted entry changes still sees the old host.
        if !own.is_some_and(|own| std::ptr::eq(own, ops)) {
            host_of_entry(entry.take(), parts, record);
        }
        mutate::apply(ops, &mut parts.headers, record, &Side::Request);
    }
    host_of_entry(entry, parts, record);
    // The host may come of the path as the client sent it.
    rewrite_host(cx, parts, record, "");
    let tells = !cx.plan.hcm.suppresses_envoy_headers();
    if let Some(path) = path_rewrite(cx.action, &cx.chosen.route.matches, &view(parts, record))
        && let Ok(path) = PathAndQuery::try_from(path)
    {
        if tells
            && let Some(old) =
                parts.uri.path_and_query().and_then(|old| HeaderValue::from_str(old.as_str()).ok())
        {
            parts.headers.insert(ORIGINAL_PATH, old);
        }
        parts.uri = Uri::from(path);
    }
    if tells {
        tell_timeout(parts, timeout, Duration::ZERO);
    }
    parts.headers.remove(prepare::DECORATOR);
    record.path = parts.uri.clone();
}

/// A weighted entry's host comes without a word to the upstream.
fn host_of_entry(host: Option<&str>, parts: &mut Parts, record: &mut Record) {
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        parts.headers.insert(header::HOST, host.clone());
        record.authority = host;
    }
}

/// Says how long this attempt may take: `limits` are those of the attempt and of the whole exchange, of which `elapsed` is gone.
pub(super) fn tell_timeout(parts: &mut Parts, limits: Limits, elapsed: Duration) {
    let left = limits.whole.map(|whole| whole.saturating_sub(elapsed).max(Duration::from_millis(1)));
    let Some(time) = limits.attempt.into_iter().chain(left).min() else { return };
    let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    parts.headers.insert(EXPECTED_TIMEOUT, HeaderValue::from(time));
}

/// Changes the host as the route says; `endpoint` is the name of the chosen endpoint.
pub(super) fn rewrite_host(cx: &Forwarding<'_>, parts: &mut Parts, record: &mut Record, endpoint: &str) {
    let host = host_rewrite(cx.action, &view(parts, record), endpoint);
    let Some(host) = host.and_then(|host| HeaderValue::from_str(&host).ok()) else { return };
    let old = parts.headers.insert(header::HOST, host.clone());
    record.authority = host;
    let Some(old) = old else { return };
    if cx.action.append_x_forwarded_host
        && let Ok(text) = old.to_str()
    {
        let last = parts.headers.get(FORWARDED_HOST).and_then(|all| all.to_str().ok()?.rsplit(',').next());
        if last.map(str::trim) != Some(text) {
            prepare::append(&mut parts.headers, &FORWARDED_HOST, ",", text);
        }
    }
    if !cx.plan.hcm.suppresses_envoy_headers() {
        parts.headers.insert(ORIGINAL_HOST, old);
    }
}
