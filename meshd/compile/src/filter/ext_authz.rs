//! The action `CUSTOM`: a filter that notes which requests its rules select, and one that asks a service about those.

use std::time::Duration;

use meshd_model::{AuthzProtocol, AuthzProvider};
use policies_xds::core::{self, HeaderValue, HttpUri, grpc_service, http_uri};
use policies_xds::ext_authz::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService, ext_authz::Services,
};
use policies_xds::matcher::{
    ListStringMatcher, MetadataMatcher, StringMatcher, ValueMatcher, metadata_matcher,
    string_matcher::MatchPattern, value_matcher,
};
use policies_xds::types::HttpStatus;

use crate::proto::{duration, string_matcher};
use crate::view::{View, outbound_name};

/// Namespace of what authorization filters leave in a request's metadata.
const RBAC_METADATA: &str = "envoy.filters.http.rbac";
/// Prefix of what they leave for this filter.
pub(super) const SHADOW_PREFIX: &str = "istio_ext_authz_";
/// Istio's: long enough that a destination rule decides instead.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Name of a rule of the action `CUSTOM`: by its beginning the second filter knows what the first one selected for it.
pub(super) fn rule_name(provider: &str, rule: &str) -> String {
    format!("{}{rule}", name_prefix(provider))
}

fn name_prefix(provider: &str) -> String {
    format!("istio-ext-authz-{provider}-")
}

/// The filter that asks a provider; none when there is no such provider, or its service is unknown.
pub(super) fn config(view: &View<'_>, provider: &str) -> Option<ExtAuthz> {
    let provider = view.mesh.authz_providers.iter().find(|it| it.name == provider)?;
    let cluster = cluster(view, provider)?;
    let timeout = provider.timeout.unwrap_or(TIMEOUT);
    let body = provider.body.map(|it| BufferSettings {
        max_request_bytes: it.max_request_bytes,
        allow_partial_message: it.allow_partial_message,
        pack_as_bytes: it.pack_as_bytes,
    });
    let base = ExtAuthz {
        transport_api_version: core::ApiVersion::V3.into(),
        failure_mode_allow: provider.fail_open,
        status_on_error: provider.status_on_error.map(|code| HttpStatus { code: code.into() }),
        with_request_body: body,
        clear_route_cache: provider.clear_route_cache,
        filter_enabled_metadata: Some(selected(&provider.name)),
        ..Default::default()
    };
    Some(match &provider.protocol {
        AuthzProtocol::Grpc => ExtAuthz { services: Some(grpc(&cluster, timeout)), ..base },
        http => over_http(base, http, &provider.service, cluster, timeout),
    })
}

/// The cluster of a provider's service, which must be one that the proxy knows.
fn cluster(view: &View<'_>, provider: &AuthzProvider) -> Option<String> {
    let (namespace, host) = match provider.service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, provider.service.as_str()),
    };
    let service = view.service_named(host).filter(|it| namespace.is_none_or(|of| *it.namespace == *of))?;
    service.port(provider.port)?;
    Some(outbound_name(provider.port, "", &service.host))
}

fn grpc(cluster: &str, timeout: Duration) -> Services {
    let target = grpc_service::EnvoyGrpc {
        cluster_name: cluster.to_owned(),
        // A cluster's name has characters that no authority may have.
        authority: cluster.replace('|', "_."),
        ..Default::default()
    };
    Services::GrpcService(core::GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)),
        timeout: Some(duration(timeout)),
        ..Default::default()
    })
}

fn over_http(
    base: ExtAuthz,
    protocol: &AuthzProtocol,
    host: &str,
    cluster: String,
    timeout: Duration,
) -> ExtAuthz {
    let AuthzProtocol::Http {
        path_prefix,
        include_request_headers,
        include_additional_headers,
        headers_to_upstream_on_allow,
        headers_to_downstream_on_allow,
        headers_to_downstream_on_deny,
    } = protocol
    else {
        return base;
    };
    let added = include_additional_headers.iter().map(|(name, value)| HeaderValue {
        key: name.clone(),
        value: value.clone(),
        ..Default::default()
    });
    let service = HttpService {
        server_uri: Some(HttpUri {
            // Needed by the message, used by nobody.
            uri: format!("http://{}", host.rsplit('/').next().unwrap_or_default()),
            timeout: Some(duration(timeout)),
            http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(cluster)),
        }),
        path_prefix: path_prefix.clone(),
        authorization_request: Some(AuthorizationRequest {
            headers_to_add: added.collect(),
            ..Default::default()
        }),
        authorization_response: Some(AuthorizationResponse {
            allowed_upstream_headers: names(headers_to_upstream_on_allow),
            allowed_client_headers_on_success: names(headers_to_downstream_on_allow),
            allowed_client_headers: names(headers_to_downstream_on_deny),
            ..Default::default()
        }),
        ..Default::default()
    };
    ExtAuthz {
        services: Some(Services::HttpService(service)),
        allowed_headers: names(include_request_headers),
        ..base
    }
}

/// Names of headers, with a `*` in front or behind.
fn names(written: &[String]) -> Option<ListStringMatcher> {
    let one = |name: &String| {
        let pattern = if let Some(prefix) = name.strip_suffix('*') {
            MatchPattern::Prefix(prefix.to_owned())
        } else if let Some(suffix) = name.strip_prefix('*') {
            MatchPattern::Suffix(suffix.to_owned())
        } else {
            MatchPattern::Exact(name.clone())
        };
        StringMatcher { ignore_case: true, ..string_matcher(pattern) }
    };
    (!written.is_empty()).then(|| ListStringMatcher { patterns: written.iter().map(one).collect() })
}

/// Requests that a rule for this provider selected.
fn selected(provider: &str) -> MetadataMatcher {
    let key = format!("{SHADOW_PREFIX}shadow_effective_policy_id");
    // Up to where every rule's own name begins: no provider's name is the beginning of another's.
    let prefix = string_matcher(MatchPattern::Prefix(format!("{}ns[", name_prefix(provider))));
    MetadataMatcher {
        filter: RBAC_METADATA.to_owned(),
        path: vec![metadata_matcher::PathSegment {
            segment: Some(metadata_matcher::path_segment::Segment::Key(key)),
        }],
        value: Some(ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(prefix)) }),
        invert: false,
    }
}
