//! What a sidecar under test is to do: one listener and one upstream each, everything else at its default.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The configuration of the process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Its listeners, each on a free port of 127.0.0.1.
    pub listeners: Vec<ListenerSpec>,
    /// Worker threads; 0 is 1.
    pub workers: usize,
}

/// One listener, all of whose requests go to one upstream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerSpec {
    /// Its name, by which the address is found.
    pub name: String,
    /// Where requests go; none: nothing listens there.
    pub upstream: Option<SocketAddr>,
    /// HTTP/2 to the upstream.
    pub upstream_http2: bool,
    /// Bytes instead of HTTP.
    pub tcp: bool,
    /// The edge of the mesh: clients are not trusted (`use_remote_address`).
    pub edge: bool,
    /// An inbound listener of a workload.
    pub inbound: bool,
    /// `xff_num_trusted_hops`.
    pub trusted_hops: u32,
    /// `forward_client_cert_details`: `sanitize` (default), `forward_only` or `always_forward_only`.
    pub client_cert: String,
    /// Mutual TLS with the identity of the mesh.
    pub tls: bool,
    /// Milliseconds for a request head; 0: the default.
    pub head_timeout_ms: u64,
    /// Milliseconds a stream may be without progress; 0: the default.
    pub stream_idle_timeout_ms: u64,
    /// Milliseconds a connection may be without requests; 0: the default.
    pub idle_timeout_ms: u64,
    /// Milliseconds for a whole request; 0: none.
    pub request_timeout_ms: u64,
    /// Give requests ids.
    pub request_ids: bool,
}

impl ListenerSpec {
    /// A listener that forwards to `upstream`.
    pub fn to(name: &str, upstream: SocketAddr) -> Self {
        Self { name: name.to_owned(), upstream: Some(upstream), ..Self::default() }
    }
}
