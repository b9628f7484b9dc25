//! A listener, as `envoy.config.listener.v3.Listener`.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{address, cluster, message, route, seconds, url};
use crate::access_log::{AccessLog, LogSink};
use crate::filter_chain::{
    FilterChain, FilterChainMatch, NetworkFilter, SourceType, Terminal, TransportProtocol,
};
use crate::hcm::{Codec, HttpConnectionManager, RouteSource};
use crate::http_filter::{HttpFilterKind, NativeFilter};
use crate::listener::{Direction, Listener};
use crate::tcp::{TcpCluster, TcpProxy};

const HCM: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// The listener.
pub fn listener(listener: &Listener) -> Value {
    let chains: Vec<Value> = listener.filter_chains.iter().map(|one| chain(one)).collect();
    let more: Vec<Value> =
        listener.additional_addresses.iter().map(|one| json!({ "address": address(one) })).collect();
    let fields = json!({
        "name": &*listener.name,
        "address": address(&listener.address),
        "additional_addresses": more,
        "bind_to_port": listener.bind_to_port,
        "use_original_dst": listener.use_original_dst,
        "traffic_direction": match listener.direction {
            Direction::Unspecified => "",
            Direction::Inbound => "INBOUND",
            Direction::Outbound => "OUTBOUND",
        },
        "listener_filters": listener_filters(listener),
        "listener_filters_timeout": listener.listener_filters_timeout.map(seconds),
        "continue_on_listener_filters_timeout": listener.continue_on_listener_filters_timeout,
        "filter_chains": chains,
        "default_filter_chain": listener.default_filter_chain.as_deref().map(chain),
        "access_log": logs(&listener.access_log),
    });
    message(&url("envoy.config.listener.v3.Listener"), fields)
}

fn listener_filters(listener: &Listener) -> Vec<Value> {
    let of = &listener.listener_filters;
    let all = [
        (of.original_dst, "original_dst", "OriginalDst"),
        (of.proxy_protocol.is_some(), "proxy_protocol", "ProxyProtocol"),
        (of.tls_inspector, "tls_inspector", "TlsInspector"),
        (of.http_inspector, "http_inspector", "HttpInspector"),
    ];
    let one = |(_, name, kind): &(bool, &str, &str)| {
        let config = url(&format!("envoy.extensions.filters.listener.{name}.v3.{kind}"));
        json!({ "name": format!("envoy.filters.listener.{name}"), "typed_config": { "@type": config } })
    };
    all.iter().filter(|(on, ..)| *on).map(one).collect()
}

fn chain(chain: &FilterChain) -> Value {
    let mut filters: Vec<Value> = chain
        .network_filters
        .iter()
        .map(|filter| match filter {
            NetworkFilter::Rbac(_) => json!({ "name": "envoy.filters.network.rbac", "typed_config": {
                "@type": url("envoy.extensions.filters.network.rbac.v3.RBAC")
            } }),
            NetworkFilter::ConnectionLimit(limit) => json!({
                "name": "envoy.filters.network.connection_limit", "typed_config": {
                    "@type": url("envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"),
                    "stat_prefix": &*limit.stat_prefix,
                    "max_connections": limit.max_connections,
                    "delay": seconds(limit.delay),
                }
            }),
            NetworkFilter::MetadataExchange => json!({ "name": "istio.metadata_exchange" }),
            NetworkFilter::Stats => json!({ "name": "istio.stats" }),
        })
        .collect();
    filters.push(match &chain.terminal {
        Terminal::Http(hcm) => json!({
            "name": "envoy.filters.network.http_connection_manager", "typed_config": manager(hcm)
        }),
        Terminal::Tcp(tcp) => {
            json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": tcp_proxy(tcp) })
        }
    });
    let tls = chain.tls.as_deref().map(|tls| {
        let fields = json!({
            "common_tls_context": cluster::common_tls(&tls.common),
            "require_client_certificate": tls.require_client_certificate,
        });
        let kind = url("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext");
        json!({ "name": "envoy.transport_sockets.tls", "typed_config": message(&kind, fields) })
    });
    json!({
        "name": &*chain.name,
        "filter_chain_match": matches(&chain.matches),
        "transport_socket": tls,
        "transport_socket_connect_timeout": chain.transport_connect_timeout.map(seconds),
        "filters": filters,
    })
}

fn matches(of: &FilterChainMatch) -> Value {
    if *of == FilterChainMatch::default() {
        return Value::Null;
    }
    let ranges = |all: &[IpNet]| -> Vec<Value> {
        let one =
            |net: &IpNet| json!({ "address_prefix": net.addr().to_string(), "prefix_len": net.prefix_len() });
        all.iter().map(one).collect()
    };
    json!({
        "destination_port": of.destination_port,
        "prefix_ranges": ranges(&of.prefix_ranges),
        "server_names": of.server_names,
        "transport_protocol": match of.transport_protocol {
            TransportProtocol::Any => "",
            TransportProtocol::RawBuffer => "raw_buffer",
            TransportProtocol::Tls => "tls",
        },
        "application_protocols": of.application_protocols,
        "direct_source_prefix_ranges": ranges(&of.direct_source_prefix_ranges),
        "source_type": match of.source_type {
            SourceType::Any => "",
            SourceType::SameIpOrLoopback => "SAME_IP_OR_LOOPBACK",
            SourceType::External => "EXTERNAL",
        },
        "source_prefix_ranges": ranges(&of.source_prefix_ranges),
        "source_ports": of.source_ports,
    })
}

