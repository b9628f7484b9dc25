//! Filter chains: which connections they take, and what is done with them.

pub(crate) mod proto;

use crate::hcm::HttpConnectionManager;
use crate::rbac::NetworkRbac;
use crate::tcp::TcpProxy;
use crate::tls::DownstreamTls;
use ipnet::IpNet;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What the detected transport must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TransportProtocol {
    /// Anything.
    #[default]
    Any,
    /// Plain text.
    RawBuffer,
    /// TLS.
    Tls,
}

/// Where the peer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// On this host.
    SameIpOrLoopback,
    /// On another host.
    External,
}

/// Which connections a chain takes; empty lists and `None` match everything. Evaluated in Envoy's order:
/// destination port, destination address, server name, transport, application protocols, source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address.
    pub prefix_ranges: Vec<IpNet>,
    /// Server names of the client hello, lower case, exact or `*.suffix`.
    pub server_names: Vec<Box<str>>,
    /// Detected transport.
    pub transport_protocol: TransportProtocol,
    /// ALPN of the client hello, or `http/1.1` and `h2c` as the HTTP inspector found.
    pub application_protocols: Vec<Box<str>>,
    /// The peer's own address, before any PROXY header.
    pub direct_source_prefix_ranges: Vec<IpNet>,
    /// Where the peer is.
    pub source_type: SourceType,
    /// The peer's address.
    pub source_prefix_ranges: Vec<IpNet>,
    /// The peer's port.
    pub source_ports: Vec<u16>,
}

/// A network filter that looks at a connection before its terminal filter does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkFilter {
    /// Who may connect.
    Rbac(Arc<NetworkRbac>),
    /// How many may be connected.
    ConnectionLimit(Arc<ConnectionLimit>),
    /// Istio's exchange of workload metadata; carried in the certificate and by DNS here, so nothing to do.
    MetadataExchange,
    /// Istio's TCP metrics, which every connection gets anyway.
    Stats,
}

/// A bound of a chain's open connections.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionLimit {
    /// Prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// Connections that may be open; never 0.
    pub max_connections: u64,
    /// How long one more is kept before it is closed.
    pub delay: Duration,
}

/// What ends a chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Terminal {
    /// HTTP/1, HTTP/2 and what rides on them.
    Http(Arc<HttpConnectionManager>),
    /// Bytes.
    Tcp(Arc<TcpProxy>),
}

/// What is done with the connections of one match.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterChain {
    /// Its name, for people.
    pub name: Arc<str>,
    /// Which connections it takes.
    pub matches: FilterChainMatch,
    /// TLS is ended here; `None`: bytes pass as they are.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Filters before the terminal one, in order.
    pub network_filters: Vec<NetworkFilter>,
    /// What ends it.
    pub terminal: Terminal,
    /// How long the TLS handshake may take; `None`: forever.
    pub transport_connect_timeout: Option<Duration>,
}
