//! `envoy.config.listener.v3.FilterChain` and its match.

use super::{
    ConnectionLimit, FilterChain, FilterChainMatch, NetworkFilter, SourceType, Terminal, TransportProtocol,
};
use crate::address::proto::cidr;
use crate::convert::{
    At, Converted, boxed, each, enumeration, not_empty, number, optional_duration, port, refuse, required,
    timeout, unpack,
};
use crate::hcm::proto::http_connection_manager;
use crate::invalid::Invalid;
use crate::rbac::proto::network_rbac;
use crate::tcp::proto::tcp_proxy;
use crate::tls::proto::downstream;
use policies_xds::connection_limit::ConnectionLimit as ConnectionLimitPb;
use policies_xds::hcm::HttpConnectionManager;
use policies_xds::listener as pb;
use policies_xds::listener::filter::ConfigType;
use policies_xds::listener::filter_chain_match::ConnectionSourceType;
use policies_xds::protobuf::Any;
use policies_xds::tcp_proxy::TcpProxy;
use policies_xds::{network_rbac as rbac_pb, type_url};
use prost::Name;
use std::sync::Arc;

enum Part {
    Before(NetworkFilter),
    Last(Terminal),
}

pub(crate) fn filter_chain(message: &pb::FilterChain) -> Converted<FilterChain> {
    let matches =
        message.filter_chain_match.as_ref().map(chain_match).transpose().at("filter_chain_match")?;
    let (network_filters, terminal) = filters(&message.filters)?;
    let socket = message.transport_socket.as_ref();
    Ok(FilterChain {
        name: message.name.as_str().into(),
        matches: matches.unwrap_or_default(),
        tls: socket.map(downstream).transpose().at("transport_socket")?.flatten().map(Arc::new),
        network_filters,
        terminal,
        transport_connect_timeout: timeout(
            "transport_socket_connect_timeout",
            &message.transport_socket_connect_timeout,
            None,
        )?,
    })
}

fn chain_match(message: &pb::FilterChainMatch) -> Converted<FilterChainMatch> {
    refuse("address_suffix", !message.address_suffix.is_empty())?;
    refuse("suffix_len", message.suffix_len.is_some())?;
    Ok(FilterChainMatch {
        destination_port: number(&message.destination_port)
            .map(|value| port("destination_port", value))
            .transpose()?,
        prefix_ranges: each("prefix_ranges", &message.prefix_ranges, cidr)?,
        server_names: each("server_names", &message.server_names, |name| server_name(name))?,
        transport_protocol: match message.transport_protocol.as_str() {
            "" => TransportProtocol::Any,
            "raw_buffer" => TransportProtocol::RawBuffer,
            "tls" => TransportProtocol::Tls,
            other => {
                return Err(Invalid::unsupported(
                    "transport_protocol",
                    format!("`{}`", other.escape_debug()),
                ));
            }
        },
        application_protocols: boxed(&message.application_protocols),
        direct_source_prefix_ranges: each(
            "direct_source_prefix_ranges",
            &message.direct_source_prefix_ranges,
            cidr,
        )?,
        source_type: match enumeration("source_type", message.source_type)? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_prefix_ranges: each("source_prefix_ranges", &message.source_prefix_ranges, cidr)?,
        source_ports: each("source_ports", &message.source_ports, |value| port("", *value))?,
    })
}

/// Exact or `*.suffix`; `*` alone stands for all and needs no match.
fn server_name(name: &str) -> Converted<Box<str>> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if rest.is_empty() || rest.contains('*') {
        return Err(Invalid::new("", format!("`{}` is neither a name nor `*.suffix`", name.escape_debug())));
    }
    Ok(name.to_ascii_lowercase().into())
}

fn filters(messages: &[pb::Filter]) -> Converted<(Vec<NetworkFilter>, Terminal)> {
    let parts = each("filters", messages, filter)?;
    let count = parts.len();
    let mut before = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        match part {
            Part::Before(filter) => before.push(filter),
            Part::Last(terminal) if index + 1 == count => return Ok((before, terminal)),
            Part::Last(_) => {
                return Err(Invalid::new("", "must be the last filter")).at_item("filters", index);
            }
        }
    }
    Err(Invalid::new("filters", "must end in a connection manager or TCP proxy"))
}

fn filter(message: &pb::Filter) -> Converted<Part> {
    match required("typed_config", &message.config_type)? {
        ConfigType::TypedConfig(config) => typed_filter(&message.name, config).at("typed_config"),
        ConfigType::ConfigDiscovery(_) => {
            Err(Invalid::unsupported("config_discovery", format!("filter `{}` by discovery", message.name)))
        }
    }
}

fn typed_filter(name: &str, config: &Any) -> Converted<Part> {
    let url = config.type_url.as_str();
    if url == HttpConnectionManager::type_url() {
        let message: HttpConnectionManager = unpack("", config)?;
        return Ok(Part::Last(Terminal::Http(Arc::new(http_connection_manager(&message)?))));
    }
    if url == TcpProxy::type_url() {
        let message: TcpProxy = unpack("", config)?;
        return Ok(Part::Last(Terminal::Tcp(Arc::new(tcp_proxy(&message)?))));
    }
    if url == rbac_pb::Rbac::type_url() {
        let message: rbac_pb::Rbac = unpack("", config)?;
        return Ok(Part::Before(NetworkFilter::Rbac(Arc::new(network_rbac(&message)?))));
    }
    if url == ConnectionLimitPb::type_url() {
        return Ok(match connection_limit(&unpack("", config)?)? {
            Some(limit) => Part::Before(NetworkFilter::ConnectionLimit(Arc::new(limit))),
            None => Part::Before(NetworkFilter::Stats),
        });
    }
    native(url)
        .map(Part::Before)
        .ok_or_else(|| Invalid::unsupported("", format!("filter `{name}` of type `{url}`")))
}

/// `envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit`; none when it is switched off.
fn connection_limit(message: &ConnectionLimitPb) -> Converted<Option<ConnectionLimit>> {
    let limit = ConnectionLimit {
        stat_prefix: not_empty("stat_prefix", &message.stat_prefix)?.into(),
        max_connections: match required("max_connections", &message.max_connections)?.value {
            0 => return Err(Invalid::new("max_connections", "must be at least 1")),
            most => most,
        },
        delay: optional_duration("delay", &message.delay)?.unwrap_or_default(),
    };
    let switch = message.runtime_enabled.as_ref().and_then(|runtime| runtime.default_value.as_ref());
    Ok(switch.is_none_or(|on| on.value).then_some(limit))
}

/// Istio's filters for what the sidecar does anyway.
pub(crate) fn native(url: &str) -> Option<NetworkFilter> {
    match url {
        type_url::ISTIO_METADATA_EXCHANGE => Some(NetworkFilter::MetadataExchange),
        type_url::ISTIO_STATS => Some(NetworkFilter::Stats),
        _ => None,
    }
}
