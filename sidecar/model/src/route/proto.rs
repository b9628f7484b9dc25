//! `envoy.config.route.v3`: route configurations, virtual hosts, routes and their matches.
//!
//! Passed over, since they change neither match nor destination: virtual clusters, tracing of routes, buffer limits, and whether clusters are checked for existence.

#![expect(deprecated, reason = "control planes still send the older fields")]

mod action;

use super::{PathMatch, Route, RouteConfig, RouteMatch, TlsRequirement, VirtualHost};
use crate::convert::{
    At, Converted, decode, each, enumeration, flag, header_text, not_empty, number, refuse, required, unpack,
};
use crate::header_ops::proto::header_ops;
use crate::http_filter::RouteFilters;
use crate::http_filter::proto::{route_filters, with_limits};
use crate::invalid::Invalid;
use crate::matcher::proto::{
    header_match, metadata_match, path_template, query_match, regex, runtime_fraction,
};
use crate::metadata::proto::metadata;
use crate::retry::proto::retry_policy;
use crate::route_action::Mirror;
use crate::route_action::proto::mirrors;
use policies_xds::core::TypedExtensionConfig;
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::route::virtual_host::TlsRequirementType;
use policies_xds::route::{self as pb, RouteConfiguration};
use policies_xds::uri_template::UriTemplateMatchConfig;
use std::collections::HashSet;
use std::sync::Arc;

/// Envoy's default bound on the body of a direct response.
const DIRECT_RESPONSE_BYTES_MAX: u32 = 4096;

impl RouteConfig {
    /// Reads an encoded `RouteConfiguration`.
    pub fn decode(message: &[u8]) -> Result<Self, Invalid> {
        let message = decode(message)?;
        let config = route_config(&message)?;
        not_empty("name", &config.name)?;
        Ok(config)
    }
}

pub(crate) fn route_config(message: &RouteConfiguration) -> Converted<RouteConfig> {
    refuse("vhds", message.vhds.is_some())?;
    refuse("internal_only_headers", !message.internal_only_headers.is_empty())?;
    refuse("cluster_specifier_plugins", !message.cluster_specifier_plugins.is_empty())?;
    refuse("vhost_header", !message.vhost_header.is_empty())?;
    refuse("ignore_path_parameters_in_path_matching", message.ignore_path_parameters_in_path_matching)?;
    refuse("route_specifiers", !message.route_specifiers.is_empty())?;
    let body_max = number(&message.max_direct_response_body_size_bytes).unwrap_or(DIRECT_RESPONSE_BYTES_MAX);
    let body_max = usize::try_from(body_max).unwrap_or(usize::MAX);
    let mirrors = mirrors("request_mirror_policies", &message.request_mirror_policies)?;
    let virtual_hosts = each("virtual_hosts", &message.virtual_hosts, |host| {
        virtual_host(host, &mirrors, body_max).map(Arc::new)
    })?;
    unique_domains(&virtual_hosts)?;
    Ok(RouteConfig {
        name: message.name.as_str().into(),
        virtual_hosts,
        request_headers: header_ops(
            "request",
            &message.request_headers_to_add,
            &message.request_headers_to_remove,
        )?,
        response_headers: header_ops(
            "response",
            &message.response_headers_to_add,
            &message.response_headers_to_remove,
        )?,
        ignore_port_in_host_matching: message.ignore_port_in_host_matching,
        most_specific_header_mutations_wins: message.most_specific_header_mutations_wins,
        filters: route_filters(&message.typed_per_filter_config)?,
        metadata: metadata(&message.metadata),
    })
}

fn unique_domains(hosts: &[Arc<VirtualHost>]) -> Converted<()> {
    let mut seen = HashSet::new();
    let mut names = HashSet::new();
    for (index, host) in hosts.iter().enumerate() {
        if !names.insert(&*host.name) {
            let reason = format!("`{}` is the name of a virtual host before", host.name);
            return Err(Invalid::new("name", reason)).at_item("virtual_hosts", index);
        }
        for domain in &host.domains {
            if !seen.insert(&**domain) {
                let reason = format!("`{domain}` is in a virtual host before");
                return Err(Invalid::new("domains", reason)).at_item("virtual_hosts", index);
            }
        }
    }
    Ok(())
}

