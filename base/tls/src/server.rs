//! The server's side of a handshake.

use crate::{
    Pins, Profile, TlsError, TlsStream,
    ahead::ReadAhead,
    material::{Material, Rotating},
    peer::PeerCertificate,
    verify::ClientVerifier,
};
use arc_swap::ArcSwapOption;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::{ServerConfig, SignatureAlgorithm, sign::CertifiedKey};
use std::{io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// None is asked for.
    None,
    /// One is asked for, verified when shown.
    Optional,
    /// One is required.
    Required,
    /// One with a SPIFFE identity is required.
    Spiffe,
}

/// A TLS server whose identity and roots follow a [`Rotating`] material. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Server {
    identity: Rotating,
    client_auth: ClientAuth,
    alpn: Arc<[Vec<u8>]>,
    profile: Profile,
    pins: Pins,
    built: Arc<ArcSwapOption<Built>>,
}

/// The configuration over one material. A new material gets a new one, so that no session can be resumed that an old root verified.
#[derive(Debug)]
struct Built {
    material: Arc<Material>,
    config: Arc<ServerConfig>,
    /// The same without ALPN: what a client gets that offers only protocols we do not speak (as Envoy does, instead of an alert).
    config_without_alpn: Arc<ServerConfig>,
}

/// A client's first message, read and not yet answered.
pub struct Hello<IO> {
    start: StartHandshake<ReadAhead<IO>>,
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// The protocols that the client offered, in its order.
    pub alpn: Vec<Vec<u8>>,
}

/// Shows a client the first certificate whose signatures it can verify; ECDSA ones come first, being the cheaper.
#[derive(Debug)]
struct ByType(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByType {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = self.0.as_slice() {
            return Some(only.clone());
        }
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let rank = |key: &&Arc<CertifiedKey>| u8::from(key.key.algorithm() == SignatureAlgorithm::RSA);
        self.0.iter().filter(fits).min_by_key(rank).or_else(|| self.0.first()).cloned()
    }
}

// === impl Server ===

impl Server {
    /// `alpn` is in our order of preference; empty means that none is negotiated.
    #[must_use]
    pub fn new(identity: &Rotating, client_auth: ClientAuth, alpn: &[&[u8]]) -> Self {
        let alpn = alpn.iter().map(|p| p.to_vec()).collect();
        let (profile, pins) = (Profile::default(), Pins::default());
        Self { identity: identity.clone(), client_auth, alpn, profile, pins, built: Arc::default() }
    }

    /// Speaks only what the profile has, and takes only clients that the pins know.
    #[must_use]
    pub fn with(self, profile: Profile, pins: Pins) -> Self {
        Self { profile, pins, built: Arc::default(), ..self }
    }

    /// Whether a client that was let in has been revoked since.
    #[must_use]
    pub fn revokes(&self, peer: &PeerCertificate) -> bool {
        self.identity.current().is_some_and(|material| material.revokes(peer))
    }

    /// Waits until a client that was let in is revoked.
    pub async fn revoked(&self, peer: &PeerCertificate) {
        let mut changes = self.identity.subscribe();
        while !self.revokes(peer) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn built(&self) -> Result<Arc<Built>, TlsError> {
        let material = self.identity.current().ok_or(TlsError::NotReady)?;
        if let Some(built) = self.built.load_full().filter(|built| Arc::ptr_eq(&built.material, &material)) {
            return Ok(built);
        }
        let built = Arc::new(self.build(material)?);
        self.built.store(Some(built.clone()));
        Ok(built)
    }

    fn build(&self, material: Arc<Material>) -> Result<Built, TlsError> {
        let builder = ServerConfig::builder_with_provider(self.profile.provider.clone())
            .with_protocol_versions(&self.profile.versions)
            .map_err(|e| TlsError::Material(e.to_string()))?;
        let builder = match self.client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            other => builder.with_client_cert_verifier(Arc::new(ClientVerifier {
                material: material.clone(),
                mandatory: other != ClientAuth::Optional,
                spiffe: other == ClientAuth::Spiffe,
                pins: self.pins.clone(),
            })),
        };
        if material.keys.is_empty() {
            return Err(TlsError::NotReady);
        }
        let mut config = builder.with_cert_resolver(Arc::new(ByType(material.keys.clone())));
        let config_without_alpn = Arc::new(config.clone());
        config.alpn_protocols = self.alpn.to_vec();
        Ok(Built { material, config: Arc::new(config), config_without_alpn })
    }

    /// Handshakes on a stream whose first byte has not been read. The caller bounds the time; dropping the future closes the stream.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] with the cause.
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
    ) -> Result<TlsStream<IO>, TlsError> {
        Hello::read(io).await?.accept(self).await
    }
}

// === impl Hello ===

impl<IO: AsyncRead + AsyncWrite + Unpin> Hello<IO> {
    /// Reads the client's first message, so that its names can choose the server.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] when it is not a TLS client hello.
    pub async fn read(io: IO) -> Result<Self, TlsError> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), ReadAhead::new(io))
            .await
            .map_err(TlsError::Handshake)?;
        let hello = start.client_hello();
        let sni = hello.server_name().map(str::to_owned);
        let alpn = hello.alpn().map(|protocols| protocols.map(<[u8]>::to_vec).collect()).unwrap_or_default();
        Ok(Self { start, sni, alpn })
    }

    /// Finishes the handshake as `server`.
    ///
    /// # Errors
    /// [`TlsError::NotReady`] before an identity is published, [`TlsError::Handshake`] with the cause.
    pub async fn accept(self, server: &Server) -> Result<TlsStream<IO>, TlsError> {
        let built = server.built()?;
        let common = self.alpn.iter().any(|p| server.alpn.contains(p));
        let config = if common || self.alpn.is_empty() { &built.config } else { &built.config_without_alpn };
        let stream = self.start.into_stream(config.clone()).await.map_err(TlsError::Handshake)?;
        TlsStream::new(stream.into()).map_err(|e| TlsError::Handshake(io::Error::other(e)))
    }
}

impl<IO> std::fmt::Debug for Hello<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").field("sni", &self.sni).field("alpn", &self.alpn).finish_non_exhaustive()
    }
}
