//! How requests are traced: by `Telemetry` objects and the mesh's configuration, as Istio compiles them.

use std::time::Duration;

use meshd_model::provider::{Collector, Provider, ProviderKind};
use meshd_model::select::security;
use meshd_model::{ProxyKind, Service};
use policies_api::telemetry::{CustomTag, Tracing as Spec};
use policies_xds::core::grpc_service::{EnvoyGrpc, TargetSpecifier};
use policies_xds::core::header_value_option::HeaderAppendAction;
use policies_xds::core::http_uri::HttpUpstreamType;
use policies_xds::core::{
    GrpcService, HeaderValue, HeaderValueOption, HttpService, HttpUri, TypedExtensionConfig,
};
use policies_xds::hcm::http_connection_manager::Tracing;
use policies_xds::otel_resource::EnvironmentResourceDetectorConfig;
use policies_xds::protobuf::{Any, UInt32Value};
use policies_xds::trace::tracing::{Http, http};
use policies_xds::trace::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use policies_xds::trace::{OpenTelemetryConfig, ZipkinConfig};
use policies_xds::tracing_tag::{self, custom_tag};
use policies_xds::{any, types};

use crate::filter::access_log::Side;
use crate::proto::{duration, flag};
use crate::view::{View, outbound_name};

const ZIPKIN: &str = "envoy.tracers.zipkin";
const OPENTELEMETRY: &str = "envoy.tracers.opentelemetry";
const ENVIRONMENT_DETECTOR: &str = "envoy.tracers.opentelemetry.resource_detectors.environment";
/// Where Zipkin takes spans.
const ZIPKIN_PATH: &str = "/api/v2/spans";
/// Envoy wants a time for reports over HTTP; this is Istio's.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// What `Telemetry` objects say together: a narrower one overrides what it mentions.
#[derive(Default)]
struct Merged<'a> {
    provider: Option<&'a str>,
    disabled: bool,
    sampling: Option<f64>,
    istio_tags: Option<bool>,
    tags: Option<&'a std::collections::BTreeMap<String, CustomTag>>,
}

/// Tracing of one side of a proxy; none: off.
pub(crate) fn tracing(view: &View<'_>, side: Side) -> Option<Tracing> {
    let merged = merged(view, side);
    let Some(merged) = merged else {
        // Without a provider only request identifiers say what is sampled.
        return view.mesh.enable_tracing.then(|| sampled(view.mesh.trace_sampling));
    };
    if merged.disabled {
        return None;
    }
    let provider =
        merged.provider.and_then(|name| view.mesh.provider(name)).and_then(|it| http_provider(view, it));
    let (provider, tag_length) = provider.map_or((None, 0), |(provider, length)| (Some(provider), length));
    Some(Tracing {
        provider,
        max_path_tag_length: (tag_length > 0).then_some(UInt32Value { value: tag_length }),
        custom_tags: tags(view, &merged),
        ..sampled(merged.sampling.unwrap_or(view.mesh.trace_sampling))
    })
}

fn sampled(percent: f64) -> Tracing {
    let random = if percent.is_nan() { 0.0 } else { percent.clamp(0.0, 100.0) };
    Tracing {
        client_sampling: Some(types::Percent { value: 100.0 }),
        random_sampling: Some(types::Percent { value: random }),
        overall_sampling: Some(types::Percent { value: 100.0 }),
        ..Default::default()
    }
}

/// None if neither an object nor the mesh names a provider for this side.
fn merged<'a>(view: &View<'a>, side: Side) -> Option<Merged<'a>> {
    let side = if view.proxy.kind == ProxyKind::Router { Side::Client } else { side };
    let telemetries = security::telemetries(view.snapshot, &view.proxy.namespace, &view.proxy.labels);
    let entries = telemetries.iter().flat_map(|it| &it.spec.tracing);
    let concerned: Vec<&Spec> = entries.filter(|it| side.is_meant_by(it.selector.as_ref())).collect();
    let default = view.mesh.default_tracing.first().map(String::as_str);
    if concerned.is_empty() && default.is_none() {
        return None;
    }
    let mut merged = Merged { provider: default, ..Merged::default() };
    for entry in concerned {
        if let Some(provider) = entry.providers.first() {
            merged.provider = Some(&provider.name);
        }
        merged.disabled = entry.disable_span_reporting.unwrap_or(merged.disabled);
        merged.sampling = entry.random_sampling_percentage.or(merged.sampling);
        merged.istio_tags = entry.enable_istio_tags.or(merged.istio_tags);
        if !entry.custom_tags.is_empty() {
            merged.tags = Some(&entry.custom_tags);
        }
    }
    Some(merged)
}

