//! TLS at listeners and towards upstreams. Keys and roots are named; [`crate::secret`] holds what names stand for.

pub(crate) mod proto;

use crate::matcher::StringMatch;
use serde::Serialize;
use std::sync::Arc;

/// Name of the workload's own certificate and key, answered inside the sidecar.
pub const SECRET_DEFAULT: &str = "default";
/// Name of the mesh's roots, answered inside the sidecar.
pub const SECRET_ROOT_CA: &str = "ROOTCA";

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TlsVersion {
    /// 1.2
    #[serde(rename = "TLSv1.2")]
    V1_2,
    /// 1.3
    #[serde(rename = "TLSv1.3")]
    V1_3,
}

/// Where a certificate and its key come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CertificateSource {
    /// The secret of this name.
    Secret(Arc<str>),
    /// This one.
    Inline(Arc<crate::secret::TlsCertificate>),
}

/// Where trusted roots come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RootSource {
    /// The secret of this name.
    Secret(Arc<str>),
    /// These PEM certificates.
    Inline(Arc<str>),
}

/// Which subject alternative name is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SanKind {
    /// Any.
    Any,
    /// A URI, such as a SPIFFE ID.
    Uri,
    /// A DNS name.
    Dns,
    /// An address.
    Ip,
    /// A mail address.
    Email,
}

/// A condition on one name of the peer's certificate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SanMatch {
    /// Which names.
    pub kind: SanKind,
    /// What.
    pub matcher: StringMatch,
}

/// How the peer's certificate is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// Roots; `None`: the peer's certificate is not verified.
    pub roots: Option<RootSource>,
    /// One name must match one of these; empty: any name.
    pub subject_alt_names: Vec<SanMatch>,
    /// SHA-256 of the public key must be one of these, base64; empty: any.
    pub spki_hashes: Vec<Box<str>>,
    /// SHA-256 of the certificate must be one of these, hexadecimal without colons, lower case; empty: any.
    pub certificate_hashes: Vec<Box<str>>,
    /// Certificates that do not verify are accepted, and not taken as authenticated.
    pub accept_untrusted: bool,
    /// Revocation lists, PEM; empty: none.
    pub crl: Box<str>,
}

/// What both sides of TLS share.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsParameters {
    /// Certificates presented; more than one at a listener: one a key type.
    pub certificates: Vec<CertificateSource>,
    /// How the peer is judged.
    pub validation: Validation,
    /// ALPN in order of preference.
    pub alpn: Vec<Box<str>>,
    /// Lowest version; `None`: 1.2.
    pub version_min: Option<TlsVersion>,
    /// Highest version; `None`: 1.3.
    pub version_max: Option<TlsVersion>,
    /// TLS 1.2 suites by OpenSSL name; empty: the library's own choice.
    pub cipher_suites: Vec<Box<str>>,
    /// Key exchange groups by name; empty: the library's own choice.
    pub curves: Vec<Box<str>>,
}

/// TLS ended at a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DownstreamTls {
    /// Shared settings.
    pub common: TlsParameters,
    /// The client must present a certificate.
    pub require_client_certificate: bool,
    /// The client's server name must be one the certificate covers.
    pub require_sni: bool,
}

/// TLS begun towards an upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamTls {
    /// Shared settings.
    pub common: TlsParameters,
    /// The server name; empty: none is sent.
    pub sni: Box<str>,
    /// The request's host is sent as server name.
    pub auto_sni: bool,
    /// The server's certificate must carry the server name.
    pub auto_san_validation: bool,
}

// === impl TlsParameters ===

impl TlsParameters {
    /// Names of the secrets this refers to, those answered inside the sidecar included.
    pub fn secret_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let certificates = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Secret(name) => Some(name),
            CertificateSource::Inline(_) => None,
        });
        let roots = match &self.validation.roots {
            Some(RootSource::Secret(name)) => Some(name),
            _ => None,
        };
        certificates.chain(roots)
    }
}
