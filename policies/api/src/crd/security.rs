//! Schemas of the security kinds and of `Telemetry`.

use super::{duration, string_map, strings};
use crate::schema::{Schema, boolean, list, map, number, object, one_of, text};

/// `selector` by labels.
pub(super) fn selector() -> Schema {
    object(vec![("matchLabels", string_map())])
}

fn target_ref() -> Schema {
    object(vec![
        ("group", text()),
        ("kind", text().filled()),
        ("name", text().filled()),
        ("namespace", text()),
    ])
    .required(&["kind", "name"])
}

fn attached(mut fields: Vec<(&'static str, Schema)>) -> Schema {
    fields.extend([
        ("selector", selector()),
        ("targetRef", target_ref()),
        ("targetRefs", list(target_ref()).at_most(16)),
    ]);
    object(fields)
}

pub(super) fn peer_authentication() -> Schema {
    let mode = || object(vec![("mode", one_of(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]))]);
    object(vec![("mtls", mode()), ("portLevelMtls", map(mode())), ("selector", selector())])
}

pub(super) fn request_authentication() -> Schema {
    let header = object(vec![("name", text().filled()), ("prefix", text())]).required(&["name"]);
    let claim =
        object(vec![("claim", text().filled()), ("header", text().filled())]).required(&["header", "claim"]);
    let rule = object(vec![
        ("audiences", strings()),
        ("forwardOriginalToken", boolean()),
        ("fromCookies", strings()),
        ("fromHeaders", list(header)),
        ("fromParams", strings()),
        ("issuer", text().filled()),
        ("jwks", text()),
        ("jwksUri", text().filled()),
        ("jwks_uri", text().filled()),
        ("outputClaimToHeaders", list(claim)),
        ("outputPayloadToHeader", text()),
        ("presence", one_of(&["OPTIONAL", "REQUIRED"])),
        ("spaceDelimitedClaims", strings().at_most(64)),
        ("timeout", duration()),
    ]);
    attached(vec![("jwtRules", list(rule).at_most(4096))])
}

pub(super) fn authorization_policy() -> Schema {
    let source = object(vec![
        ("ipBlocks", strings()),
        ("namespaces", strings()),
        ("notIpBlocks", strings()),
        ("notNamespaces", strings()),
        ("notPrincipals", strings()),
        ("notRemoteIpBlocks", strings()),
        ("notRequestPrincipals", strings()),
        ("notServiceAccounts", strings().at_most(16)),
        ("notTrustDomains", strings()),
        ("principals", strings()),
        ("remoteIpBlocks", strings()),
        ("requestPrincipals", strings()),
        ("serviceAccounts", strings().at_most(16)),
        ("trustDomains", strings()),
    ]);
    let operation = object(vec![
        ("hosts", strings()),
        ("methods", strings()),
        ("notHosts", strings()),
        ("notMethods", strings()),
        ("notPaths", strings()),
        ("notPorts", strings()),
        ("paths", strings()),
        ("ports", strings()),
    ]);
    let condition =
        object(vec![("key", text()), ("notValues", strings()), ("values", strings())]).required(&["key"]);
    let rule = object(vec![
        ("from", list(object(vec![("source", source)])).at_most(512)),
        ("to", list(object(vec![("operation", operation)]))),
        ("when", list(condition)),
    ]);
    attached(vec![
        ("action", one_of(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])),
        ("provider", object(vec![("name", text())])),
        ("rules", list(rule).at_most(512)),
    ])
}

/// Istio's names of its metrics.
const METRICS: &[&str] = &[
    "ALL_METRICS",
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
];

pub(super) fn telemetry() -> Schema {
    let mode = || object(vec![("mode", one_of(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"]))]);
    let providers = || list(object(vec![("name", text().filled())]).required(&["name"]));
    let logging = object(vec![
        ("disabled", boolean().nullable()),
        ("filter", object(vec![("expression", text())])),
        ("match", mode()),
        ("providers", providers()),
    ]);
    let named = || object(vec![("defaultValue", text()), ("name", text().filled())]).required(&["name"]);
    let value = || object(vec![("value", text().filled())]).required(&["value"]);
    let custom_tag = object(vec![
        ("environment", named()),
        ("formatter", value()),
        ("header", named()),
        ("literal", value()),
    ])
    .exclusive(&["environment", "formatter", "header", "literal"]);
    let tracing = object(vec![
        ("customTags", map(custom_tag)),
        ("disableContextPropagation", boolean().nullable()),
        ("disableSpanReporting", boolean().nullable()),
        ("enableIstioTags", boolean().nullable()),
        ("match", mode()),
        ("providers", providers()),
        ("randomSamplingPercentage", number().between(0.0, 100.0).nullable()),
        ("useRequestIdForTraceSampling", boolean().nullable()),
    ]);
    let of_metric = object(vec![
        ("customMetric", text().filled()),
        ("metric", one_of(METRICS)),
        ("mode", one_of(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"])),
    ])
    .exclusive(&["customMetric", "metric"]);
    let of_tag = object(vec![("operation", one_of(&["UPSERT", "REMOVE"])), ("value", text())]);
    let overrides =
        object(vec![("disabled", boolean().nullable()), ("match", of_metric), ("tagOverrides", map(of_tag))]);
    let metrics = object(vec![
        ("overrides", list(overrides)),
        ("providers", providers()),
        ("reportingInterval", duration()),
    ]);
    attached(vec![("accessLogging", list(logging)), ("metrics", list(metrics)), ("tracing", list(tracing))])
}