fn manager(hcm: &HttpConnectionManager) -> Value {
    let filters: Vec<Value> = hcm
        .http_filters
        .iter()
        .map(|filter| {
            let config = http_filter(&filter.kind).map(|name| json!({ "@type": url(name) }));
            json!({ "name": &*filter.name, "disabled": filter.disabled, "typed_config": config })
        })
        .collect();
    let upgrades: Vec<Value> =
        hcm.upgrades.iter().map(|one| json!({ "upgrade_type": one.protocol })).collect();
    let percent = |fraction: crate::Fraction| json!({ "value": f64::from(fraction.per_million) / 10_000.0 });
    let mut fields = json!({
        "stat_prefix": &*hcm.stat_prefix,
        "codec_type": match hcm.codec { Codec::Auto => "", Codec::Http1 => "HTTP1", Codec::Http2 => "HTTP2" },
        "http_filters": filters,
        "access_log": logs(&hcm.access_log),
        "upgrade_configs": upgrades,
        "server_name": &*hcm.server_name,
        "tracing": hcm.tracing.as_ref().map(|tracing| json!({
            "client_sampling": percent(tracing.client_sampling),
            "random_sampling": percent(tracing.random_sampling),
            "overall_sampling": percent(tracing.overall_sampling),
        })),
        "stream_idle_timeout": seconds(hcm.stream_idle_timeout.unwrap_or_default()),
        "use_remote_address": hcm.use_remote_address,
        "normalize_path": hcm.normalize_path,
        "merge_slashes": hcm.merge_slashes,
    });
    match &hcm.route {
        RouteSource::Rds(name) => {
            fields["rds"] = json!({
                "config_source": { "ads": {}, "resource_api_version": "V3" }, "route_config_name": &**name,
            });
        }
        RouteSource::Inline(config) => fields["route_config"] = route::fields(config),
    }
    message(&url(HCM), fields)
}

/// Message name of a filter's configuration; none for Istio's own, which other tools do not know either.
#[allow(unreachable_patterns, reason = "further filters are shown by their name")]
fn http_filter(kind: &HttpFilterKind) -> Option<&'static str> {
    Some(match kind {
        HttpFilterKind::Router(_) => "envoy.extensions.filters.http.router.v3.Router",
        HttpFilterKind::Fault(_) => "envoy.extensions.filters.http.fault.v3.HTTPFault",
        HttpFilterKind::Cors => "envoy.extensions.filters.http.cors.v3.Cors",
        HttpFilterKind::Rbac(_) => "envoy.extensions.filters.http.rbac.v3.RBAC",
        HttpFilterKind::JwtAuthn(_) => "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        HttpFilterKind::HeaderMutation(_) => {
            "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
        }
        HttpFilterKind::GrpcWeb => "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
        HttpFilterKind::Native(NativeFilter::GrpcStats) => {
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"
        }
        _ => return None,
    })
}

fn tcp_proxy(tcp: &TcpProxy) -> Value {
    let mut fields = json!({
        "stat_prefix": &*tcp.stat_prefix,
        "idle_timeout": tcp.idle_timeout.map(seconds),
        "max_downstream_connection_duration": tcp.max_connection_duration.map(seconds),
        "access_log": logs(&tcp.access_log),
    });
    match &tcp.cluster {
        TcpCluster::Single(name) => fields["cluster"] = (&**name).into(),
        TcpCluster::Weighted { clusters, .. } => {
            let all: Vec<Value> =
                clusters.iter().map(|one| json!({ "name": &*one.name, "weight": one.weight })).collect();
            fields["weighted_clusters"] = json!({ "clusters": all });
        }
    }
    message(&url(TCP_PROXY), fields)
}

#[allow(unreachable_patterns, reason = "further sinks are shown by the logger's name")]
fn logs(all: &[AccessLog]) -> Vec<Value> {
    let one = |log: &AccessLog| match &log.sink {
        LogSink::File(path) => json!({ "name": "envoy.access_loggers.file", "typed_config": {
            "@type": url("envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": &**path,
        } }),
        LogSink::Stdout => json!({ "name": "envoy.access_loggers.file", "typed_config": {
            "@type": url("envoy.extensions.access_loggers.file.v3.FileAccessLog"), "path": "/dev/stdout",
        } }),
        LogSink::Stderr => json!({ "name": "envoy.access_loggers.stderr", "typed_config": {
            "@type": url("envoy.extensions.access_loggers.stream.v3.StderrAccessLog"),
        } }),
        _ => json!({ "name": "envoy.access_loggers" }),
    };
    all.iter().map(one).collect()
}
