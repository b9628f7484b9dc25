//! `HttpConnectionManager.Tracing` and the providers OpenTelemetry and Zipkin.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{CustomTag, MetadataOf, Propagation, Provider, SpanProtocol, TagSource, Tracing};
use crate::convert::{
    At, Converted, each, enumeration, flag, header_name, header_text, not_empty, number, optional_duration,
    refuse, required, unpack,
};
use crate::invalid::Invalid;
use crate::matcher::proto::percent_fraction;
use policies_xds::core::grpc_service::TargetSpecifier;
use policies_xds::core::http_uri::HttpUpstreamType;
use policies_xds::core::{GrpcService, HttpService, TypedExtensionConfig};
use policies_xds::hcm::http_connection_manager as pb;
use policies_xds::metadata_kind::metadata_kind::Kind;
use policies_xds::otel_resource::{EnvironmentResourceDetectorConfig, StaticConfigResourceDetectorConfig};
use policies_xds::otel_sampler::AlwaysOnSamplerConfig;
use policies_xds::protobuf::Any;
use policies_xds::trace::tracing::http::ConfigType;
use policies_xds::trace::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use policies_xds::trace::{OpenTelemetryConfig, ZipkinConfig};
use policies_xds::tracing_tag::{self, custom_tag};
use prost::Name;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default.
const PATH_TAG_BYTES: u32 = 256;
/// Spans that wait when the provider does not say (Envoy's default for OpenTelemetry).
const QUEUE: u32 = 1024;
/// More than this never waits.
const QUEUE_MAX: u32 = 16 * 1024;
/// Tags of one configuration.
const TAGS_MAX: usize = 128;
/// A report may take this long when the provider does not say.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn tracing(message: &pb::Tracing) -> Converted<Tracing> {
    let wanted = flag(&message.spawn_upstream_span, false);
    refuse("spawn_upstream_span", wanted)?;
    if message.custom_tags.len() > TAGS_MAX {
        return Err(Invalid::new("custom_tags", format!("must not be more than {TAGS_MAX}")));
    }
    let provider = message.provider.as_ref().map(|provider| match &provider.config_type {
        Some(ConfigType::TypedConfig(config)) => typed(&provider.name, config).at("typed_config"),
        None => Err(Invalid::missing("typed_config")),
    });
    let path_tag_bytes = number(&message.max_path_tag_length).unwrap_or(PATH_TAG_BYTES);
    Ok(Tracing {
        random_sampling: percent_fraction("random_sampling", &message.random_sampling, 100.0)?,
        client_sampling: percent_fraction("client_sampling", &message.client_sampling, 100.0)?,
        overall_sampling: percent_fraction("overall_sampling", &message.overall_sampling, 100.0)?,
        path_tag_bytes_max: usize::try_from(path_tag_bytes).unwrap_or(usize::MAX),
        custom_tags: each("custom_tags", &message.custom_tags, tag)?,
        provider: provider.transpose().at("provider")?.map(Arc::new),
    })
}

fn tag(message: &tracing_tag::CustomTag) -> Converted<CustomTag> {
    let name = not_empty("tag", &message.tag)?.into();
    let source = match required("type", &message.r#type)? {
        custom_tag::Type::Literal(literal) => TagSource::Literal(literal.value.as_str().into()),
        custom_tag::Type::Environment(from) => TagSource::Environment {
            name: not_empty("environment.name", &from.name)?.into(),
            default: from.default_value.as_str().into(),
        },
        custom_tag::Type::RequestHeader(from) => TagSource::Header {
            name: header_name("request_header.name", &from.name)?,
            default: from.default_value.as_str().into(),
        },
        custom_tag::Type::Metadata(from) => metadata(from).at("metadata")?,
        custom_tag::Type::Value(text) => TagSource::Format(text.as_str().into()),
    };
    Ok(CustomTag { name, source })
}

