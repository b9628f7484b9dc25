//! The client's side of a handshake.

use crate::{
    Pins, Profile, TlsError, TlsStream,
    ahead::ReadAhead,
    material::{Material, Rotating},
    verify::ServerVerifier,
};
use arc_swap::ArcSwapOption;
use rustls::{ClientConfig, client::Resumption, sign::SingleCertAndKey};
use rustls_pki_types::ServerName;
use std::{io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// What a server's certificate must prove, beyond a chain to the roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCheck {
    /// The name that was dialled.
    Name,
    /// One of these SPIFFE identities (whole, `spiffe://…`); an empty list accepts every identity under the roots.
    Spiffe(Vec<String>),
    /// One of these URI or DNS names.
    AnyName(Vec<String>),
    /// Nothing more than the chain.
    ChainOnly,
    /// Nothing at all, not even the chain (`insecureSkipVerify`).
    Insecure,
}

/// A TLS client whose certificate and roots follow a [`Rotating`] material. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    identity: Rotating,
    check: ServerCheck,
    alpn: Arc<[Vec<u8>]>,
    profile: Profile,
    pins: Pins,
    built: Arc<ArcSwapOption<(Arc<Material>, TlsConnector)>>,
}

// === impl Client ===

impl Client {
    /// `identity` gives the roots and, when it has one, the certificate to show. `alpn` is offered in order.
    #[must_use]
    pub fn new(identity: &Rotating, check: ServerCheck, alpn: &[&[u8]]) -> Self {
        let alpn = alpn.iter().map(|p| p.to_vec()).collect();
        let (profile, pins) = (Profile::default(), Pins::default());
        Self { identity: identity.clone(), check, alpn, profile, pins, built: Arc::default() }
    }

    /// Speaks only what the profile has, and only to servers that the pins know.
    #[must_use]
    pub fn with(self, profile: Profile, pins: Pins) -> Self {
        Self { profile, pins, built: Arc::default(), ..self }
    }

    /// The connector over the current material; a new material starts with no sessions to resume.
    fn connector(&self) -> Result<TlsConnector, TlsError> {
        let material = self.identity.current().ok_or(TlsError::NotReady)?;
        if let Some(built) = self.built.load().as_deref().filter(|built| Arc::ptr_eq(&built.0, &material)) {
            return Ok(built.1.clone());
        }
        let verifier = Arc::new(ServerVerifier {
            material: material.clone(),
            check: self.check.clone(),
            pins: self.pins.clone(),
        });
        let builder = ClientConfig::builder_with_provider(self.profile.provider.clone())
            .with_protocol_versions(&self.profile.versions)
            .map_err(|e| TlsError::Material(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match material.keys.first().map(|key| key.as_ref()) {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.to_vec();
        // A small cache: each client talks to one cluster of servers, and rustls preallocates what it is given.
        config.resumption = Resumption::in_memory_sessions(16);
        let connector = TlsConnector::from(Arc::new(config));
        self.built.store(Some(Arc::new((material, connector.clone()))));
        Ok(connector)
    }

    /// Handshakes over `io`. `server_name` is sent as SNI when it is a DNS name. The caller bounds the time.
    ///
    /// # Errors
    /// [`TlsError::NotReady`] before a material is published, [`TlsError::ServerName`], or [`TlsError::Handshake`].
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        server_name: &str,
    ) -> Result<TlsStream<IO>, TlsError> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::ServerName(server_name.to_owned()))?;
        let stream =
            self.connector()?.connect(name, ReadAhead::new(io)).await.map_err(TlsError::Handshake)?;
        TlsStream::new(stream.into()).map_err(|e| TlsError::Handshake(io::Error::other(e)))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("check", &self.check).finish_non_exhaustive()
    }
}
