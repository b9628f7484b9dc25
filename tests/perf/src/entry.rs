//! The ways into a proxy, each a port.

use crate::backend;

/// Where a load enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Plain HTTP/1.1 to the backend.
    Hop,
    /// Plain HTTP/1.1, then mutual TLS with HTTP/2 to the inbound proxy.
    MeshHttp2,
    /// Plain HTTP/1.1, then mutual TLS with HTTP/1.1 to the inbound proxy.
    MeshHttp1,
    /// HTTP/2 without TLS on both sides.
    Http2,
    /// Bytes to the backend.
    Bytes,
    /// Bytes, then mutual TLS to the inbound proxy.
    MeshBytes,
    /// As [`Entry::Hop`], with all that routes can do switched on.
    Features,
    /// The inbound proxy: mutual TLS, HTTP/2 or HTTP/1.1 by ALPN, to the backend.
    Inbound,
    /// The inbound proxy: mutual TLS, bytes to the backend.
    InboundBytes,
}

/// The ports of one pair of proxies: consecutive ones.
#[derive(Debug, Clone, Copy)]
pub struct Ports(u16);

impl Ports {
    /// From `first` on.
    pub fn from(first: u16) -> Self {
        Self(first)
    }

    /// Of one entry.
    pub fn of(self, entry: Entry) -> u16 {
        self.0 + entry as u16
    }

    /// For whatever else a proxy listens on.
    pub fn other(self, index: u16) -> u16 {
        self.0 + 20 + index
    }
}

impl Entry {
    /// All that the outbound proxy listens on.
    pub const OUTBOUND: [Self; 7] = [
        Self::Hop,
        Self::MeshHttp2,
        Self::MeshHttp1,
        Self::Http2,
        Self::Bytes,
        Self::MeshBytes,
        Self::Features,
    ];

    /// Name of its listener and cluster.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hop => "hop",
            Self::MeshHttp2 => "mesh_http2",
            Self::MeshHttp1 => "mesh_http1",
            Self::Http2 => "http2",
            Self::Bytes => "bytes",
            Self::MeshBytes => "mesh_bytes",
            Self::Features => "features",
            Self::Inbound => "inbound",
            Self::InboundBytes => "inbound_bytes",
        }
    }

    /// Where what enters here goes next.
    pub fn next(self, ports: Ports) -> u16 {
        match self {
            Self::MeshHttp2 | Self::MeshHttp1 => ports.of(Self::Inbound),
            Self::MeshBytes => ports.of(Self::InboundBytes),
            Self::Http2 => backend::HTTP2,
            Self::Bytes | Self::InboundBytes => backend::BYTES,
            Self::Hop | Self::Features | Self::Inbound => backend::HTTP1,
        }
    }

    /// The same way without any proxy.
    pub fn direct(self) -> u16 {
        match self {
            Self::Http2 => backend::HTTP2,
            Self::Bytes | Self::MeshBytes | Self::InboundBytes => backend::BYTES,
            _ => backend::HTTP1,
        }
    }
}
