//! Schema of `VirtualService`.

use super::{destination, duration, percent, string_map, string_match, strings};
use crate::schema::{Schema, boolean, int32, list, map, object, one_of, text, uint32};

pub(super) fn spec() -> Schema {
    object(vec![
        ("exportTo", strings()),
        ("gateways", strings()),
        ("hosts", strings()),
        ("http", list(http_route())),
        ("tcp", list(object(vec![("match", list(tcp_match())), ("route", list(route_destination()))]))),
        (
            "tls",
            list(
                object(vec![("match", list(tls_match())), ("route", list(route_destination()))])
                    .required(&["match"]),
            ),
        ),
    ])
}

fn http_route() -> Schema {
    object(vec![
        ("corsPolicy", cors()),
        ("delegate", object(vec![("name", text()), ("namespace", text())])),
        ("directResponse", direct_response()),
        ("fault", fault()),
        ("headers", headers()),
        ("match", list(http_match())),
        ("mirror", destination()),
        ("mirrorPercent", uint32().nullable()),
        ("mirror_percent", uint32().nullable()),
        ("mirrorPercentage", percent()),
        (
            "mirrors",
            list(
                object(vec![("destination", destination()), ("percentage", percent())])
                    .required(&["destination"]),
            ),
        ),
        ("name", text()),
        ("redirect", redirect()),
        ("retries", retries()),
        ("rewrite", rewrite()),
        (
            "route",
            list(
                object(vec![("destination", destination()), ("headers", headers()), ("weight", int32())])
                    .required(&["destination"]),
            ),
        ),
        ("timeout", duration()),
    ])
}

fn http_match() -> Schema {
    object(vec![
        ("authority", string_match()),
        ("gateways", strings()),
        ("headers", map(string_match())),
        ("ignoreUriCase", boolean()),
        ("method", string_match()),
        ("name", text()),
        ("port", uint32()),
        ("queryParams", map(string_match())),
        ("scheme", string_match()),
        ("sourceLabels", string_map()),
        ("sourceNamespace", text()),
        ("statPrefix", text()),
        ("uri", string_match()),
        ("withoutHeaders", map(string_match())),
    ])
}

fn cors() -> Schema {
    object(vec![
        ("allowCredentials", boolean()),
        ("allowHeaders", strings()),
        ("allowMethods", strings()),
        ("allowOrigin", strings()),
        ("allowOrigins", list(string_match())),
        ("exposeHeaders", strings()),
        ("maxAge", duration()),
        ("unmatchedPreflights", one_of(&["UNSPECIFIED", "FORWARD", "IGNORE"])),
    ])
}

fn direct_response() -> Schema {
    let body = object(vec![("bytes", text()), ("string", text())]).exclusive(&["string", "bytes"]);
    object(vec![("body", body), ("status", uint32())]).required(&["status"])
}

fn fault() -> Schema {
    let abort = object(vec![
        ("grpcStatus", text()),
        ("http2Error", text()),
        ("httpStatus", int32()),
        ("percentage", percent()),
    ])
    .exclusive(&["httpStatus", "grpcStatus", "http2Error"]);
    let delay = object(vec![
        ("exponentialDelay", duration()),
        ("fixedDelay", duration()),
        ("percent", int32()),
        ("percentage", percent()),
    ])
    .exclusive(&["fixedDelay", "exponentialDelay"]);
    object(vec![("abort", abort), ("delay", delay)])
}

fn headers() -> Schema {
    let operations = || object(vec![("add", string_map()), ("remove", strings()), ("set", string_map())]);
    object(vec![("request", operations()), ("response", operations())])
}

fn redirect() -> Schema {
    object(vec![
        ("authority", text()),
        ("derivePort", one_of(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])),
        ("port", uint32()),
        ("prefixRewrite", text()),
        ("redirectCode", uint32()),
        ("scheme", text()),
        ("uri", text()),
    ])
    .exclusive(&["port", "derivePort"])
}

fn retries() -> Schema {
    object(vec![
        ("attempts", int32()),
        ("backoff", duration()),
        ("perTryTimeout", duration()),
        ("retryIgnorePreviousHosts", boolean().nullable()),
        ("retryOn", text()),
        ("retryRemoteLocalities", boolean().nullable()),
    ])
}

fn rewrite() -> Schema {
    object(vec![
        ("authority", text()),
        ("uri", text()),
        ("uriRegexRewrite", object(vec![("match", text()), ("rewrite", text())])),
    ])
}

fn route_destination() -> Schema {
    object(vec![("destination", destination()), ("weight", int32())]).required(&["destination"])
}

fn tcp_match() -> Schema {
    object(vec![
        ("destinationSubnets", strings()),
        ("gateways", strings()),
        ("port", uint32()),
        ("sourceLabels", string_map()),
        ("sourceNamespace", text()),
        ("sourceSubnet", text()),
    ])
}

fn tls_match() -> Schema {
    object(vec![
        ("destinationSubnets", strings()),
        ("gateways", strings()),
        ("port", uint32()),
        ("sniHosts", strings()),
        ("sourceLabels", string_map()),
        ("sourceNamespace", text()),
    ])
    .required(&["sniHosts"])
}
