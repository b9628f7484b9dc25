//! A listener: where connections are accepted and which filter chain takes each.

pub(crate) mod proto;

use crate::access_log::AccessLog;
use crate::address::Address;
use crate::filter_chain::FilterChain;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// From the workload's point of view, where a listener's connections come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Not said: a gateway.
    #[default]
    Unspecified,
    /// From peers to the workload.
    Inbound,
    /// From the workload to peers.
    Outbound,
}

/// Which PROXY protocol headers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// A connection without a header is served as it is; otherwise it is closed.
    pub optional: bool,
    /// Version 1, a line of text.
    pub version1: bool,
    /// Version 2, binary.
    pub version2: bool,
}

/// What is read from a connection before a filter chain is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerFilters {
    /// The address before redirection replaces the local address.
    pub original_dst: bool,
    /// A PROXY protocol header is read first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// A TLS client hello is looked at: server name and ALPN.
    pub tls_inspector: bool,
    /// The first bytes of plain text are looked at: HTTP/1 or HTTP/2.
    pub http_inspector: bool,
}

/// Where and how connections are accepted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name, unique among listeners.
    pub name: Arc<str>,
    /// Its address.
    pub address: Address,
    /// More addresses that behave like the first.
    pub additional_addresses: Vec<Address>,
    /// Whether a socket is opened. A listener without one receives connections by their original destination.
    pub bind_to_port: bool,
    /// Connections are handed to the listener whose address is their original destination, if there is one.
    pub use_original_dst: bool,
    /// Where its connections come from.
    pub direction: Direction,
    /// What is read before a chain is chosen.
    pub listener_filters: ListenerFilters,
    /// How long the listener filters may take; `None`: forever.
    pub listener_filters_timeout: Option<Duration>,
    /// On that timeout the connection goes on to a chain instead of being closed.
    pub continue_on_listener_filters_timeout: bool,
    /// The chains, the most specific match wins.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// The chain when none matches; without one the connection is closed.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Logs of connections that found no chain.
    pub access_log: Vec<AccessLog>,
    /// Bytes buffered for one connection.
    pub per_connection_buffer_bytes_max: usize,
}
