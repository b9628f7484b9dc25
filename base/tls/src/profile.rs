//! What a listener or an upstream asks of TLS beyond identities: versions, suites, groups, and certificates it knows by their hashes.

use crate::{TlsError, provider};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Versions, suites and groups.
#[derive(Clone, Debug)]
pub struct Profile {
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// Hashes of which a peer's certificate must have one; none: any certificate. A hash of either kind suffices, as in Envoy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    spki: Vec<[u8; 32]>,
    certificate: Vec<[u8; 32]>,
}

/// Suites of TLS 1.2 by OpenSSL's names. Others that Envoy knows (CBC, static RSA) are weaker than anything we speak.
const SUITES: [(&str, SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-CHACHA20-POLY1305", cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

impl Default for Profile {
    fn default() -> Self {
        Self { versions: vec![&version::TLS13, &version::TLS12], provider: provider() }
    }
}

impl Profile {
    /// Bounds of the version, each 1.2 or 1.3 (`tls13_only`, `tls12_only`), suites of TLS 1.2 by OpenSSL's names and groups by IANA's or
    /// OpenSSL's; empty: all we speak. Names that we do not speak are passed over.
    ///
    /// # Errors
    /// When nothing is left to speak.
    pub fn new(
        tls13_only: bool,
        tls12_only: bool,
        suites: &[impl AsRef<str>],
        groups: &[impl AsRef<str>],
    ) -> Result<Self, TlsError> {
        let mut provider = provider().as_ref().clone();
        if !suites.is_empty() {
            // Envoy writes choices of equal rank as `[a|b]`.
            let names: Vec<&str> =
                suites.iter().flat_map(|suite| suite.as_ref().trim_matches(['[', ']']).split('|')).collect();
            let known = |name: &&str| SUITES.iter().find(|(known, _)| known == name).map(|(_, suite)| *suite);
            let chosen: Vec<SupportedCipherSuite> = names.iter().filter_map(known).collect();
            provider.cipher_suites.retain(|suite| suite.tls13().is_some());
            provider.cipher_suites.extend(chosen);
        }
        if !groups.is_empty() {
            let group = |name: &str| match name {
                "X25519" => Some(kx_group::X25519),
                "P-256" | "prime256v1" => Some(kx_group::SECP256R1),
                "P-384" | "secp384r1" => Some(kx_group::SECP384R1),
                "X25519MLKEM768" => Some(kx_group::X25519MLKEM768),
                _ => None,
            };
            provider.kx_groups = groups.iter().filter_map(|name| group(name.as_ref())).collect();
        }
        let tls12 = !tls13_only && provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
        let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
        if !tls12_only {
            versions.push(&version::TLS13);
        }
        if tls12 {
            versions.push(&version::TLS12);
        }
        if versions.is_empty() || provider.kx_groups.is_empty() {
            return Err(TlsError::Material("no version, suite or group is left to speak".into()));
        }
        Ok(Self { versions, provider: Arc::new(provider) })
    }
}

impl Pins {
    /// `spki`: SHA-256 of public keys, base64; `certificate`: SHA-256 of certificates, hexadecimal without colons.
    ///
    /// # Errors
    /// When one is no SHA-256: it must not be taken for "any".
    pub fn new(spki: &[impl AsRef<str>], certificate: &[impl AsRef<str>]) -> Result<Self, TlsError> {
        let bad = |text: &str| TlsError::Material(format!("`{text}` is no SHA-256"));
        let of_base64 = |text: &str| {
            let bytes = STANDARD.decode(text).map_err(|_| bad(text))?;
            <[u8; 32]>::try_from(bytes).map_err(|_| bad(text))
        };
        let of_hex = |text: &str| {
            let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
            bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(|| bad(text))
        };
        Ok(Self {
            spki: spki.iter().map(|text| of_base64(text.as_ref())).collect::<Result<_, _>>()?,
            certificate: certificate.iter().map(|text| of_hex(text.as_ref())).collect::<Result<_, _>>()?,
        })
    }

    /// Whether a certificate is one of those that are known, or any is.
    pub(crate) fn check(&self, der: &CertificateDer<'_>) -> bool {
        if self.spki.is_empty() && self.certificate.is_empty() {
            return true;
        }
        let hash = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
        if self.certificate.contains(&hash(der)) {
            return true;
        }
        let key = X509Certificate::from_der(der).map(|(_, x509)| hash(x509.public_key().raw));
        key.is_ok_and(|key| self.spki.contains(&key))
    }
}