fn metadata(from: &custom_tag::Metadata) -> Converted<TagSource> {
    let of = match required("kind", &from.kind)?.kind {
        Some(Kind::Request(_)) => MetadataOf::Request,
        Some(Kind::Route(_)) => MetadataOf::Route,
        Some(Kind::Cluster(_)) => MetadataOf::Cluster,
        Some(Kind::Host(_)) => return Err(Invalid::unsupported("kind.host", "this kind")),
        None => return Err(Invalid::missing("kind")),
    };
    let key = required("metadata_key", &from.metadata_key)?;
    let path = each("metadata_key.path", &key.path, |segment| match &segment.segment {
        Some(policies_xds::metadata_kind::metadata_key::path_segment::Segment::Key(key)) => {
            Ok(key.as_str().into())
        }
        _ => Err(Invalid::missing("key")),
    })?;
    let namespace = not_empty("metadata_key.key", &key.key)?.into();
    Ok(TagSource::Metadata { of, namespace, path, default: from.default_value.as_str().into() })
}

fn typed(name: &str, config: &Any) -> Converted<Provider> {
    let url = config.type_url.as_str();
    if url == OpenTelemetryConfig::type_url() {
        return opentelemetry(&unpack("", config)?);
    }
    if url == ZipkinConfig::type_url() {
        return zipkin(&unpack("", config)?);
    }
    Err(Invalid::unsupported("", format!("tracing provider `{name}` of type `{url}`")))
}

fn opentelemetry(message: &OpenTelemetryConfig) -> Converted<Provider> {
    refuse("exporter", message.exporter.is_some())?;
    let mut provider = match (&message.grpc_service, &message.http_service) {
        (Some(_), Some(_)) => {
            return Err(Invalid::new("http_service", "must not be set beside `grpc_service`"));
        }
        (Some(service), None) => grpc(service).at("grpc_service")?,
        (None, Some(service)) => {
            let (provider, path) = http(service).at("http_service")?;
            Provider { protocol: SpanProtocol::OtlpHttp(path), ..provider }
        }
        (None, None) => return Err(Invalid::missing("grpc_service")),
    };
    provider.service_name = message.service_name.as_str().into();
    provider.queue_max = queue(number(&message.max_cache_size).unwrap_or(QUEUE));
    for (index, detector) in message.resource_detectors.iter().enumerate() {
        detect(&mut provider, detector).at_item("resource_detectors", index)?;
    }
    provider.always_on = match &message.sampler {
        None => false,
        Some(sampler) if extension_url(sampler) == AlwaysOnSamplerConfig::type_url() => true,
        Some(sampler) => return Err(Invalid::unsupported("sampler", format!("sampler `{}`", sampler.name))),
    };
    Ok(provider)
}

fn queue(spans: u32) -> usize {
    usize::try_from(spans.clamp(1, QUEUE_MAX)).unwrap_or(1)
}

fn extension_url(config: &TypedExtensionConfig) -> &str {
    config.typed_config.as_ref().map_or("", |config| &config.type_url)
}

fn detect(provider: &mut Provider, detector: &TypedExtensionConfig) -> Converted<()> {
    let url = extension_url(detector);
    if url == EnvironmentResourceDetectorConfig::type_url() {
        provider.resource_from_environment = true;
        return Ok(());
    }
    if url == StaticConfigResourceDetectorConfig::type_url() {
        let config: StaticConfigResourceDetectorConfig =
            unpack("typed_config", required("typed_config", &detector.typed_config)?)?;
        let mut all: Vec<_> = config.attributes.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        all.sort_unstable();
        provider.resource.extend(all);
        return Ok(());
    }
    Err(Invalid::unsupported("", format!("resource detector `{}`", detector.name)))
}

