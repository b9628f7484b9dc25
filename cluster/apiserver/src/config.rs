//! What the server is given.

use std::{io, net::SocketAddr, sync::Arc};

use base_tls::Rotating;
use cluster_store::{Store, StoreError};
use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};

/// Opens connections to pods and kubelets, wherever their network is.
pub trait Dialer: Send + Sync + 'static {
    /// Connects to an address inside the cluster. The caller bounds the time.
    fn dial(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// Everything the server needs; nothing is read from elsewhere.
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// Bound sockets to serve on, each with TLS.
    pub listeners: Vec<TcpListener>,
    /// The server's certificate and key; its roots are the authority that client certificates must come from.
    pub identity: Rotating,
    /// The certificate (`system:masters` or `system:kubelet-api-admin`) shown to kubelets; its roots verify theirs.
    pub kubelet_client_identity: Rotating,
    /// The authority's certificate in PEM, which pods find in `kube-root-ca.crt`.
    pub ca_pem: String,
    /// The P-256 private key, PKCS#8 in PEM, that signs service-account tokens.
    pub service_account_key: String,
    /// Who issues those tokens, an URL.
    pub service_account_issuer: String,
    /// How pods and kubelets are reached.
    pub dialer: Arc<dyn Dialer>,
    /// Where pods reach this server: the endpoint of Service `default/kubernetes`.
    pub advertise: SocketAddr,
    /// What `/version` says, such as `v1.33.4+mesh`.
    pub version: String,
}

/// Why the server does not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service-account key cannot be used.
    #[error("service-account key cannot be used: {0}")]
    ServiceAccountKey(String),
    /// The store refused what every cluster has.
    #[error("bootstrap of {what}: {reason}")]
    Bootstrap {
        /// Which object.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A watch on the store ended.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("advertise", &self.advertise)
            .field("version", &self.version)
            .field("service_account_issuer", &self.service_account_issuer)
            .finish_non_exhaustive()
    }
}
