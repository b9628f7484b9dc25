//! What a peer's certificate says: identities, names, validity.

use crate::TlsError;
use base_types::SpiffeId;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};
use x509_parser::{extensions::GeneralName, prelude::*};

/// The facts of a verified leaf certificate that policy, logs and headers use.
#[derive(Debug, Clone)]
pub struct PeerCertificate {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// Every URI name, as written.
    pub uris: Vec<String>,
    /// Every DNS name, as written.
    pub dns_names: Vec<String>,
    /// The subject's common name; Kubernetes' user name.
    pub common_name: Option<String>,
    /// The subject's organizations; Kubernetes' groups.
    pub organizations: Vec<String>,
    /// The subject as RFC 2253 text.
    pub subject: String,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    issuer: Vec<u8>,
    raw_serial: Vec<u8>,
    spiffe_id: Option<SpiffeId>,
}

impl PeerCertificate {
    /// Reads a DER certificate; verifies nothing.
    ///
    /// # Errors
    /// When the bytes are not an X.509 certificate.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, x509) = X509Certificate::from_der(der)
            .map_err(|e| TlsError::Material(format!("not an X.509 certificate: {e}")))?;
        let mut uris = Vec::new();
        let mut dns_names = Vec::new();
        if let Ok(Some(names)) = x509.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => dns_names.push((*dns).to_owned()),
                    _ => {}
                }
            }
        }
        // Exactly one URI name makes a SPIFFE identity (X.509-SVID, section 2).
        let spiffe_id = if let [only] = uris.as_slice() { only.parse().ok() } else { None };
        let texts = |attributes: Vec<&AttributeTypeAndValue<'_>>| -> Vec<String> {
            attributes.iter().filter_map(|a| a.as_str().ok().map(str::to_owned)).collect()
        };
        Ok(Self {
            common_name: texts(x509.subject().iter_common_name().collect()).into_iter().next(),
            organizations: texts(x509.subject().iter_organization().collect()),
            subject: x509.subject().to_string(),
            issuer: x509.issuer().as_raw().to_vec(),
            raw_serial: x509.raw_serial().to_vec(),
            serial: format!("{:x}", x509.serial),
            not_before: time(x509.validity().not_before.timestamp()),
            not_after: time(x509.validity().not_after.timestamp()),
            uris,
            dns_names,
            spiffe_id,
            der: der.to_vec(),
        })
    }

    /// The SPIFFE identity, when the certificate has exactly one URI name and it is one.
    #[must_use]
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.spiffe_id.as_ref()
    }

    /// The certificate as PEM, with what URLs cannot have escaped, as `x-forwarded-client-cert` writes it.
    #[must_use]
    pub fn url_encoded_pem(&self) -> String {
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(&self.der).as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        let mut encoded = String::with_capacity(pem.len() + pem.len() / 8);
        for char in pem.chars() {
            match char {
                '\n' => encoded.push_str("%0A"),
                ' ' => encoded.push_str("%20"),
                '+' => encoded.push_str("%2B"),
                '/' => encoded.push_str("%2F"),
                '=' => encoded.push_str("%3D"),
                other => encoded.push(other),
            }
        }
        encoded
    }

    /// What revocation lists know certificates by.
    pub(crate) fn issuer_and_serial(&self) -> (Vec<u8>, Vec<u8>) {
        (self.issuer.clone(), self.raw_serial.clone())
    }

    /// SHA-256 of the certificate in lower-case hexadecimal, as `x-forwarded-client-cert` writes it.
    #[must_use]
    pub fn sha256_hex(&self) -> String {
        Sha256::digest(&self.der).iter().map(|b| format!("{b:02x}")).collect()
    }
}

fn time(unix_seconds: i64) -> SystemTime {
    let magnitude = Duration::from_secs(unix_seconds.unsigned_abs());
    let shifted = if unix_seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(magnitude)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(magnitude)
    };
    shifted.unwrap_or(SystemTime::UNIX_EPOCH)
}
