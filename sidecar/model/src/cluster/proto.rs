//! `envoy.config.cluster.v3.Cluster`.
//!
//! Passed over, since they change no destination: statistics, load reports, preconnecting, DNS resolver choices, jitter.

#![expect(deprecated, reason = "control planes still send the older fields")]

mod balancing;
mod extension;
mod limits;
mod options;
mod sockets;
mod subsets;

use super::{Cluster, ClusterKind, DnsFamily, DnsOptions, TcpKeepalive};
use crate::address::proto::source_address;
use crate::convert::{
    At, Converted, aggregated, buffer_bytes, decode, each, enumeration, not_empty, number, port,
    positive_duration, refuse, required,
};
use crate::endpoint::Endpoints;
use crate::endpoint::proto::{Names, endpoints};
use crate::filter_chain::proto::native;
use crate::health_check::HealthCheck;
use crate::health_check::proto::health_check;
use crate::invalid::Invalid;
use crate::metadata::proto::metadata;
use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig};
use policies_xds::cluster::{self as pb};
use policies_xds::core;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default.
const DNS_REFRESH: Duration = Duration::from_secs(5);

impl Cluster {
    /// Reads an encoded `Cluster`.
    pub fn decode(message: &[u8]) -> Result<Self, Invalid> {
        cluster(&decode(message)?)
    }
}

fn cluster(message: &pb::Cluster) -> Converted<Cluster> {
    refuse_what_is_missing(message)?;
    let name = not_empty("name", &message.name)?;
    let kind = kind(message)?;
    let options = options::options(message)?;
    let sockets = sockets::sockets(message, &options)?;
    let mut locality_lb = balancing::locality(message)?;
    let lb = match &message.load_balancing_policy {
        Some(policies) => extension::policy(policies, &mut locality_lb).at("load_balancing_policy")?,
        None => balancing::policy(message, &kind)?,
    };
    Ok(Cluster {
        name: name.into(),
        alt_stat_name: message.alt_stat_name.as_str().into(),
        load_assignment: load_assignment(message, &kind)?.map(Arc::new),
        lb,
        locality_lb,
        connect_timeout: positive_duration("connect_timeout", &message.connect_timeout, CONNECT_TIMEOUT)?,
        circuit_breakers: limits::circuit_breakers(message.circuit_breakers.as_ref())
            .at("circuit_breakers")?,
        outlier: message
            .outlier_detection
            .as_ref()
            .map(limits::outlier)
            .transpose()
            .at("outlier_detection")?,
        http: options.http,
        tls: sockets.tls,
        transport_socket_matches: sockets.matches,
        proxy_protocol: sockets.proxy_protocol,
        tcp_keepalive: keepalive(message),
        source_address: bind(message.upstream_bind_config.as_ref()).at("upstream_bind_config")?,
        per_connection_buffer_bytes_max: buffer_bytes(&message.per_connection_buffer_limit_bytes),
        tcp_idle_timeout: options.tcp_idle_timeout,
        metadata: metadata(&message.metadata),
        subsets: message
            .lb_subset_config
            .as_ref()
            .map_or(Ok(None), subsets::subsets)
            .at("lb_subset_config")?,
        health_checks: health_checks(message)?,
        ignore_health_on_host_removal: message.ignore_health_on_host_removal,
        kind,
    })
}

fn refuse_what_is_missing(message: &pb::Cluster) -> Converted<()> {
    refuse("transport_socket_matcher", message.transport_socket_matcher.is_some())?;
    refuse("upstream_config", message.upstream_config.is_some())?;
    refuse("connection_pool_per_downstream_connection", message.connection_pool_per_downstream_connection)?;
    for (index, filter) in message.filters.iter().enumerate() {
        let url = filter.typed_config.as_ref().map_or("", |config| config.type_url.as_str());
        if native(url).is_none() {
            let what = format!("filter `{}` of type `{url}`", filter.name);
            return Err(Invalid::unsupported("typed_config", what)).at_item("filters", index);
        }
    }
    Ok(())
}

fn health_checks(message: &pb::Cluster) -> Converted<Vec<HealthCheck>> {
    if message.health_checks.len() > 1 {
        // Envoy's words.
        return Err(Invalid::new("health_checks", "multiple health checks not supported"));
    }
    each("health_checks", &message.health_checks, health_check)
}

