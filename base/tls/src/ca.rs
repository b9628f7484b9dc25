//! Certificate authorities of our own: the cluster's, and the mesh's.

use crate::TlsError;
use base_types::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{net::IpAddr, time::Duration, time::SystemTime};
use zeroize::Zeroizing;

/// Clocks of peers may be behind ours by this much.
const BACKDATE: Duration = Duration::from_secs(120);

/// A certificate authority with its key in memory.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    not_after: SystemTime,
}

/// What a leaf certificate says and may do.
#[derive(Debug, Clone, Default)]
pub struct LeafProfile {
    /// Subject common name; a user name to Kubernetes.
    pub common_name: Option<String>,
    /// Subject organization; a group to Kubernetes.
    pub organization: Option<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// The one URI name of a workload.
    pub spiffe_id: Option<SpiffeId>,
    /// May serve.
    pub server: bool,
    /// May act as a client.
    pub client: bool,
    /// Lifetime from now; never beyond the authority's own.
    pub lifetime: Duration,
}

/// A certificate with its key, both PEM.
#[derive(Debug)]
pub struct Issued {
    /// Leaf first; the authority's own certificate is not in it.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: Zeroizing<String>,
}

/// A key of a workload with the request that it signed.
pub struct CertificateRequest {
    /// PKCS#10, PEM.
    pub csr_pem: String,
    /// PKCS#8; it stays with the workload.
    pub key_pem: Zeroizing<String>,
}

// === impl CertificateAuthority ===

impl CertificateAuthority {
    /// A new self-signed authority with a P-256 key.
    ///
    /// # Errors
    /// When the key cannot be made or the name cannot be written.
    pub fn generate(common_name: &str, organization: &str, lifetime: Duration) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(Some(common_name), Some(organization));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + lifetime).into();
        let certificate_pem = params.self_signed(&key).map_err(issue)?.pem();
        let key_pem = key.serialize_pem();
        Self::from_pem(&certificate_pem, &key_pem)
    }

    /// An authority that was stored.
    ///
    /// # Errors
    /// When a PEM does not parse, or the certificate is not an authority's, or the key is not its key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|e| TlsError::Pem { what: "the authority's key", reason: e.to_string() })?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|e| TlsError::Pem { what: "the authority's certificate", reason: e.to_string() })?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|e| TlsError::Material(e.to_string()))?;
        if !parsed.is_ca() {
            return Err(TlsError::Material("the certificate is not an authority's".into()));
        }
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(TlsError::Material("the key does not belong to the authority's certificate".into()));
        }
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(issue)?;
        Ok(Self {
            issuer,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: Zeroizing::new(key_pem.to_owned()),
            not_after,
        })
    }

    /// The authority's certificate: a root for peers.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's key, PKCS#8 PEM: to be stored where only its owner reads.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// When the authority expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// A new key with its certificate.
    ///
    /// # Errors
    /// When a name cannot be written in a certificate.
    pub fn issue(&self, profile: &LeafProfile) -> Result<Issued, TlsError> {
        let key = KeyPair::generate().map_err(issue)?;
        let chain_pem = self.sign(profile, &key)?;
        Ok(Issued { chain_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
    }

    /// A certificate over the public key of a request whose signature verifies. Everything else that the request asks for is
    /// ignored: the profile alone says what is certified.
    ///
    /// # Errors
    /// When the request is not a PKCS#10 PEM, its signature is wrong, or its key is of another kind than P-256, P-384, Ed25519 or RSA.
    pub fn sign_request(&self, csr_pem: &str, profile: &LeafProfile) -> Result<String, TlsError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| TlsError::Pem { what: "the signing request", reason: e.to_string() })?;
        self.sign(profile, &request.public_key)
    }

    fn sign(&self, profile: &LeafProfile, key: &impl PublicKeyData) -> Result<String, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(profile.common_name.as_deref(), profile.organization.as_deref());
        for dns in &profile.dns_names {
            params.subject_alt_names.push(SanType::DnsName(dns.as_str().try_into().map_err(issue)?));
        }
        params.subject_alt_names.extend(profile.addresses.iter().copied().map(SanType::IpAddress));
        if let Some(id) = &profile.spiffe_id {
            params.subject_alt_names.push(SanType::URI(id.as_str().try_into().map_err(issue)?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        if profile.server {
            params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if profile.client {
            params.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + profile.lifetime).min(self.not_after).into();
        Ok(params.signed_by(key, &self.issuer).map_err(issue)?.pem())
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

// === impl CertificateRequest ===

impl CertificateRequest {
    /// A new P-256 key and a request over it that names `id`.
    ///
    /// # Errors
    /// When the key cannot be made or the identity cannot be written.
    pub fn generate(id: &SpiffeId) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names.push(SanType::URI(id.as_str().try_into().map_err(issue)?));
        let csr_pem = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(issue)?;
        Ok(Self { csr_pem, key_pem: Zeroizing::new(key.serialize_pem()) })
    }
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRequest").finish_non_exhaustive()
    }
}

/// A new P-256 key as `(private PKCS#8 PEM, public SPKI PEM)`, for signing tokens with ES256.
///
/// # Errors
/// When the key cannot be made.
pub fn generate_key_pem() -> Result<(Zeroizing<String>, String), TlsError> {
    let key = KeyPair::generate().map_err(issue)?;
    Ok((Zeroizing::new(key.serialize_pem()), key.public_key_pem()))
}

fn name(common_name: Option<&str>, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    if let Some(common_name) = common_name {
        name.push(DnType::CommonName, common_name);
    }
    name
}

fn issue(error: rcgen::Error) -> TlsError {
    TlsError::Issue(error.to_string())
}
