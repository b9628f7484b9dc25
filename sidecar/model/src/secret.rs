//! Secrets: certificates with their keys, and roots.

pub(crate) mod proto;

use serde::{Serialize, Serializer};
use std::sync::Arc;

/// A certificate chain and its key. Shown to people without the key.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// Chain, PEM, leaf first.
    pub chain_pem: Box<str>,
    /// Key, PEM.
    pub key_pem: Box<str>,
    /// OCSP answer to staple; empty: none.
    pub ocsp_staple: Box<[u8]>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretKind {
    /// A certificate with its key.
    Certificate(Arc<TlsCertificate>),
    /// Trusted roots, with more conditions on the peer.
    Validation(Arc<crate::tls::Validation>),
}

/// A named secret.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SecretKind,
}

/// Begins the name of a certificate with its key in files: `file-cert:<chain>~<key>`.
pub const FILE_CERTIFICATE_PREFIX: &str = "file-cert:";
/// Begins the name of roots in a file: `file-root:<path>`.
pub const FILE_ROOTS_PREFIX: &str = "file-root:";

/// The roots that the machine itself trusts, by Istio's name.
pub const SYSTEM_ROOTS: &str = "file-root:system";

/// Whether a secret of this name is read from files of the pod instead of asked for.
pub fn is_in_files(name: &str) -> bool {
    name.starts_with(FILE_CERTIFICATE_PREFIX) || name.starts_with(FILE_ROOTS_PREFIX)
}

// === impl TlsCertificate ===

impl std::fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsCertificate").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

impl Serialize for TlsCertificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("TlsCertificate", 2)?;
        fields.serialize_field("chainPem", &*self.chain_pem)?;
        fields.serialize_field("keyPem", "[redacted]")?;
        fields.end()
    }
}
