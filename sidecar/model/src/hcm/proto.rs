//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
//!
//! Passed over, since they change neither who is served nor what arrives: user agents, proxy status headers, request
//! identifier formats, HTTP/2 flood limits (the codec has its own), flush options of logs.

mod options;

pub(crate) use options::{http1_options, http2_options};

use super::{
    ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, HttpConnectionManager, RouteSource,
    ServerHeader, Upgrade,
};
use crate::access_log::proto::access_logs;
use crate::convert::{
    At, Converted, aggregated, bounded, duration_or, each, enumeration, flag, header_text, not_empty, number,
    refuse, required, timeout,
};
use crate::http_filter::proto::http_filter;
use crate::http_filter::{HttpFilter, HttpFilterKind};
use crate::invalid::Invalid;
use crate::route::proto::route_config;
use crate::tracing::proto::tracing;
use policies_xds::core::HttpProtocolOptions;
use policies_xds::core::http_protocol_options::HeadersWithUnderscoresAction;
use policies_xds::core::scheme_header_transformation::Transformation;
use policies_xds::hcm::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation, StripPortMode,
};
use std::sync::Arc;
use std::time::Duration;

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Envoy's default and bound for the headers of a request.
const REQUEST_HEADERS_KIB: u32 = 60;
const REQUEST_HEADERS_KIB_MAX: u32 = 8192;
const HEADERS_COUNT: u32 = 100;
const SERVER_NAME: &str = "envoy";

type Message = policies_xds::hcm::HttpConnectionManager;

pub(crate) fn http_connection_manager(message: &Message) -> Converted<HttpConnectionManager> {
    refuse_what_is_missing(message)?;
    let default = HttpProtocolOptions::default();
    let common = message.common_http_protocol_options.as_ref().unwrap_or(&default);
    refuse_common(common).at("common_http_protocol_options")?;
    let limits = limits(message, common)?;
    Ok(HttpConnectionManager {
        stat_prefix: message.stat_prefix.as_str().into(),
        codec: codec(message.codec_type)?,
        route: route_source(message)?,
        http_filters: http_filters(message)?,
        access_log: access_logs("access_log", &message.access_log)?,
        upgrades: upgrades(message)?,
        tracing: message.tracing.as_ref().map(tracing).transpose().at("tracing")?,
        idle_timeout: timeout(
            "common_http_protocol_options.idle_timeout",
            &common.idle_timeout,
            Some(IDLE_TIMEOUT),
        )?,
        max_connection_duration: timeout(
            "common_http_protocol_options.max_connection_duration",
            &common.max_connection_duration,
            None,
        )?,
        max_requests_per_connection: number(&common.max_requests_per_connection).filter(|max| *max > 0),
        max_stream_duration: timeout(
            "common_http_protocol_options.max_stream_duration",
            &common.max_stream_duration,
            None,
        )?,
        stream_idle_timeout: timeout(
            "stream_idle_timeout",
            &message.stream_idle_timeout,
            Some(STREAM_IDLE_TIMEOUT),
        )?,
        request_timeout: timeout("request_timeout", &message.request_timeout, None)?,
        request_headers_timeout: timeout("request_headers_timeout", &message.request_headers_timeout, None)?,
        drain_timeout: duration_or("drain_timeout", &message.drain_timeout, DRAIN_TIMEOUT)?,
        delayed_close_timeout: timeout(
            "delayed_close_timeout",
            &message.delayed_close_timeout,
            Some(DELAYED_CLOSE_TIMEOUT),
        )?,
        request_headers_bytes_max: limits.0,
        headers_count_max: limits.1,
        http2: http2_options(message.http2_protocol_options.as_ref()).at("http2_protocol_options")?,
        http1: http1_options(message.http_protocol_options.as_ref()),
        http10_host: http10_host(message)?,
        use_remote_address: flag(&message.use_remote_address, false),
        xff_num_trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        forward_client_cert: forward_client_cert(message.forward_client_cert_details)?,
        client_cert_details: client_cert_details(message),
        generate_request_id: flag(&message.generate_request_id, true),
        preserve_external_request_id: message.preserve_external_request_id,
        always_set_request_id_in_response: message.always_set_request_id_in_response,
        server_name: match header_text("server_name", &message.server_name)? {
            "" => SERVER_NAME.into(),
            name => name.into(),
        },
        server_header: server_header(message.server_header_transformation)?,
        normalize_path: flag(&message.normalize_path, false),
        merge_slashes: message.merge_slashes,
        escaped_slashes: escaped_slashes(message.path_with_escaped_slashes_action)?,
        strip_port_from_host: message.strip_matching_host_port
            || matches!(message.strip_port_mode, Some(StripPortMode::StripAnyHostPort(true))),
        strip_trailing_host_dot: message.strip_trailing_host_dot,
        scheme_override: scheme_override(message)?,
        via: header_text("via", &message.via)?.into(),
    })
}

fn refuse_what_is_missing(message: &Message) -> Converted<()> {
    refuse("http3_protocol_options", message.http3_protocol_options.is_some())?;
    refuse("local_reply_config", message.local_reply_config.is_some())?;
    refuse("path_normalization_options", message.path_normalization_options.is_some())?;
    refuse("original_ip_detection_extensions", !message.original_ip_detection_extensions.is_empty())?;
    refuse("early_header_mutation_extensions", !message.early_header_mutation_extensions.is_empty())?;
    refuse("internal_address_config", message.internal_address_config.is_some())?;
    refuse("forward_client_cert_matcher", message.forward_client_cert_matcher.is_some())
}