/// The tags that Istio adds, and those of the objects, by name.
fn tags(view: &View<'_>, merged: &Merged<'_>) -> Vec<tracing_tag::CustomTag> {
    let mut tags = Vec::new();
    if merged.istio_tags.unwrap_or(true) {
        let label =
            |names: &[&str]| names.iter().find_map(|name| view.proxy.labels.get(*name)).map(String::as_str);
        let revisions = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
        let or =
            |text: &str, missing: &str| if text.is_empty() { missing.to_owned() } else { text.to_owned() };
        for (name, value) in [
            ("istio.canonical_revision", label(&revisions).unwrap_or("latest").to_owned()),
            ("istio.canonical_service", canonical_name(view).to_owned()),
            ("istio.cluster_id", or(&view.proxy.cluster_id, "unknown")),
            ("istio.mesh_id", or(&view.mesh.mesh_id, "unknown")),
            ("istio.namespace", or(&view.proxy.namespace, "default")),
        ] {
            tags.push(tag(name, custom_tag::Type::Literal(custom_tag::Literal { value })));
        }
    }
    for (name, written) in merged.tags.into_iter().flatten() {
        let kind = match written {
            CustomTag { literal: Some(it), .. } => {
                custom_tag::Type::Literal(custom_tag::Literal { value: it.value.clone() })
            }
            CustomTag { environment: Some(it), .. } => {
                custom_tag::Type::Environment(custom_tag::Environment {
                    name: it.name.clone(),
                    default_value: it.default_value.clone(),
                })
            }
            CustomTag { header: Some(it), .. } => custom_tag::Type::RequestHeader(custom_tag::Header {
                name: it.name.clone(),
                default_value: it.default_value.clone(),
            }),
            CustomTag { formatter: Some(it), .. } => custom_tag::Type::Value(it.value.clone()),
            _ => continue,
        };
        tags.retain(|one: &tracing_tag::CustomTag| one.tag != *name);
        tags.push(tag(name, kind));
    }
    tags.sort_by(|a, b| a.tag.cmp(&b.tag));
    tags
}

fn tag(name: &str, kind: custom_tag::Type) -> tracing_tag::CustomTag {
    tracing_tag::CustomTag { tag: name.to_owned(), r#type: Some(kind) }
}

/// The provider in Envoy's form and its bound on path tags; none if its service is not known or it takes no spans.
fn http_provider(view: &View<'_>, provider: &Provider) -> Option<(Http, u32)> {
    let (name, config, tag_length) = match &provider.kind {
        ProviderKind::Zipkin { collector, path, max_tag_length, narrow_trace_id, with_w3c } => {
            let (host, cluster) = look_up(view, collector)?;
            let option = if *with_w3c {
                TraceContextOption::UseB3WithW3cPropagation
            } else {
                TraceContextOption::UseB3
            };
            let config = ZipkinConfig {
                collector_cluster: cluster,
                collector_endpoint: if path.is_empty() { ZIPKIN_PATH } else { path }.to_owned(),
                collector_endpoint_version: CollectorEndpointVersion::HttpJson.into(),
                collector_hostname: host,
                trace_id_128bit: !narrow_trace_id,
                shared_span_context: flag(false),
                trace_context_option: option.into(),
                ..Default::default()
            };
            (ZIPKIN, any(&config), *max_tag_length)
        }
        ProviderKind::OpenTelemetry { collector, max_tag_length, .. } => {
            let (host, cluster) = look_up(view, collector)?;
            (OPENTELEMETRY, opentelemetry(view, &provider.kind, host, cluster)?, *max_tag_length)
        }
        _ => return None,
    };
    let config_type = Some(http::ConfigType::TypedConfig(config));
    Some((Http { name: name.to_owned(), config_type }, tag_length))
}

fn opentelemetry(view: &View<'_>, kind: &ProviderKind, host: String, cluster: String) -> Option<Any> {
    let ProviderKind::OpenTelemetry { http_path, timeout, headers, environment_detector, .. } = kind else {
        return None;
    };
    let pair = |(key, value): &(String, String)| HeaderValue {
        key: key.clone(),
        value: value.clone(),
        ..Default::default()
    };
    let mut config = OpenTelemetryConfig {
        service_name: format!("{}.{}", canonical_name(view), view.proxy.namespace),
        ..Default::default()
    };
    match http_path {
        Some(path) => {
            let option = |header| HeaderValueOption {
                header: Some(pair(header)),
                append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
                ..Default::default()
            };
            config.http_service = Some(HttpService {
                http_uri: Some(HttpUri {
                    uri: format!("{host}/{}", path.trim_start_matches('/')),
                    timeout: Some(duration(timeout.unwrap_or(HTTP_TIMEOUT))),
                    http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)),
                }),
                request_headers_to_add: headers.iter().map(option).collect(),
                ..Default::default()
            });
        }
        None => {
            let target = EnvoyGrpc { cluster_name: cluster, authority: host, ..Default::default() };
            config.grpc_service = Some(GrpcService {
                timeout: timeout.map(duration),
                initial_metadata: headers.iter().map(pair).collect(),
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
                ..Default::default()
            });
        }
    }
    if *environment_detector {
        config.resource_detectors.push(TypedExtensionConfig {
            name: ENVIRONMENT_DETECTOR.to_owned(),
            typed_config: Some(any(&EnvironmentResourceDetectorConfig {})),
        });
    }
    Some(any(&config))
}

/// The producer's name: what the proxy itself calls its cluster.
fn canonical_name<'a>(view: &View<'a>) -> &'a str {
    let labels = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    let found = labels.into_iter().find_map(|name| view.proxy.labels.get(name));
    found.map_or(&view.proxy.pod, String::as_str)
}

/// Host and cluster of a collector; none if the proxy does not know the service and port.
fn look_up(view: &View<'_>, collector: &Collector) -> Option<(String, String)> {
    let (namespace, host) = match collector.service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, collector.service.as_str()),
    };
    let fits = |service: &&std::sync::Arc<Service>| {
        namespace.is_none_or(|namespace| *service.namespace == *namespace)
            && service.ports.iter().any(|port| port.port == collector.port)
    };
    let service = view.service(host).filter(fits)?;
    Some((service.host.to_string(), outbound_name(collector.port, "", &service.host)))
}
