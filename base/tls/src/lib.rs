//! TLS for all planes: the only crate that names rustls and rcgen.
//!
//! - [`ca`]: certificate authorities of our own, and keys;
//! - [`material`]: an identity (chain and key) with the roots it trusts, and its rotation on live traffic;
//! - [`server`], [`client`]: handshakes over any stream, with rotation, SPIFFE peers, ALPN and SNI;
//! - [`peer`]: what a peer's certificate says;
//! - [`profile`]: versions, suites, groups, and certificates known by their hashes;
//! - [`signature`]: public keys and signatures of tokens.
//!
//! One provider (aws-lc), TLS 1.2 and 1.3. The crate opens no socket and reads no file.

mod ahead;
pub mod ca;
pub mod client;
pub mod material;
pub mod peer;
pub mod profile;
pub mod server;
pub mod signature;
mod stream;
mod verify;

pub use ca::{CertificateAuthority, CertificateRequest, Issued, LeafProfile, generate_key_pem};
pub use client::{Client, ServerCheck};
pub use material::{Material, Roots, Rotating};
pub use peer::PeerCertificate;
pub use profile::{Pins, Profile};
pub use server::{ClientAuth, Hello, Server};
pub use stream::TlsStream;

use std::sync::{Arc, LazyLock};

/// Why a TLS operation failed; the text is fit for a log line and a response detail.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// PEM that holds no certificate or key, or one that does not parse.
    #[error("{what} is not valid PEM: {reason}")]
    Pem {
        /// Which input it was.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// A certificate or key that TLS cannot use.
    #[error("certificate or key cannot be used: {0}")]
    Material(String),
    /// A certificate could not be made.
    #[error("certificate cannot be issued: {0}")]
    Issue(String),
    /// A server name that is neither a DNS name nor an address.
    #[error("`{0}` is not a server name")]
    ServerName(String),
    /// No identity has been published yet.
    #[error("no certificate yet")]
    NotReady,
    /// The handshake failed.
    #[error("TLS handshake failed")]
    Handshake(#[source] std::io::Error),
}

/// The one crypto provider. X25519 first: between sidecars a hybrid key share would cost a kilobyte in each handshake.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: LazyLock<Arc<rustls::crypto::CryptoProvider>> = LazyLock::new(|| {
        use rustls::crypto::aws_lc_rs::kx_group;
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups =
            vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1, kx_group::X25519MLKEM768];
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// Makes the provider the process's default, for libraries that look for one (kube's client). Call it first in `main`.
pub fn install_default_provider() {
    // An error means that a default stands already; every default in this program is this one.
    drop(provider().as_ref().clone().install_default());
}
