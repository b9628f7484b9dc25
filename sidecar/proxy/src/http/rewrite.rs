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
use super::respond::{Which, levels};
use super::router::view;
use super::{grpc, prepare, retry};

/// `x-envoy-original-path`
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// `x-forwarded-host`
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `x-envoy-expected-rq-timeout-ms`
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

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
    let timeout = retry::millis(parts.headers.get(retry::RQ_TIMEOUT)).or(timeout);
    timeout.filter(|timeout| !timeout.is_zero())
}

/// Changes path, host and headers as the route says.
pub(super) fn rewrite(
    cx: &Forwarding<'_>,
    parts: &mut Parts,
    record: &mut Record,
    timeout: Option<Duration>,
) {
    retry::strip(parts);
    for ops in levels(cx.chosen, Which::Request) {
        mutate::apply(ops, &mut parts.headers, record, &Side::Request);
    }
    if let Some(path) = path_rewrite(cx.action, &cx.chosen.route.matches, &view(parts, record))
        && let Ok(path) = PathAndQuery::try_from(path)
    {
        if let Some(old) = parts.uri.path_and_query().and_then(|old| HeaderValue::from_str(old.as_str()).ok())
        {
            parts.headers.insert(ORIGINAL_PATH, old);
        }
        parts.uri = Uri::from(path);
    }
    rewrite_host(cx, parts, record, "");
    if let Some(timeout) = timeout {
        parts.headers.insert(
            EXPECTED_TIMEOUT,
            HeaderValue::from(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        );
    }
    parts.headers.remove(prepare::DECORATOR);
}

/// Changes the host as the route says; `endpoint` is the name of the chosen endpoint.
pub(super) fn rewrite_host(cx: &Forwarding<'_>, parts: &mut Parts, record: &mut Record, endpoint: &str) {
    let host = host_rewrite(cx.action, cx.chosen.weighted(), &view(parts, record), endpoint);
    let Some(host) = host.and_then(|host| HeaderValue::from_str(&host).ok()) else { return };
    let old = parts.headers.insert(header::HOST, host.clone());
    if cx.action.append_x_forwarded_host
        && let Some(old) = old.filter(|old| *old != host)
    {
        parts.headers.append(FORWARDED_HOST, old);
    }
    record.authority = host;
}
