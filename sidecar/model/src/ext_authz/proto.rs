//! `envoy.extensions.filters.http.ext_authz.v3`.
//!
//! As in authorization, nothing that narrows what passes is passed over.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{AuthzService, BodyBuffer, CheckSettings, ExtAuthz, GrpcService, HttpAuthz};
use crate::convert::{
    At, Converted, each, header_name, header_text, not_empty, optional_duration, refuse, required, status,
};
use crate::invalid::Invalid;
use crate::matcher::proto::{metadata_match, runtime_fraction, string_match};
use crate::matcher::{Fraction, StringMatch};
use http::{HeaderName, HeaderValue, StatusCode};
use policies_xds::core::grpc_service::TargetSpecifier;
use policies_xds::core::http_uri::HttpUpstreamType;
use policies_xds::core::{self, RuntimeFractionalPercent};
use policies_xds::ext_authz::{self as pb, ext_authz::Services, ext_authz_per_route::Override};
use policies_xds::matcher::ListStringMatcher;
use policies_xds::types::HttpStatus;
use std::time::Duration;

/// Envoy's default for calls of authorization.
const TIMEOUT: Duration = Duration::from_millis(200);
/// More of a body than this is not kept for anybody.
const BODY_BYTES_MAX: u32 = 16 << 20;

pub(crate) fn ext_authz(message: &pb::ExtAuthz) -> Converted<ExtAuthz> {
    refuse("shadow_mode", message.shadow_mode)?;
    refuse("deny_at_disable", message.deny_at_disable.is_some())?;
    refuse("decoder_header_mutation_rules", message.decoder_header_mutation_rules.is_some())?;
    refuse("typed_metadata_context_namespaces", !message.typed_metadata_context_namespaces.is_empty())?;
    refuse("route_metadata_context_namespaces", !message.route_metadata_context_namespaces.is_empty())?;
    refuse(
        "route_typed_metadata_context_namespaces",
        !message.route_typed_metadata_context_namespaces.is_empty(),
    )?;
    refuse("include_tls_session", message.include_tls_session)?;
    refuse("encode_raw_headers", message.encode_raw_headers)?;
    refuse("bootstrap_metadata_labels_key", !message.bootstrap_metadata_labels_key.is_empty())?;
    let allowed_headers = strings("allowed_headers", &message.allowed_headers)?;
    let service = match required("services", &message.services)? {
        Services::GrpcService(service) => {
            AuthzService::Grpc(grpc_service(service, TIMEOUT).at("grpc_service")?)
        }
        Services::HttpService(service) => {
            AuthzService::Http(http_service(service, &allowed_headers).at("http_service")?)
        }
    };
    let denied = usize::try_from(message.max_denied_response_body_bytes).unwrap_or(usize::MAX);
    Ok(ExtAuthz {
        service,
        failure_mode_allow: message.failure_mode_allow,
        failure_mode_allow_header: message.failure_mode_allow_header_add,
        status_on_error: status_or("status_on_error", &message.status_on_error, StatusCode::FORBIDDEN)?,
        body: message.with_request_body.as_ref().map(body_buffer).transpose().at("with_request_body")?,
        clear_route_cache: message.clear_route_cache,
        enabled: chance("filter_enabled", &message.filter_enabled, Fraction::ALL)?,
        enabled_metadata: message
            .filter_enabled_metadata
            .as_ref()
            .map(metadata_match)
            .transpose()
            .at("filter_enabled_metadata")?,
        allowed_headers,
        disallowed_headers: strings("disallowed_headers", &message.disallowed_headers)?,
        metadata_namespaces: crate::convert::boxed(&message.metadata_context_namespaces),
        include_peer_certificate: message.include_peer_certificate,
        denied_body_bytes_max: (denied > 0).then_some(denied),
    })
}

/// What a route says; `None`: no authorization there.
pub(crate) fn per_route(message: &pb::ExtAuthzPerRoute) -> Converted<Option<CheckSettings>> {
    let settings = match required("override", &message.r#override)? {
        Override::Disabled(true) => return Ok(None),
        Override::Disabled(false) => return Err(Invalid::new("disabled", "must be true")),
        Override::CheckSettings(settings) => settings,
    };
    refuse("check_settings.service_override", settings.service_override.is_some())?;
    Ok(Some(CheckSettings {
        context_extensions: settings
            .context_extensions
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect(),
        without_body: settings.disable_request_body_buffering,
        body: settings
            .with_request_body
            .as_ref()
            .map(body_buffer)
            .transpose()
            .at("check_settings.with_request_body")?,
    }))
}

fn body_buffer(message: &pb::BufferSettings) -> Converted<BodyBuffer> {
    if message.max_request_bytes == 0 {
        return Err(Invalid::new("max_request_bytes", "must be above 0"));
    }
    if message.max_request_bytes > BODY_BYTES_MAX {
        return Err(Invalid::unsupported("max_request_bytes", format!("more than {BODY_BYTES_MAX} bytes")));
    }
    Ok(BodyBuffer {
        bytes_max: usize::try_from(message.max_request_bytes).unwrap_or(usize::MAX),
        allow_partial: message.allow_partial_message,
        as_bytes: message.pack_as_bytes,
    })
}

