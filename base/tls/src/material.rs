//! An identity with the roots it trusts, and its rotation on live traffic.

use crate::{TlsError, peer::PeerCertificate, provider};
use arc_swap::ArcSwapOption;
use base_types::SpiffeId;
use rustls::{RootCertStore, server::WebPkiClientVerifier, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fmt, sync::Arc, time::SystemTime};
use tokio::sync::watch;

/// Certificates that a peer's chain may end in.
#[derive(Clone)]
pub struct Roots {
    pub(crate) store: Arc<RootCertStore>,
}

/// A chain with its key and the roots for peers; immutable, and replaced as a whole.
pub struct Material {
    pub(crate) key: Option<Arc<CertifiedKey>>,
    pub(crate) roots: Option<Roots>,
    pub(crate) client_verifier: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>,
    leaf: Option<PeerCertificate>,
}

/// Where servers and clients look for the current [`Material`] at each handshake.
///
/// Cheap to clone. Replacing the material closes no connection.
#[derive(Clone)]
pub struct Rotating {
    current: Arc<ArcSwapOption<Material>>,
    changes: Arc<watch::Sender<u64>>,
}

// === impl Roots ===

impl Roots {
    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    /// When there is none, or one does not parse as a certificate.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for certificate in certificates(pem, "the root certificates")? {
            store.add(certificate).map_err(|e| TlsError::Material(e.to_string()))?;
        }
        Ok(Self { store: Arc::new(store) })
    }

    /// Number of root certificates.
    #[must_use]
    pub fn count(&self) -> usize {
        self.store.len()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("count", &self.count()).finish()
    }
}

// === impl Material ===

impl Material {
    /// A chain (leaf first) with its PKCS#8, SEC1 or PKCS#1 key, and the roots that peers are verified against, if any.
    ///
    /// # Errors
    /// When a PEM does not parse or the key does not fit the leaf.
    pub fn from_pem(chain_pem: &str, key_pem: &str, roots: Option<Roots>) -> Result<Self, TlsError> {
        let chain = certificates(chain_pem, "the certificate chain")?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|e| TlsError::Pem { what: "the private key", reason: e.to_string() })?;
        let leaf = chain.first().map(PeerCertificate::parse).transpose()?;
        let certified =
            CertifiedKey::from_der(chain, key, &provider()).map_err(|e| TlsError::Material(e.to_string()))?;
        Ok(Self { key: Some(Arc::new(certified)), leaf, ..Self::trust(roots)? })
    }

    /// Roots alone: for clients that show no certificate.
    ///
    /// # Errors
    /// When the roots are empty.
    pub fn trust(roots: Option<Roots>) -> Result<Self, TlsError> {
        let client_verifier = roots
            .as_ref()
            .map(|roots| {
                let builder = WebPkiClientVerifier::builder_with_provider(roots.store.clone(), provider());
                builder.build().map_err(|e| TlsError::Material(e.to_string()))
            })
            .transpose()?;
        Ok(Self { key: None, roots, client_verifier, leaf: None })
    }

    /// What the leaf certificate says, when there is one.
    #[must_use]
    pub fn leaf(&self) -> Option<&PeerCertificate> {
        self.leaf.as_ref()
    }

    /// The leaf's SPIFFE identity.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.leaf.as_ref().and_then(|leaf| leaf.spiffe_id())
    }

    /// When the leaf expires.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.leaf.as_ref().map(|leaf| leaf.not_after)
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("leaf", &self.leaf)
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

// === impl Rotating ===

impl Rotating {
    /// Nothing published yet: handshakes fail with [`TlsError::NotReady`] until [`Rotating::publish`].
    #[must_use]
    pub fn empty() -> Self {
        Self { current: Arc::new(ArcSwapOption::empty()), changes: Arc::new(watch::Sender::new(0)) }
    }

    /// Starts with `material`.
    #[must_use]
    pub fn new(material: Material) -> Self {
        let rotating = Self::empty();
        rotating.publish(material);
        rotating
    }

    /// Every handshake from now on uses `material`.
    pub fn publish(&self, material: Material) {
        self.current.store(Some(Arc::new(material)));
        self.changes.send_modify(|count| *count += 1);
    }

    /// The material in force.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Material>> {
        self.current.load_full()
    }

    /// Counts publications; a receiver wakes at each.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl fmt::Debug for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rotating").field(&self.current()).finish()
    }
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|e| TlsError::Pem { what, reason: e.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::Pem { what, reason: "there is no certificate in it".into() });
    }
    Ok(found)
}
