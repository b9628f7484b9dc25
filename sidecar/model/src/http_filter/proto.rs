//! HTTP filters by the type of their configuration, and what `typed_per_filter_config` says about them.

use super::{
    HeaderMutation, HttpFilter, HttpFilterKind, NativeFilter, RouteFilter, RouteFilterConfig, RouteFilters,
    RouteLimits, Router,
};
use crate::convert::{At, Converted, not_empty, refuse, required, unpack};
use crate::cors::proto::cors;
use crate::ext_authz;
use crate::fault::proto::fault;
use crate::header_ops::HeaderOps;
use crate::header_ops::proto::{changeable, header_add};
use crate::invalid::Invalid;
use crate::jwt;
use crate::rate_limit;
use crate::rbac::proto::http_rbac;
use policies_xds::cors::{Cors, CorsPolicy};
use policies_xds::ext_authz::{ExtAuthz, ExtAuthzPerRoute};
use policies_xds::fault::HttpFault;
use policies_xds::hcm::{self, http_filter::ConfigType};
use policies_xds::header_mutation::{self as mutation_pb, HeaderMutationPerRoute};
use policies_xds::jwt_authn::{JwtAuthentication, PerRouteConfig};
use policies_xds::local_ratelimit::LocalRateLimit;
use policies_xds::mutation_rules::header_mutation::Action;
use policies_xds::protobuf::Any;
use policies_xds::ratelimit::{RateLimit, RateLimitPerRoute};
use policies_xds::route::FilterConfig;
use policies_xds::typed_struct::TypedStruct;
use policies_xds::{grpc_stats, grpc_web, http_rbac as rbac_pb, router, type_url};
use prost::Name;
use std::collections::HashMap;
use std::sync::Arc;

/// A filter; `None` for one that is not known and optional.
pub(crate) fn http_filter(message: &hcm::HttpFilter) -> Converted<Option<HttpFilter>> {
    let name = not_empty("name", &message.name)?;
    let kind = match required("typed_config", &message.config_type)? {
        ConfigType::TypedConfig(config) => kind(config).at("typed_config")?,
        ConfigType::ConfigDiscovery(_) => None,
    };
    match kind {
        Some(kind) => Ok(Some(HttpFilter { name: name.into(), disabled: message.disabled, kind })),
        None if message.is_optional => Ok(None),
        None => Err(unknown(name, &message.config_type)),
    }
}

fn unknown(name: &str, config: &Option<ConfigType>) -> Invalid {
    match config {
        Some(ConfigType::TypedConfig(any)) => {
            Invalid::unsupported("typed_config", format!("filter `{name}` of type `{}`", any.type_url))
        }
        _ => Invalid::unsupported("config_discovery", format!("filter `{name}` by discovery")),
    }
}

fn kind(config: &Any) -> Converted<Option<HttpFilterKind>> {
    let url = config.type_url.as_str();
    let kind = if url == router::Router::type_url() {
        let message: router::Router = unpack("", config)?;
        refuse("upstream_http_filters", !message.upstream_http_filters.is_empty())?;
        HttpFilterKind::Router(Router { suppress_envoy_headers: message.suppress_envoy_headers })
    } else if url == HttpFault::type_url() {
        HttpFilterKind::Fault(Arc::new(fault(&unpack("", config)?)?))
    } else if url == Cors::type_url() {
        HttpFilterKind::Cors
    } else if url == rbac_pb::Rbac::type_url() {
        HttpFilterKind::Rbac(Arc::new(http_rbac(&unpack("", config)?)?))
    } else if url == JwtAuthentication::type_url() {
        HttpFilterKind::JwtAuthn(Arc::new(jwt::proto::jwt_authn(&unpack("", config)?)?))
    } else if url == ExtAuthz::type_url() {
        HttpFilterKind::ExtAuthz(Arc::new(ext_authz::proto::ext_authz(&unpack("", config)?)?))
    } else if url == LocalRateLimit::type_url() {
        HttpFilterKind::LocalRateLimit(Arc::new(rate_limit::proto::local(&unpack("", config)?)?))
    } else if url == RateLimit::type_url() {
        HttpFilterKind::RateLimit(Arc::new(rate_limit::proto::global(&unpack("", config)?)?))
    } else if url == mutation_pb::HeaderMutation::type_url() {
        let message: mutation_pb::HeaderMutation = unpack("", config)?;
        HttpFilterKind::HeaderMutation(Arc::new(header_mutation(message.mutations.as_ref())?))
    } else if url == grpc_web::GrpcWeb::type_url() {
        HttpFilterKind::GrpcWeb
    } else if let Some(native) = native(config) {
        HttpFilterKind::Native(native)
    } else {
        return Ok(None);
    };
    Ok(Some(kind))
}

/// Filters that name what the sidecar does anyway; Istio sends some of them as structs under another type.
fn native(config: &Any) -> Option<NativeFilter> {
    let inner;
    let url = match config.type_url.as_str() {
        type_url::TYPED_STRUCT_XDS | type_url::TYPED_STRUCT_UDPA => {
            let structure = <TypedStruct as prost::Message>::decode(config.value.as_slice()).ok()?;
            inner = structure.type_url;
            inner.as_str()
        }
        url => url,
    };
    match url {
        type_url::ISTIO_STATS => Some(NativeFilter::Stats),
        type_url::ISTIO_PEER_METADATA => Some(NativeFilter::PeerMetadata),
        type_url::ISTIO_ALPN => Some(NativeFilter::Alpn),
        url if url == grpc_stats::FilterConfig::type_url() => Some(NativeFilter::GrpcStats),
        _ => None,
    }
}

