//! Verifiers over one material's roots that check SPIFFE identities instead of host names.

use crate::{client::ServerCheck, material::Material, peer::PeerCertificate, profile::Pins, provider};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Verifies servers against the roots and their revocation lists, then by name, by identity, or not at all.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) material: Arc<Material>,
    pub(crate) check: ServerCheck,
    pub(crate) pins: Pins,
}

/// Verifies clients against the roots and their revocation lists.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) material: Arc<Material>,
    pub(crate) mandatory: bool,
    /// A client certificate must carry a SPIFFE identity.
    pub(crate) spiffe: bool,
    pub(crate) pins: Pins,
}

/// The half of both verifiers that proves possession of the key.
macro_rules! signatures {
    () => {
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
    };
}

fn mismatch() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

fn parsed(end_entity: &CertificateDer<'_>) -> Result<PeerCertificate, Error> {
    PeerCertificate::parse(end_entity).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

impl ServerVerifier {
    fn check_identity(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        match &self.check {
            ServerCheck::Spiffe(allowed) => {
                let peer = parsed(end_entity)?;
                let id = peer.spiffe_id().ok_or_else(mismatch)?;
                // An empty set accepts every identity of the trust bundle.
                (allowed.is_empty() || allowed.iter().any(|a| a == id.as_str()))
                    .then_some(())
                    .ok_or_else(mismatch)
            }
            ServerCheck::AnyName(allowed) => {
                let peer = parsed(end_entity)?;
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
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !matches!(self.check, ServerCheck::Insecure) {
            let chain = self
                .material
                .server_verifier
                .as_ref()
                .ok_or_else(|| Error::General("no root certificates to verify the server with".into()))?;
            match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                Ok(_) => {}
                // The name comes after the chain: where it is not asked for, all that was asked for held.
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) if !matches!(self.check, ServerCheck::Name) => {}
                Err(error) => return Err(error),
            }
            self.check_identity(end_entity)?;
        }
        self.pins.check(end_entity).then(ServerCertVerified::assertion).ok_or_else(mismatch)
    }

    signatures!();
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
        let chain = self
            .material
            .client_verifier
            .as_deref()
            .ok_or_else(|| Error::General("no root certificates to verify clients with".into()))?;
        let verified = chain.verify_client_cert(end_entity, intermediates, now)?;
        if self.spiffe && parsed(end_entity)?.spiffe_id().is_none() {
            return Err(mismatch());
        }
        self.pins.check(end_entity).then_some(verified).ok_or_else(mismatch)
    }

    signatures!();
}