fn kind(message: &pb::Cluster) -> Converted<ClusterKind> {
    let discovery = match &message.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(value)) => enumeration("type", *value)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(Invalid::unsupported("cluster_type", format!("cluster type `{}`", custom.name)));
        }
    };
    Ok(match discovery {
        DiscoveryType::Static => ClusterKind::Static,
        DiscoveryType::StrictDns => ClusterKind::StrictDns(dns(message)?),
        DiscoveryType::LogicalDns => ClusterKind::LogicalDns(dns(message)?),
        DiscoveryType::Eds => {
            let config = required("eds_cluster_config", &message.eds_cluster_config)?;
            aggregated("eds_cluster_config.eds_config", &config.eds_config)?;
            let service = Some(config.service_name.as_str()).filter(|name| !name.is_empty());
            ClusterKind::Eds { service_name: service.unwrap_or(&message.name).into() }
        }
        DiscoveryType::OriginalDst => original_dst(message)?,
    })
}

fn original_dst(message: &pb::Cluster) -> Converted<ClusterKind> {
    let Some(LbConfig::OriginalDstLbConfig(config)) = &message.lb_config else {
        return Ok(ClusterKind::OriginalDst { header: None, port_override: None });
    };
    refuse("original_dst_lb_config.metadata_key", config.metadata_key.is_some())?;
    let header = match (config.use_http_header, config.http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(http::HeaderName::from_static("x-envoy-original-dst-host")),
        // The authority of a request stands in `host` here, whatever the protocol.
        (true, ":authority") => Some(http::header::HOST),
        (true, name) => Some(crate::convert::header_name("original_dst_lb_config.http_header_name", name)?),
    };
    let port_override = number(&config.upstream_port_override)
        .map(|value| port("original_dst_lb_config.upstream_port_override", value))
        .transpose()?;
    Ok(ClusterKind::OriginalDst { header, port_override })
}

fn dns(message: &pb::Cluster) -> Converted<DnsOptions> {
    Ok(DnsOptions {
        refresh: positive_duration("dns_refresh_rate", &message.dns_refresh_rate, DNS_REFRESH)?,
        respect_ttl: message.respect_dns_ttl,
        family: match enumeration("dns_lookup_family", message.dns_lookup_family)? {
            DnsLookupFamily::Auto => DnsFamily::Auto,
            DnsLookupFamily::V4Only => DnsFamily::V4Only,
            DnsLookupFamily::V6Only => DnsFamily::V6Only,
            DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
            DnsLookupFamily::All => DnsFamily::All,
        },
    })
}

fn load_assignment(message: &pb::Cluster, kind: &ClusterKind) -> Converted<Option<Endpoints>> {
    let names = match (kind, &message.load_assignment) {
        (ClusterKind::Eds { .. } | ClusterKind::OriginalDst { .. }, Some(_)) => {
            return Err(Invalid::new("load_assignment", "must not be set in a cluster of this type"));
        }
        (ClusterKind::StrictDns(_) | ClusterKind::LogicalDns(_), _) => Names::Allowed,
        _ => Names::Refused,
    };
    let Some(message) = &message.load_assignment else { return Ok(None) };
    let converted = endpoints(message, names).at("load_assignment")?;
    if matches!(kind, ClusterKind::LogicalDns(_)) && converted.len() != 1 {
        return Err(Invalid::new(
            "load_assignment",
            "must have exactly one endpoint in a cluster of this type",
        ));
    }
    Ok(Some(converted))
}

fn keepalive(message: &pb::Cluster) -> Option<TcpKeepalive> {
    let settings = message.upstream_connection_options.as_ref()?.tcp_keepalive.as_ref()?;
    let seconds = |value| number(value).filter(|value| *value > 0).map(|it| Duration::from_secs(it.into()));
    Some(TcpKeepalive {
        probes: number(&settings.keepalive_probes).filter(|value| *value > 0),
        time: seconds(&settings.keepalive_time),
        interval: seconds(&settings.keepalive_interval),
    })
}

fn bind(message: Option<&core::BindConfig>) -> Converted<Option<IpAddr>> {
    let Some(message) = message else { return Ok(None) };
    refuse("local_address_selector", message.local_address_selector.is_some())?;
    message.source_address.as_ref().map(source_address).transpose().at("source_address")
}

#[cfg(test)]
mod tests;
