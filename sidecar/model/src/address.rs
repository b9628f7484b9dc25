//! Where something listens or can be reached.

pub(crate) mod proto;

use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;

/// A place to connect to or listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A name to be resolved, and a port.
    Name(Arc<str>, u16),
    /// A Unix socket's path.
    Pipe(Arc<str>),
}

// === impl Address ===

impl Address {
    /// The IP address and port, when no name has to be resolved first.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Name(..) | Self::Pipe(_) => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Pipe(path) => write!(f, "unix://{path}"),
        }
    }
}