fn header_mutation(message: Option<&mutation_pb::Mutations>) -> Converted<HeaderMutation> {
    let Some(message) = message else { return Ok(HeaderMutation::default()) };
    refuse("mutations.query_parameter_mutations", !message.query_parameter_mutations.is_empty())?;
    refuse("mutations.response_trailers_mutations", !message.response_trailers_mutations.is_empty())?;
    refuse("mutations.request_trailers_mutations", !message.request_trailers_mutations.is_empty())?;
    Ok(HeaderMutation {
        request: mutations("mutations.request_mutations", &message.request_mutations)?,
        response: mutations("mutations.response_mutations", &message.response_mutations)?,
    })
}

/// Removals come before additions here; a list that needs it the other way round is refused.
fn mutations(list: &str, messages: &[policies_xds::mutation_rules::HeaderMutation]) -> Converted<HeaderOps> {
    let mut ops = HeaderOps::default();
    for (index, message) in messages.iter().enumerate() {
        let action = required("action", &message.action).at_item(list, index)?;
        match action {
            Action::Append(option) => ops.add.push(header_add(option).at("append").at_item(list, index)?),
            Action::Remove(name) => {
                let name = changeable("remove", name).at_item(list, index)?;
                if ops.add.iter().any(|add| add.name == name) {
                    return Err(Invalid::unsupported("remove", "removing what was added before"))
                        .at_item(list, index);
                }
                ops.remove.push(name);
            }
            Action::RemoveOnMatch(_) => {
                return Err(Invalid::unsupported("remove_on_match", "removal by pattern"))
                    .at_item(list, index);
            }
        }
    }
    Ok(ops)
}

/// What a route, virtual host, weighted cluster or route configuration says about filters, in the order of their names.
pub(crate) fn route_filters(configs: &HashMap<String, Any>) -> Converted<RouteFilters> {
    let mut named: Vec<_> = configs.iter().collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    let mut entries = Vec::with_capacity(named.len());
    for (name, config) in named {
        entries.extend(route_filter(name, config).at(&format!("typed_per_filter_config[`{name}`]"))?);
    }
    Ok(RouteFilters { entries })
}

/// Adds how requests become descriptors of rate limits: `messages` are a route's or a virtual host's.
pub(crate) fn with_limits(
    mut filters: RouteFilters,
    list: &str,
    messages: &[policies_xds::route::RateLimit],
    include_host: bool,
) -> Converted<RouteFilters> {
    let limits = rate_limit::proto::rate_limits(list, messages)?;
    if !limits.is_empty() || include_host {
        let limits = RouteFilterConfig::Limits(Arc::new(RouteLimits { limits, include_host }));
        filters.entries.push(RouteFilter { name: "".into(), disabled: false, config: Some(limits) });
    }
    Ok(filters)
}

fn route_filter(name: &str, config: &Any) -> Converted<Option<RouteFilter>> {
    let entry = |disabled, config| RouteFilter { name: name.into(), disabled, config };
    if config.type_url != FilterConfig::type_url() {
        return match route_config(config)? {
            Some(known) => Ok(Some(entry(false, Some(known)))),
            None => Err(Invalid::unsupported("", format!("type `{}`", config.type_url))),
        };
    }
    let message: FilterConfig = unpack("", config)?;
    let known = match &message.config {
        Some(config) => match route_config(config).at("config")? {
            None if message.is_optional || message.disabled => None,
            None => {
                return Err(Invalid::unsupported("config", format!("type `{}`", config.type_url)));
            }
            known => known,
        },
        None => None,
    };
    Ok((message.disabled || known.is_some()).then(|| entry(message.disabled, known)))
}

fn route_config(config: &Any) -> Converted<Option<RouteFilterConfig>> {
    let url = config.type_url.as_str();
    let known = if url == HttpFault::type_url() {
        RouteFilterConfig::Fault(Arc::new(fault(&unpack("", config)?)?))
    } else if url == CorsPolicy::type_url() {
        RouteFilterConfig::Cors(Arc::new(cors(&unpack("", config)?)?))
    } else if url == rbac_pb::RbacPerRoute::type_url() {
        let message: rbac_pb::RbacPerRoute = unpack("", config)?;
        RouteFilterConfig::Rbac(message.rbac.as_ref().map(http_rbac).transpose().at("rbac")?.map(Arc::new))
    } else if url == PerRouteConfig::type_url() {
        RouteFilterConfig::Jwt(Arc::new(jwt::proto::choice(&unpack("", config)?)?))
    } else if url == ExtAuthzPerRoute::type_url() {
        RouteFilterConfig::ExtAuthz(ext_authz::proto::per_route(&unpack("", config)?)?.map(Arc::new))
    } else if url == LocalRateLimit::type_url() {
        RouteFilterConfig::LocalRateLimit(Arc::new(rate_limit::proto::local(&unpack("", config)?)?))
    } else if url == RateLimitPerRoute::type_url() {
        RouteFilterConfig::RateLimit(Arc::new(rate_limit::proto::global_route(&unpack("", config)?)?))
    } else if url == HeaderMutationPerRoute::type_url() {
        let message: HeaderMutationPerRoute = unpack("", config)?;
        RouteFilterConfig::HeaderMutation(Arc::new(header_mutation(message.mutations.as_ref())?))
    } else {
        return Ok(None);
    };
    Ok(Some(known))
}

#[cfg(test)]
mod tests;
