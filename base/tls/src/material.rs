//! An identity with the roots it trusts, and its rotation on live traffic.

use crate::{TlsError, peer::PeerCertificate, provider};
use arc_swap::ArcSwapOption;
use base_types::SpiffeId;
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::{RootCertStore, server::WebPkiClientVerifier, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};
use std::{collections::HashSet, fmt, sync::Arc, time::SystemTime};
use tokio::sync::watch;

/// Certificates that a peer's chain may end in.
#[derive(Clone)]
pub struct Roots {
    pub(crate) store: Arc<RootCertStore>,
    crls: Arc<[CertificateRevocationListDer<'static>]>,
    /// Issuer and serial of what the lists revoke.
    revoked: Arc<HashSet<(Vec<u8>, Vec<u8>)>>,
}

/// A chain with its key and the roots for peers; immutable, and replaced as a whole.
pub struct Material {
    /// The first is shown where only one can be.
    pub(crate) keys: Vec<Arc<CertifiedKey>>,
    pub(crate) roots: Option<Roots>,
    pub(crate) server_verifier: Option<Arc<WebPkiServerVerifier>>,
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
        Ok(Self { store: Arc::new(store), crls: Arc::default(), revoked: Arc::default() })
    }

    /// The same with revocation lists, PEM. Then every certificate of a peer's chain needs a list of its issuer that is not out of date
    /// and does not name it, as in Envoy.
    ///
    /// # Errors
    /// When there is no list, or one does not parse.
    pub fn with_crls(self, pem: &str) -> Result<Self, TlsError> {
        let what = "the revocation lists";
        let crls: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).collect();
        let crls = crls.map_err(|e| TlsError::Pem { what, reason: e.to_string() })?;
        if crls.is_empty() {
            return Err(TlsError::Pem { what, reason: "there is no list in it".into() });
        }
        let mut revoked = HashSet::new();
        for crl in &crls {
            let (_, list) = x509_parser::parse_x509_crl(crl)
                .map_err(|e| TlsError::Pem { what, reason: e.to_string() })?;
            let issuer = list.issuer().as_raw();
            for entry in list.iter_revoked_certificates() {
                revoked.insert((issuer.to_vec(), entry.raw_serial().to_vec()));
            }
        }
        Ok(Self { crls: crls.into(), revoked: Arc::new(revoked), ..self })
    }

    /// Whether a certificate that was good has been revoked since.
    #[must_use]
    pub fn revokes(&self, peer: &PeerCertificate) -> bool {
        !self.revoked.is_empty() && self.revoked.contains(&peer.issuer_and_serial())
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
        Ok(Self { keys: vec![Arc::new(certified)], leaf, ..Self::trust(roots)? })
    }

    /// The same with one more chain and key, of another type: a client gets the first that it can verify.
    ///
    /// # Errors
    /// As [`Material::from_pem`].
    pub fn and_pem(mut self, chain_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        self.keys.extend(Self::from_pem(chain_pem, key_pem, None)?.keys);
        Ok(self)
    }

    /// Roots alone: for clients that show no certificate.
    ///
    /// # Errors
    /// When the roots are empty.
    pub fn trust(roots: Option<Roots>) -> Result<Self, TlsError> {
        let unusable = |e: VerifierBuilderError| TlsError::Material(e.to_string());
        let (mut client_verifier, mut server_verifier) = (None, None);
        if let Some(roots) = &roots {
            let crls = || roots.crls.iter().cloned();
            let client = WebPkiClientVerifier::builder_with_provider(roots.store.clone(), provider());
            let client = client.with_crls(crls()).enforce_revocation_expiration();
            client_verifier = Some(client.build().map_err(unusable)?);
            let server = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), provider());
            let server = server.with_crls(crls()).enforce_revocation_expiration();
            server_verifier = Some(server.build().map_err(unusable)?);
        }
        Ok(Self { keys: Vec::new(), roots, server_verifier, client_verifier, leaf: None })
    }

    /// Whether a peer that was good has been revoked since.
    #[must_use]
    pub fn revokes(&self, peer: &PeerCertificate) -> bool {
        self.roots.as_ref().is_some_and(|roots| roots.revokes(peer))
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
