//! What is known of a request or connection when it is logged.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use sidecar_model::Metadata;

use crate::flags::Flags;

/// Headers by name.
pub trait HeaderLookup {
    /// The first value.
    fn find(&self, name: &HeaderName) -> Option<&HeaderValue>;
}

impl HeaderLookup for HeaderMap {
    fn find(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.get(name)
    }
}

/// The few headers that logs ask for, kept while the request is under way.
#[derive(Debug, Default, Clone)]
pub struct Captured(Vec<(HeaderName, HeaderValue)>);

impl Captured {
    /// Keeps `names` of `headers`.
    pub fn new(names: &[HeaderName], headers: &HeaderMap) -> Self {
        let kept = names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
        Self(kept.collect())
    }
}

impl HeaderLookup for Captured {
    fn find(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

/// A request or connection that has ended, or is about to be forwarded: formats read it.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// From its beginning to the request's last byte.
    pub request_duration: Option<Duration>,
    /// From its beginning to the response's first byte.
    pub response_duration: Option<Duration>,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`; empty for TCP.
    pub protocol: &'a str,
    /// Method; empty for TCP.
    pub method: &'a str,
    /// Path with query, as forwarded.
    pub path: &'a str,
    /// Host.
    pub authority: &'a str,
    /// Scheme.
    pub scheme: &'a str,
    /// Headers of the request.
    pub request: &'a dyn HeaderLookup,
    /// Headers of the response.
    pub response: &'a dyn HeaderLookup,
    /// Trailers of the response.
    pub trailers: &'a dyn HeaderLookup,
    /// Status; 0 when none was sent.
    pub code: u16,
    /// gRPC status.
    pub grpc_status: Option<u16>,
    /// Flags.
    pub flags: Flags,
    /// Details of the response code; empty: none.
    pub details: &'a str,
    /// Why the connection was terminated; empty: none.
    pub termination: &'a str,
    /// Why the upstream connection could not be made; empty: none.
    pub transport_failure: &'a str,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// The endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// Our address on the connection to the endpoint.
    pub upstream_local: Option<SocketAddr>,
    /// The cluster; empty: none.
    pub upstream_cluster: &'a str,
    /// Attempts made.
    pub attempts: u32,
    /// The address the client connected to.
    pub downstream_local: Option<SocketAddr>,
    /// The client's address, after `x-forwarded-for` when that is trusted.
    pub downstream_remote: Option<SocketAddr>,
    /// The client's own address.
    pub downstream_direct: Option<SocketAddr>,
    /// Server name of the client hello; empty: none.
    pub server_name: &'a str,
    /// Name of the route; empty: none.
    pub route: &'a str,
    /// Name of the virtual host; empty: none.
    pub virtual_host: &'a str,
    /// URI of the client's certificate; empty: none.
    pub peer_uri: &'a str,
    /// Subject of the client's certificate; empty: none.
    pub peer_subject: &'a str,
    /// URI of our certificate; empty: none.
    pub local_uri: &'a str,
    /// TLS version of the client's connection; empty: plain text.
    pub tls_version: &'a str,
    /// URI of the endpoint's certificate; empty: none.
    pub upstream_peer_uri: &'a str,
    /// What filters found out about the request.
    pub metadata: Option<&'a Metadata>,
    /// The route's metadata.
    pub route_metadata: Option<&'a Metadata>,
    /// The cluster's metadata.
    pub cluster_metadata: Option<&'a Metadata>,
    /// Trace; empty: none.
    pub trace_id: &'a str,
    /// Identifier of the client's connection.
    pub connection_id: u64,
    /// Name of this host.
    pub hostname: &'a str,
}

impl<'a> Entry<'a> {
    /// An entry about which only the headers are known.
    pub fn new(none: &'a HeaderMap) -> Self {
        Self {
            start: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            request_duration: None,
            response_duration: None,
            protocol: "",
            method: "",
            path: "",
            authority: "",
            scheme: "",
            request: none,
            response: none,
            trailers: none,
            code: 0,
            grpc_status: None,
            flags: Flags::NONE,
            details: "",
            termination: "",
            transport_failure: "",
            bytes_received: 0,
            bytes_sent: 0,
            upstream_host: None,
            upstream_local: None,
            upstream_cluster: "",
            attempts: 0,
            downstream_local: None,
            downstream_remote: None,
            downstream_direct: None,
            server_name: "",
            route: "",
            virtual_host: "",
            peer_uri: "",
            peer_subject: "",
            local_uri: "",
            tls_version: "",
            upstream_peer_uri: "",
            metadata: None,
            route_metadata: None,
            cluster_metadata: None,
            trace_id: "",
            connection_id: 0,
            hostname: "",
        }
    }
}