/// A provider that is sent to over gRPC.
fn grpc(service: &GrpcService) -> Converted<Provider> {
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        return Err(Invalid::unsupported("target_specifier", "anything but `envoy_grpc`"));
    };
    let cluster = not_empty("envoy_grpc.cluster_name", &target.cluster_name)?;
    let authority = match header_text("envoy_grpc.authority", &target.authority)? {
        "" => cluster,
        authority => authority,
    };
    let headers =
        each("initial_metadata", &service.initial_metadata, |header| pair(&header.key, &header.value))?;
    let timeout = optional_duration("timeout", &service.timeout)?.unwrap_or(TIMEOUT);
    Ok(Provider { headers, timeout, ..provider(cluster, authority, SpanProtocol::OtlpGrpc) })
}

/// A provider that is posted to, and the path; the protocol is the caller's.
fn http(service: &HttpService) -> Converted<(Provider, Box<str>)> {
    refuse("formatters", !service.formatters.is_empty())?;
    let uri = required("http_uri", &service.http_uri)?;
    let cluster = match &uri.http_upstream_type {
        Some(HttpUpstreamType::Cluster(cluster)) => not_empty("http_uri.cluster", cluster)?,
        None => return Err(Invalid::missing("http_uri.cluster")),
    };
    let (authority, path) = split(not_empty("http_uri.uri", &uri.uri)?);
    let authority = if authority.is_empty() { cluster } else { authority };
    let header = |option: &policies_xds::core::HeaderValueOption| {
        let header = required("header", &option.header)?;
        pair(&header.key, &header.value)
    };
    let headers = each("request_headers_to_add", &service.request_headers_to_add, header)?;
    let timeout = optional_duration("http_uri.timeout", &uri.timeout)?.unwrap_or(TIMEOUT);
    let path: Box<str> = header_text("http_uri.uri", path)?.into();
    Ok((
        Provider { headers, timeout, ..provider(cluster, authority, SpanProtocol::OtlpHttp(path.clone())) },
        path,
    ))
}

fn pair(key: &str, value: &str) -> Converted<(Box<str>, Box<str>)> {
    Ok((header_name("key", key)?.as_str().into(), header_text("value", value)?.into()))
}

/// Host and path of a URI, with or without a scheme; only a path begins with a slash.
fn split(uri: &str) -> (&str, &str) {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/"),
    }
}

fn provider(cluster: &str, authority: &str, protocol: SpanProtocol) -> Provider {
    Provider {
        cluster: cluster.into(),
        authority: authority.into(),
        protocol,
        headers: Vec::new(),
        timeout: TIMEOUT,
        service_name: "".into(),
        resource: Vec::new(),
        resource_from_environment: false,
        always_on: false,
        propagation: Propagation::W3c,
        queue_max: queue(QUEUE),
    }
}

fn zipkin(message: &ZipkinConfig) -> Converted<Provider> {
    refuse("split_spans_for_request", message.split_spans_for_request)?;
    let (posted, path) = match &message.collector_service {
        Some(service) => http(service).at("collector_service")?,
        None => {
            let cluster = not_empty("collector_cluster", &message.collector_cluster)?;
            let host = match header_text("collector_hostname", &message.collector_hostname)? {
                "" => cluster,
                host => host,
            };
            let path: Box<str> = header_text(
                "collector_endpoint",
                not_empty("collector_endpoint", &message.collector_endpoint)?,
            )?
            .into();
            (provider(cluster, host, SpanProtocol::OtlpHttp(path.clone())), path)
        }
    };
    match enumeration("collector_endpoint_version", message.collector_endpoint_version)? {
        CollectorEndpointVersion::HttpJson => {}
        _ => {
            return Err(Invalid::unsupported("collector_endpoint_version", "another version than HTTP_JSON"));
        }
    }
    let propagation = match enumeration("trace_context_option", message.trace_context_option)? {
        TraceContextOption::UseB3 => Propagation::B3,
        TraceContextOption::UseB3WithW3cPropagation => Propagation::B3AndW3c,
    };
    let shared = flag(&message.shared_span_context, true);
    let protocol = SpanProtocol::Zipkin { path, wide: message.trace_id_128bit, shared };
    Ok(Provider { protocol, propagation, ..posted })
}

#[cfg(test)]
mod tests;
