//! A cluster, as `envoy.config.cluster.v3.Cluster`.

use serde_json::{Value, json};

use super::{endpoints, message, metadata, seconds, string_match, url};
use crate::cluster::{
    Cluster, ClusterKind, DnsFamily, DnsOptions, LbPolicy, OutlierDetection, Thresholds, UpstreamProtocol,
};
use crate::secret::SYSTEM_ROOTS;
use crate::tls::{CertificateSource, RootSource, SanKind, TlsParameters, UpstreamTls};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster.
pub fn cluster(cluster: &Cluster) -> Value {
    let breakers = &cluster.circuit_breakers;
    let matches: Vec<Value> = cluster
        .transport_socket_matches
        .iter()
        .map(|one| {
            let labels: serde_json::Map<String, Value> =
                one.labels.iter().map(|(key, value)| (key.to_string(), value.clone())).collect();
            json!({ "name": one.name, "match": labels, "transport_socket": socket(one.tls.as_deref()) })
        })
        .collect();
    let mut fields = json!({
        "name": &*cluster.name,
        "alt_stat_name": cluster.alt_stat_name,
        "connect_timeout": seconds(cluster.connect_timeout),
        "circuit_breakers": { "thresholds": [
            thresholds(&breakers.default, ""), thresholds(&breakers.high, "HIGH")
        ] },
        "outlier_detection": cluster.outlier.as_ref().map(outlier),
        "transport_socket": cluster.tls.as_deref().map(|tls| socket(Some(tls))),
        "transport_socket_matches": matches,
        "typed_extension_protocol_options": { HTTP_OPTIONS: http_options(cluster) },
        "load_assignment": cluster.load_assignment.as_deref().map(endpoints::fields),
        "common_lb_config": { "healthy_panic_threshold": {
            "value": cluster.locality_lb.healthy_panic_percent
        } },
        "upstream_bind_config": cluster.source_address.map(|ip| json!({
            "source_address": { "address": ip.to_string(), "port_value": 0 }
        })),
        "metadata": metadata(&cluster.metadata),
    });
    kind(&mut fields, &cluster.kind);
    balancing(&mut fields, &cluster.lb);
    message(&url("envoy.config.cluster.v3.Cluster"), fields)
}

fn kind(fields: &mut Value, kind: &ClusterKind) {
    match kind {
        ClusterKind::Eds { service_name } => {
            fields["type"] = "EDS".into();
            fields["eds_cluster_config"] = json!({
                "eds_config": { "ads": {}, "resource_api_version": "V3" }, "service_name": &**service_name,
            });
        }
        ClusterKind::Static => fields["type"] = "STATIC".into(),
        ClusterKind::StrictDns(options) => dns(fields, "STRICT_DNS", options),
        ClusterKind::LogicalDns(options) => dns(fields, "LOGICAL_DNS", options),
        ClusterKind::OriginalDst { header, port_override } => {
            fields["type"] = "ORIGINAL_DST".into();
            fields["original_dst_lb_config"] = json!({
                "use_http_header": header.is_some(),
                "http_header_name": header.as_ref().map(http::HeaderName::as_str),
                "upstream_port_override": port_override,
            });
        }
    }
}

fn dns(fields: &mut Value, kind: &str, options: &DnsOptions) {
    fields["type"] = kind.into();
    fields["dns_refresh_rate"] = seconds(options.refresh).into();
    fields["respect_dns_ttl"] = options.respect_ttl.into();
    fields["dns_lookup_family"] = match options.family {
        DnsFamily::Auto => "",
        DnsFamily::V4Only => "V4_ONLY",
        DnsFamily::V6Only => "V6_ONLY",
        DnsFamily::V4Preferred => "V4_PREFERRED",
        DnsFamily::All => "ALL",
    }
    .into();
}

fn balancing(fields: &mut Value, policy: &LbPolicy) {
    match policy {
        LbPolicy::RoundRobin { .. } => {}
        LbPolicy::LeastRequest { choices, .. } => {
            fields["lb_policy"] = "LEAST_REQUEST".into();
            fields["least_request_lb_config"] = json!({ "choice_count": choices });
        }
        LbPolicy::Random => fields["lb_policy"] = "RANDOM".into(),
        LbPolicy::RingHash { ring_size_min, ring_size_max, .. } => {
            fields["lb_policy"] = "RING_HASH".into();
            // Protobuf's JSON writes 64-bit numbers as texts.
            fields["ring_hash_lb_config"] = json!({
                "minimum_ring_size": ring_size_min.to_string(), "maximum_ring_size": ring_size_max.to_string(),
            });
        }
        LbPolicy::Maglev { table_size } => {
            fields["lb_policy"] = "MAGLEV".into();
            fields["maglev_lb_config"] = json!({ "table_size": table_size.to_string() });
        }
        LbPolicy::ClusterProvided => fields["lb_policy"] = "CLUSTER_PROVIDED".into(),
        LbPolicy::PeakEwma(rules) => {
            fields["load_balancing_policy"] = json!({ "policies": [{ "typed_extension_config": {
                "name": "envoy.load_balancing_policies.peak_ewma",
                "typed_config": {
                    "@type": url("envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma"),
                    "decay_time": seconds(rules.decay),
                    "default_rtt": seconds(rules.default_rtt),
                },
            } }] });
        }
    }
}

