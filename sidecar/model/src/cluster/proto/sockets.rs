//! TLS, plain text and PROXY protocol towards endpoints.

use super::options::Options;
use crate::cluster::{ProxyProtocolVersion, TransportSocketMatch};
use crate::convert::{At, Converted, each, enumeration, not_empty, required, unpack};
use crate::invalid::Invalid;
use crate::metadata::proto::value;
use crate::tls::UpstreamTls;
use crate::tls::proto::{typed_config, upstream};
use policies_xds::cluster::Cluster;
use policies_xds::core::{TransportSocket, proxy_protocol_config::Version};
use policies_xds::protobuf::Struct;
use policies_xds::upstream_proxy_protocol::ProxyProtocolUpstreamTransport;
use prost::Name;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) tls: Option<Arc<UpstreamTls>>,
    pub(super) matches: Vec<TransportSocketMatch>,
    pub(super) proxy_protocol: Option<ProxyProtocolVersion>,
}

type Socket = (Option<Arc<UpstreamTls>>, Option<ProxyProtocolVersion>);

pub(super) fn sockets(message: &Cluster, options: &Options) -> Converted<Sockets> {
    let default = message.transport_socket.as_ref().map(|it| socket(it, options)).transpose();
    let default = default.at("transport_socket")?;
    let mut versions: Vec<_> = default.iter().map(|(_, version)| *version).collect();
    let matches = each("transport_socket_matches", &message.transport_socket_matches, |one| {
        let inner = required("transport_socket", &one.transport_socket)?;
        let (tls, version) = socket(inner, options).at("transport_socket")?;
        versions.push(version);
        let labels = one.r#match.as_ref().map_or_else(Vec::new, labels);
        Ok(TransportSocketMatch { name: not_empty("name", &one.name)?.into(), labels, tls })
    })?;
    versions.dedup();
    if versions.len() > 1 {
        return Err(Invalid::unsupported(
            "transport_socket_matches",
            "PROXY protocol for some endpoints only",
        ));
    }
    Ok(Sockets { tls: default.and_then(|(tls, _)| tls), matches, proxy_protocol: versions.pop().flatten() })
}

fn labels(message: &Struct) -> Vec<(Box<str>, serde_json::Value)> {
    let mut labels: Vec<(Box<str>, _)> =
        message.fields.iter().map(|(key, field)| (key.as_str().into(), value(field))).collect();
    labels.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    labels
}

fn socket(message: &TransportSocket, options: &Options) -> Converted<Socket> {
    let config = typed_config(message)?;
    if config.type_url != ProxyProtocolUpstreamTransport::type_url() {
        return Ok((tls(message, options)?, None));
    }
    let wrapper: ProxyProtocolUpstreamTransport = unpack("typed_config", config)?;
    let inner = required("typed_config.transport_socket", &wrapper.transport_socket)?;
    let settings = wrapper.config.unwrap_or_default();
    let version = match enumeration("typed_config.config.version", settings.version)? {
        Version::V1 => ProxyProtocolVersion::V1,
        Version::V2 => ProxyProtocolVersion::V2,
    };
    Ok((tls(inner, options).at("typed_config.transport_socket")?, Some(version)))
}

fn tls(message: &TransportSocket, options: &Options) -> Converted<Option<Arc<UpstreamTls>>> {
    Ok(upstream(message)?.map(|tls| {
        Arc::new(UpstreamTls {
            auto_sni: tls.auto_sni || options.auto_sni,
            auto_san_validation: tls.auto_san_validation || options.auto_san_validation,
            ..tls
        })
    }))
}
