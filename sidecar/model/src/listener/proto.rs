//! `envoy.config.listener.v3.Listener`.
//!
//! Socket options, balancing of accepted connections, draining types and backlog sizes are passed over: the sidecar has its own.

#![expect(deprecated, reason = "control planes still send the older fields")]

use super::{Direction, Listener, ListenerFilters, ProxyProtocol};
use crate::access_log::proto::access_logs;
use crate::address::proto::resolved_address;
use crate::convert::{
    At, Converted, buffer_bytes, decode, each, enumeration, flag, not_empty, refuse, required, timeout,
    unpack,
};
use crate::filter_chain::FilterChain;
use crate::filter_chain::proto::filter_chain;
use crate::invalid::Invalid;
use policies_xds::core::TrafficDirection;
use policies_xds::core::proxy_protocol_config::Version;
use policies_xds::http_inspector::HttpInspector;
use policies_xds::listener as pb;
use policies_xds::listener::listener_filter::ConfigType;
use policies_xds::listener::listener_filter_chain_match_predicate::Rule;
use policies_xds::original_dst::OriginalDst;
use policies_xds::proxy_protocol as proxy_protocol_pb;
use policies_xds::tls_inspector::TlsInspector;
use prost::Name;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

impl Listener {
    /// Reads an encoded `Listener`.
    pub fn decode(message: &[u8]) -> Result<Self, Invalid> {
        listener(&decode(message)?)
    }
}

fn listener(message: &pb::Listener) -> Converted<Listener> {
    refuse("api_listener", message.api_listener.is_some())?;
    refuse("udp_listener_config", message.udp_listener_config.is_some())?;
    refuse("listener_specifier", message.listener_specifier.is_some())?;
    refuse("filter_chain_matcher", message.filter_chain_matcher.is_some())?;
    refuse("fcds_config", message.fcds_config.is_some())?;
    let deprecated_bind = message.deprecated_v1.as_ref().is_none_or(|old| flag(&old.bind_to_port, true));
    let mut listener_filters = ListenerFilters::default();
    for (index, filter) in message.listener_filters.iter().enumerate() {
        listener_filter(&mut listener_filters, filter).at_item("listener_filters", index)?;
    }
    let all = message.filter_chains.iter().chain(&message.default_filter_chain);
    if all.into_iter().any(|chain| flag(&chain.use_proxy_proto, false)) {
        let any = ProxyProtocol { optional: false, version1: true, version2: true };
        listener_filters.proxy_protocol.get_or_insert(any);
    }
    let default_filter_chain = message.default_filter_chain.as_ref().map(filter_chain).transpose();
    Ok(Listener {
        name: not_empty("name", &message.name)?.into(),
        address: resolved_address(required("address", &message.address)?).at("address")?,
        additional_addresses: each("additional_addresses", &message.additional_addresses, |additional| {
            resolved_address(required("address", &additional.address)?).at("address")
        })?,
        bind_to_port: flag(&message.bind_to_port, true) && deprecated_bind,
        use_original_dst: flag(&message.use_original_dst, false),
        direction: match enumeration("traffic_direction", message.traffic_direction)? {
            TrafficDirection::Unspecified => Direction::Unspecified,
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
        },
        listener_filters,
        listener_filters_timeout: timeout(
            "listener_filters_timeout",
            &message.listener_filters_timeout,
            Some(LISTENER_FILTERS_TIMEOUT),
        )?,
        continue_on_listener_filters_timeout: message.continue_on_listener_filters_timeout,
        filter_chains: filter_chains(&message.filter_chains)?,
        default_filter_chain: default_filter_chain.at("default_filter_chain")?.map(Arc::new),
        access_log: access_logs("access_log", &message.access_log)?,
        per_connection_buffer_bytes_max: buffer_bytes(&message.per_connection_buffer_limit_bytes),
    })
}

/// Two chains with the same match would leave the choice to chance.
fn filter_chains(messages: &[pb::FilterChain]) -> Converted<Vec<Arc<FilterChain>>> {
    let chains = each("filter_chains", messages, filter_chain)?;
    let mut seen = HashSet::new();
    for (index, chain) in chains.iter().enumerate() {
        if !seen.insert(format!("{:?}", chain.matches)) {
            return Err(Invalid::new("filter_chain_match", "is the same as that of a chain before"))
                .at_item("filter_chains", index);
        }
    }
    Ok(chains.into_iter().map(Arc::new).collect())
}

/// Where a filter is disabled for some ports only it counts as present: whether it must look at a connection follows
/// from the chains that are left for its port.
fn listener_filter(filters: &mut ListenerFilters, message: &pb::ListenerFilter) -> Converted<()> {
    let disabled = message.filter_disabled.as_ref().and_then(|predicate| predicate.rule.as_ref());
    if matches!(disabled, Some(Rule::AnyMatch(true))) {
        return Ok(());
    }
    let ConfigType::TypedConfig(config) = required("typed_config", &message.config_type)? else {
        return Err(Invalid::unsupported("config_discovery", "this field"));
    };
    let url = config.type_url.as_str();
    if url == OriginalDst::type_url() {
        filters.original_dst = true;
    } else if url == TlsInspector::type_url() {
        filters.tls_inspector = true;
    } else if url == HttpInspector::type_url() {
        filters.http_inspector = true;
    } else if url == proxy_protocol_pb::ProxyProtocol::type_url() {
        filters.proxy_protocol = Some(proxy_protocol(&unpack("typed_config", config)?).at("typed_config")?);
    } else {
        let what = format!("filter `{}` of type `{url}`", message.name);
        return Err(Invalid::unsupported("typed_config", what));
    }
    Ok(())
}

fn proxy_protocol(message: &proxy_protocol_pb::ProxyProtocol) -> Converted<ProxyProtocol> {
    refuse("rules", !message.rules.is_empty())?;
    refuse("pass_through_tlvs", message.pass_through_tlvs.is_some())?;
    let mut read = ProxyProtocol {
        optional: message.allow_requests_without_proxy_protocol,
        version1: true,
        version2: true,
    };
    for version in &message.disallowed_versions {
        match enumeration("disallowed_versions", *version)? {
            Version::V1 => read.version1 = false,
            Version::V2 => read.version2 = false,
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