fn refuse_common(common: &HttpProtocolOptions) -> Converted<()> {
    match enumeration("headers_with_underscores_action", common.headers_with_underscores_action)? {
        HeadersWithUnderscoresAction::Allow => Ok(()),
        _ => Err(Invalid::unsupported("headers_with_underscores_action", "another action than ALLOW")),
    }
}

fn limits(message: &Message, common: &HttpProtocolOptions) -> Converted<(usize, usize)> {
    let kib = number(&message.max_request_headers_kb).unwrap_or(REQUEST_HEADERS_KIB);
    let kib = bounded("max_request_headers_kb", kib, 1..=REQUEST_HEADERS_KIB_MAX)?;
    let count = number(&common.max_headers_count).unwrap_or(HEADERS_COUNT);
    let count = bounded("common_http_protocol_options.max_headers_count", count, 1..=u32::MAX)?;
    let whole = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Ok((whole(kib) * 1024, whole(count)))
}

fn codec(value: i32) -> Converted<Codec> {
    match enumeration("codec_type", value)? {
        CodecType::Auto => Ok(Codec::Auto),
        CodecType::Http1 => Ok(Codec::Http1),
        CodecType::Http2 => Ok(Codec::Http2),
        CodecType::Http3 => Err(Invalid::unsupported("codec_type", "HTTP/3")),
    }
}

fn route_source(message: &Message) -> Converted<RouteSource> {
    match required("route_specifier", &message.route_specifier)? {
        RouteSpecifier::Rds(rds) => {
            aggregated("rds.config_source", &rds.config_source)?;
            Ok(RouteSource::Rds(not_empty("rds.route_config_name", &rds.route_config_name)?.into()))
        }
        RouteSpecifier::RouteConfig(config) => {
            Ok(RouteSource::Inline(Arc::new(route_config(config).at("route_config")?)))
        }
        RouteSpecifier::ScopedRoutes(_) => Err(Invalid::unsupported("scoped_routes", "this field")),
    }
}

fn http_filters(message: &Message) -> Converted<Vec<HttpFilter>> {
    let filters = each("http_filters", &message.http_filters, http_filter)?;
    let filters: Vec<_> = filters.into_iter().flatten().collect();
    let routers = filters.iter().filter(|filter| matches!(filter.kind, HttpFilterKind::Router(_))).count();
    let last = filters.last().is_some_and(|filter| matches!(filter.kind, HttpFilterKind::Router(_)));
    if !last || routers != 1 {
        return Err(Invalid::new("http_filters", "must end in a router and have no other"));
    }
    for (index, filter) in filters.iter().enumerate() {
        if filters[..index].iter().any(|other| other.name == filter.name) {
            return Err(Invalid::new("http_filters", format!("has two filters named `{}`", filter.name)));
        }
    }
    Ok(filters)
}

fn upgrades(message: &Message) -> Converted<Vec<Upgrade>> {
    each("upgrade_configs", &message.upgrade_configs, |upgrade| {
        refuse("filters", !upgrade.filters.is_empty())?;
        let protocol = not_empty("upgrade_type", &upgrade.upgrade_type)?.to_ascii_lowercase().into();
        Ok(Upgrade { protocol, enabled: flag(&upgrade.enabled, true), terminates: false })
    })
}

fn forward_client_cert(value: i32) -> Converted<ForwardClientCert> {
    Ok(match enumeration("forward_client_cert_details", value)? {
        ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
        ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    })
}

fn client_cert_details(message: &Message) -> ClientCertDetails {
    let Some(details) = &message.set_current_client_cert_details else { return ClientCertDetails::default() };
    ClientCertDetails {
        subject: flag(&details.subject, false),
        cert: details.cert,
        chain: details.chain,
        dns: details.dns,
        uri: details.uri,
    }
}

fn server_header(value: i32) -> Converted<ServerHeader> {
    Ok(match enumeration("server_header_transformation", value)? {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    })
}

fn escaped_slashes(value: i32) -> Converted<EscapedSlashes> {
    use PathWithEscapedSlashesAction as Action;
    Ok(match enumeration("path_with_escaped_slashes_action", value)? {
        Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
        Action::RejectRequest => EscapedSlashes::Reject,
        Action::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Action::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    })
}

fn http10_host(message: &Message) -> Converted<Box<str>> {
    let host =
        message.http_protocol_options.as_ref().map_or("", |options| &*options.default_host_for_http_10);
    Ok(header_text("http_protocol_options.default_host_for_http_10", host)?.into())
}

fn scheme_override(message: &Message) -> Converted<Option<Box<str>>> {
    let transformation =
        message.scheme_header_transformation.as_ref().and_then(|it| it.transformation.as_ref());
    match transformation {
        None => Ok(None),
        Some(Transformation::SchemeToOverwrite(scheme)) if matches!(scheme.as_str(), "http" | "https") => {
            Ok(Some(scheme.as_str().into()))
        }
        Some(_) => Err(Invalid::new("scheme_header_transformation", "must be `http` or `https`")),
    }
}

#[cfg(test)]
mod tests;