fn virtual_host(
    message: &pb::VirtualHost,
    mirrors_above: &[Mirror],
    body_max: usize,
) -> Converted<VirtualHost> {
    refuse("matcher", message.matcher.is_some())?;
    refuse("cors", message.cors.is_some())?;
    refuse("hedge_policy", message.hedge_policy.is_some())?;
    refuse("retry_policy_typed_config", message.retry_policy_typed_config.is_some())?;
    refuse("route_specifiers", !message.route_specifiers.is_empty())?;
    if message.domains.is_empty() {
        return Err(Invalid::missing("domains"));
    }
    let mirrors = mirrors("request_mirror_policies", &message.request_mirror_policies)?;
    Ok(VirtualHost {
        name: not_empty("name", &message.name)?.into(),
        domains: each("domains", &message.domains, |text| domain(text))?,
        routes: each("routes", &message.routes, |message| route(message, body_max).map(Arc::new))?,
        require_tls: match enumeration("require_tls", message.require_tls)? {
            TlsRequirementType::None => TlsRequirement::None,
            TlsRequirementType::ExternalOnly => TlsRequirement::ExternalOnly,
            TlsRequirementType::All => TlsRequirement::All,
        },
        request_headers: header_ops(
            "request",
            &message.request_headers_to_add,
            &message.request_headers_to_remove,
        )?,
        response_headers: header_ops(
            "response",
            &message.response_headers_to_add,
            &message.response_headers_to_remove,
        )?,
        retry: message.retry_policy.as_ref().map(retry_policy).transpose().at("retry_policy")?.map(Arc::new),
        mirrors: if mirrors.is_empty() { mirrors_above.to_vec() } else { mirrors },
        include_request_attempt_count: message.include_request_attempt_count,
        include_attempt_count_in_response: message.include_attempt_count_in_response,
        filters: with_limits(
            route_filters(&message.typed_per_filter_config)?,
            "rate_limits",
            &message.rate_limits,
            false,
        )?,
        metadata: metadata(&message.metadata),
    })
}

/// Exact, `*.suffix` (or `*-suffix`), `prefix.*` or `*`.
fn domain(text: &str) -> Converted<Box<str>> {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if (inner.is_empty() && text != "*") || inner.contains('*') || text.chars().any(char::is_control) {
        return Err(Invalid::new("", format!("`{}` is not a domain", text.escape_debug())));
    }
    Ok(text.to_ascii_lowercase().into())
}

fn route_limits(filters: RouteFilters, message: &pb::Route) -> Converted<RouteFilters> {
    match &message.action {
        Some(pb::route::Action::Route(action)) => with_limits(
            filters,
            "route.rate_limits",
            &action.rate_limits,
            flag(&action.include_vh_rate_limits, false),
        ),
        _ => Ok(filters),
    }
}

fn route(message: &pb::Route, body_max: usize) -> Converted<Route> {
    refuse("route_specifiers", !message.route_specifiers.is_empty())?;
    Ok(Route {
        name: message.name.as_str().into(),
        matches: route_match(required("match", &message.r#match)?).at("match")?,
        action: action::action(required("action", &message.action)?, body_max)?,
        filters: route_limits(route_filters(&message.typed_per_filter_config)?, message)?,
        request_headers: header_ops(
            "request",
            &message.request_headers_to_add,
            &message.request_headers_to_remove,
        )?,
        response_headers: header_ops(
            "response",
            &message.response_headers_to_add,
            &message.response_headers_to_remove,
        )?,
        metadata: metadata(&message.metadata),
        decorator: match &message.decorator {
            Some(decorator) => Some(header_text("decorator.operation", &decorator.operation)?.into()),
            None => None,
        },
        stat_prefix: message.stat_prefix.as_str().into(),
    })
}

pub(crate) fn route_match(message: &pb::RouteMatch) -> Converted<RouteMatch> {
    refuse("cookies", !message.cookies.is_empty())?;
    refuse("tls_context", message.tls_context.is_some())?;
    refuse("filter_state", !message.filter_state.is_empty())?;
    let path = path(required("path_specifier", &message.path_specifier)?)?;
    let by_expression = matches!(path, PathMatch::Regex(_) | PathMatch::Template(_));
    Ok(RouteMatch {
        case_sensitive: by_expression || flag(&message.case_sensitive, true),
        path,
        headers: each("headers", &message.headers, header_match)?,
        query: each("query_parameters", &message.query_parameters, query_match)?,
        grpc: message.grpc.is_some(),
        metadata: each("dynamic_metadata", &message.dynamic_metadata, metadata_match)?,
        fraction: message
            .runtime_fraction
            .as_ref()
            .map(runtime_fraction)
            .transpose()
            .at("runtime_fraction")?,
    })
}

fn path(message: &PathSpecifier) -> Converted<PathMatch> {
    Ok(match message {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix(prefix.as_str().into()),
        PathSpecifier::Path(path) => PathMatch::Exact(path.as_str().into()),
        PathSpecifier::SafeRegex(message) => PathMatch::Regex(regex(message).at("safe_regex")?),
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let valid = prefix.starts_with('/')
                && prefix.len() > 1
                && !prefix.ends_with('/')
                && !prefix.contains(['?', '#']);
            if !valid {
                let reason = "must start with a slash, not end in one, and have no query or fragment";
                return Err(Invalid::new("path_separated_prefix", reason));
            }
            PathMatch::PathSeparatedPrefix(prefix.as_str().into())
        }
        PathSpecifier::PathMatchPolicy(extension) => template(extension).at("path_match_policy")?,
    })
}

fn template(extension: &TypedExtensionConfig) -> Converted<PathMatch> {
    let config = required("typed_config", &extension.typed_config)?;
    let message: UriTemplateMatchConfig = unpack("typed_config", config)?;
    path_template(&message.path_template).at("typed_config").map(PathMatch::Template)
}

#[cfg(test)]
mod tests;