/// A gRPC service behind one of our clusters.
pub(crate) fn grpc_service(message: &core::GrpcService, default_timeout: Duration) -> Converted<GrpcService> {
    let target = match required("target_specifier", &message.target_specifier)? {
        TargetSpecifier::EnvoyGrpc(target) => target,
        TargetSpecifier::GoogleGrpc(_) => {
            return Err(Invalid::unsupported("google_grpc", "a client of its own"));
        }
    };
    let cluster = not_empty("envoy_grpc.cluster_name", &target.cluster_name)?;
    let authority = if target.authority.is_empty() { cluster } else { &target.authority };
    let timeout = optional_duration("timeout", &message.timeout)?.filter(|it| !it.is_zero());
    Ok(GrpcService {
        cluster: cluster.into(),
        authority: header_text("envoy_grpc.authority", authority)?.into(),
        timeout: timeout.unwrap_or(default_timeout),
        metadata: each("initial_metadata", &message.initial_metadata, header_value)?,
    })
}

fn http_service(message: &pb::HttpService, allowed: &[StringMatch]) -> Converted<HttpAuthz> {
    refuse("path_override", !message.path_override.is_empty())?;
    refuse("retry_policy", message.retry_policy.is_some())?;
    let uri = required("server_uri", &message.server_uri)?;
    let HttpUpstreamType::Cluster(cluster) =
        required("server_uri.http_upstream_type", &uri.http_upstream_type)?;
    let timeout = optional_duration("server_uri.timeout", &uri.timeout)?;
    if !message.path_prefix.is_empty() && !message.path_prefix.starts_with('/') {
        return Err(Invalid::new("path_prefix", "must begin with `/`"));
    }
    let request = message.authorization_request.clone().unwrap_or_default();
    let response = message.authorization_response.clone().unwrap_or_default();
    let mut allowed_headers = strings("authorization_request.allowed_headers", &request.allowed_headers)?;
    allowed_headers.extend_from_slice(allowed);
    let answer = |name: &str, list: &Option<ListStringMatcher>| {
        strings(&format!("authorization_response.{name}"), list)
    };
    Ok(HttpAuthz {
        cluster: not_empty("server_uri.cluster", cluster)?.into(),
        timeout: timeout.ok_or_else(|| Invalid::missing("server_uri.timeout"))?,
        path_prefix: header_text("path_prefix", &message.path_prefix)?.into(),
        allowed_headers,
        headers_to_add: each("authorization_request.headers_to_add", &request.headers_to_add, header_value)?,
        upstream_headers: answer("allowed_upstream_headers", &response.allowed_upstream_headers)?,
        upstream_headers_to_append: answer(
            "allowed_upstream_headers_to_append",
            &response.allowed_upstream_headers_to_append,
        )?,
        client_headers: answer("allowed_client_headers", &response.allowed_client_headers)?,
        client_headers_on_success: answer(
            "allowed_client_headers_on_success",
            &response.allowed_client_headers_on_success,
        )?,
        metadata_headers: answer("dynamic_metadata_from_headers", &response.dynamic_metadata_from_headers)?,
    })
}

fn strings(field: &str, list: &Option<ListStringMatcher>) -> Converted<Vec<StringMatch>> {
    let patterns = list.as_ref().map_or(&[][..], |list| &list.patterns);
    each(&format!("{field}.patterns"), patterns, |pattern| {
        // Names of headers are lower case here, however they were written.
        let mut matcher = string_match(pattern)?;
        matcher.ignore_case = !matches!(matcher.pattern, crate::matcher::StringPattern::Regex(_));
        Ok(matcher)
    })
}

pub(crate) fn header_value(message: &core::HeaderValue) -> Converted<(HeaderName, HeaderValue)> {
    let value = if message.raw_value.is_empty() { message.value.as_bytes() } else { &message.raw_value };
    let value = HeaderValue::from_bytes(value)
        .map_err(|_| Invalid::new("value", "must not have control characters"))?;
    Ok((header_name("key", &message.key)?, value))
}

pub(crate) fn status_or(
    field: &str,
    message: &Option<HttpStatus>,
    default: StatusCode,
) -> Converted<StatusCode> {
    match message.as_ref().map(|it| it.code) {
        None | Some(0) => Ok(default),
        Some(code) => status(field, u32::try_from(code).unwrap_or_default()),
    }
}

/// A chance that configuration gives; overriding it at run time is not possible.
pub(crate) fn chance(
    field: &str,
    message: &Option<RuntimeFractionalPercent>,
    default: Fraction,
) -> Converted<Fraction> {
    message.as_ref().map_or(Ok(default), |message| runtime_fraction(message).at(field))
}

#[cfg(test)]
mod tests;
