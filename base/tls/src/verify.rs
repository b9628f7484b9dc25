//! Verifiers over one material's roots that check SPIFFE identities instead of host names.

use crate::{
    client::ServerCheck,
    material::{Material, Roots},
    peer::PeerCertificate,
    provider,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Verifies servers against the roots, then by name, by identity, or not at all.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) roots: Option<Roots>,
    pub(crate) check: ServerCheck,
}

/// Verifies clients against the roots.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) material: Arc<Material>,
    pub(crate) mandatory: bool,
    /// A client certificate must carry a SPIFFE identity.
    pub(crate) spiffe: bool,
}

impl ServerVerifier {
    fn check_identity(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let mismatch = || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let peer = PeerCertificate::parse(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match &self.check {
            ServerCheck::Spiffe(allowed) => {
                let id = peer.spiffe_id().ok_or_else(mismatch)?;
                // An empty set accepts every identity of the trust bundle.
                (allowed.is_empty() || allowed.iter().any(|a| a == id.as_str()))
                    .then_some(())
                    .ok_or_else(mismatch)
            }
            ServerCheck::AnyName(allowed) => {
                let found = allowed.iter().any(|a| peer.uris.contains(a) || peer.dns_names.contains(a));
                found.then_some(()).ok_or_else(mismatch)
            }
            ServerCheck::Name | ServerCheck::ChainOnly | ServerCheck::Insecure => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if matches!(self.check, ServerCheck::Insecure) {
            return Ok(ServerCertVerified::assertion());
        }
        let roots = self
            .roots
            .as_ref()
            .ok_or_else(|| Error::General("no root certificates to verify the server with".into()))?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots.store, intermediates, now, algorithms)?;
        if matches!(self.check, ServerCheck::Name) {
            verify_server_name(&parsed, server_name)?;
        }
        self.check_identity(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientVerifier {
    fn inner(&self) -> Result<&dyn ClientCertVerifier, Error> {
        self.material
            .client_verifier
            .as_deref()
            .ok_or_else(|| Error::General("no root certificates to verify clients with".into()))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints are optional (RFC 8446, 4.2.4) and tell a stranger whom we trust.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner()?.verify_client_cert(end_entity, intermediates, now)?;
        if self.spiffe
            && PeerCertificate::parse(end_entity).ok().and_then(|p| p.spiffe_id().cloned()).is_none()
        {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