fn thresholds(limits: &Thresholds, priority: &str) -> Value {
    json!({
        "priority": priority,
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending_requests,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
        "max_connection_pools": limits.max_connection_pools,
        "retry_budget": limits.retry_budget.map(|budget| json!({
            "budget_percent": { "value": budget.percent }, "min_retry_concurrency": budget.min_concurrency,
        })),
        "track_remaining": limits.track_remaining,
    })
}

fn outlier(outlier: &OutlierDetection) -> Value {
    json!({
        "consecutive_5xx": outlier.consecutive_5xx,
        "enforcing_consecutive_5xx": outlier.enforcing_consecutive_5xx,
        "consecutive_gateway_failure": outlier.consecutive_gateway_failure,
        "enforcing_consecutive_gateway_failure": outlier.enforcing_consecutive_gateway_failure,
        "split_external_local_origin_errors": outlier.split_external_local_origin_errors,
        "consecutive_local_origin_failure": outlier.consecutive_local_origin_failure,
        "interval": seconds(outlier.interval),
        "base_ejection_time": seconds(outlier.base_ejection_time),
        "max_ejection_time": seconds(outlier.max_ejection_time),
        "max_ejection_percent": outlier.max_ejection_percent,
        "enforcing_success_rate": outlier.enforcing_success_rate,
        "enforcing_failure_percentage": outlier.enforcing_failure_percentage,
    })
}

fn http_options(cluster: &Cluster) -> Value {
    let protocol = match cluster.http.protocol {
        UpstreamProtocol::Http1 => json!({ "explicit_http_config": { "http_protocol_options": {} } }),
        UpstreamProtocol::Http2 => json!({ "explicit_http_config": { "http2_protocol_options": {} } }),
        UpstreamProtocol::UseDownstream => json!({ "use_downstream_protocol_config": {
            "http_protocol_options": {}, "http2_protocol_options": {}
        } }),
        UpstreamProtocol::Auto => json!({ "auto_config": {} }),
    };
    let mut fields = protocol;
    fields["common_http_protocol_options"] = json!({
        "idle_timeout": cluster.http.idle_timeout.map(seconds),
        "max_connection_duration": cluster.http.max_connection_duration.map(seconds),
        "max_requests_per_connection": cluster.http.max_requests_per_connection,
    });
    message(&url(HTTP_OPTIONS), fields)
}

/// The transport socket of this TLS, or plain text.
fn socket(tls: Option<&UpstreamTls>) -> Value {
    let Some(tls) = tls else {
        let raw = url("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer");
        return json!({ "name": "envoy.transport_sockets.raw_buffer", "typed_config": { "@type": raw } });
    };
    let fields = json!({ "common_tls_context": common_tls(&tls.common), "sni": tls.sni, "auto_host_sni": tls.auto_sni });
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": message(&url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"), fields),
    })
}

/// What both sides of TLS have in common; certificates by name only.
pub(super) fn common_tls(common: &TlsParameters) -> Value {
    let sds = |name: &str| json!({ "name": name, "sds_config": { "ads": {}, "resource_api_version": "V3" } });
    let certificates: Vec<Value> = common
        .certificates
        .iter()
        .filter_map(|source| match source {
            CertificateSource::Secret(name) => Some(sds(name)),
            CertificateSource::Inline(_) => None,
        })
        .collect();
    let names: Vec<Value> = common
        .validation
        .subject_alt_names
        .iter()
        .map(|san| {
            let kind = match san.kind {
                SanKind::Any => "",
                SanKind::Uri => "URI",
                SanKind::Dns => "DNS",
                SanKind::Ip => "IP_ADDRESS",
                SanKind::Email => "EMAIL",
            };
            json!({ "san_type": kind, "matcher": string_match(&san.matcher) })
        })
        .collect();
    let roots = match &common.validation.roots {
        Some(RootSource::Secret(name)) if **name == *SYSTEM_ROOTS => {
            json!({ "validation_context": { "system_root_certs": {} } })
        }
        Some(RootSource::Secret(name)) => json!({ "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names": names },
            "validation_context_sds_secret_config": sds(name),
        } }),
        Some(RootSource::Inline(pem)) => json!({ "validation_context": {
            "trusted_ca": { "inline_string": &**pem }, "match_typed_subject_alt_names": names,
        } }),
        None => json!({}),
    };
    let mut fields = roots;
    fields["tls_certificate_sds_secret_configs"] = certificates.into();
    fields["alpn_protocols"] = json!(common.alpn);
    fields
}
