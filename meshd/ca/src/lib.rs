//! The mesh's certificate authority behind Istio's CSR service.
//!
//! A certificate says who the caller has proven to be, whatever the request asks for: names in the request are ignored, its key is
//! certified for the caller's service account, for a lifetime that never passes the authority's own.

use base_tls::{CertificateAuthority, LeafProfile, TlsError};
use base_types::{ErrorChain, SpiffeId};
use futures::future::BoxFuture;
use policies_xds::csr::{CertificateRequest, CertificateResponse, CertificateService};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status, metadata::MetadataMap};

/// The longest lifetime that is given, whatever is asked for (Istio: `MAX_WORKLOAD_CERT_TTL`).
const LIFETIME_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// Who a caller has proven to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// The pod that its token is bound to.
    pub pod: Option<String>,
}

/// Why a caller is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no bearer token.
    #[error("a bearer token with audience `istio-ca` is required")]
    NoToken,
    /// The token proves nothing.
    #[error("the token is not valid: {0}")]
    InvalidToken(String),
    /// The cluster could not be asked about the token.
    #[error("tokens cannot be checked at the moment: {0}")]
    Unavailable(String),
}

/// Proves who a caller is by its bearer token.
pub trait Authenticate: Send + Sync + 'static {
    /// Checks a token.
    fn authenticate(&self, token: String) -> BoxFuture<'_, Result<Caller, Refused>>;
}

/// The CSR service. Cheap to clone.
#[derive(Clone)]
pub struct Ca {
    authority: Arc<CertificateAuthority>,
    authenticate: Arc<dyn Authenticate>,
    trust_domain: Arc<str>,
    /// What a request without a wish gets.
    lifetime: Duration,
    /// The longest that a request may wish for.
    lifetime_max: Duration,
}

// === impl Ca ===

impl Ca {
    /// Signs with `authority` for workloads of `trust_domain`.
    #[must_use]
    pub fn new(
        authority: Arc<CertificateAuthority>,
        authenticate: Arc<dyn Authenticate>,
        trust_domain: &str,
        lifetime: Duration,
    ) -> Self {
        Self {
            authority,
            authenticate,
            trust_domain: trust_domain.into(),
            lifetime,
            lifetime_max: lifetime.min(LIFETIME_MAX),
        }
    }

    /// The chain for a caller's request: leaf first, the authority's certificate last.
    ///
    /// # Errors
    /// When the request is not a signed PKCS#10 PEM, or the caller's names cannot be an identity.
    pub fn sign(&self, caller: &Caller, csr_pem: &str, wished: Duration) -> Result<Vec<String>, TlsError> {
        let id = SpiffeId::workload(&self.trust_domain, &caller.namespace, &caller.service_account)
            .map_err(|e| TlsError::Issue(ErrorChain(&e).to_string()))?;
        let lifetime = if wished.is_zero() { self.lifetime } else { wished.min(self.lifetime_max) };
        let profile = LeafProfile {
            spiffe_id: Some(id),
            server: true,
            client: true,
            lifetime,
            ..LeafProfile::default()
        };
        let leaf = self.authority.sign_request(csr_pem, &profile)?;
        Ok(vec![leaf, self.authority.certificate_pem().to_owned()])
    }
}

/// The token of a request's `authorization: Bearer …`.
///
/// # Errors
/// [`Refused::NoToken`] when there is none.
pub fn bearer(metadata: &MetadataMap) -> Result<String, Refused> {
    let value = metadata.get("authorization").and_then(|v| v.to_str().ok()).ok_or(Refused::NoToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refused::NoToken)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(Refused::NoToken);
    }
    Ok(token.trim().to_owned())
}

#[tonic::async_trait]
impl CertificateService for Ca {
    async fn create_certificate(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let caller = self.authenticate.authenticate(bearer(request.metadata())?).await?;
        let request = request.into_inner();
        let wished = Duration::from_secs(u64::try_from(request.validity_duration).unwrap_or(0));
        let chain = self
            .sign(&caller, &request.csr, wished)
            .map_err(|error| Status::invalid_argument(ErrorChain(&error).to_string()))?;
        tracing::info!(
            namespace = caller.namespace,
            service_account = caller.service_account,
            "Certificate issued"
        );
        Ok(Response::new(CertificateResponse { cert_chain: chain }))
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::NoToken | Refused::InvalidToken(_) => Self::unauthenticated(text),
            Refused::Unavailable(_) => Self::unavailable(text),
        }
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("trust_domain", &self.trust_domain)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base_tls::{CertificateRequest as Csr, Material};
    use std::time::SystemTime;

    struct Nobody;
    impl Authenticate for Nobody {
        fn authenticate(&self, _token: String) -> BoxFuture<'_, Result<Caller, Refused>> {
            Box::pin(async { Err(Refused::InvalidToken("no".into())) })
        }
    }

    fn ca(lifetime: Duration) -> Ca {
        let authority =
            CertificateAuthority::generate("root", "mesh", Duration::from_secs(3600 * 24 * 365)).unwrap();
        Ca::new(Arc::new(authority), Arc::new(Nobody), "cluster.local", lifetime)
    }

    fn caller() -> Caller {
        Caller { namespace: "default".into(), service_account: "ratings".into(), pod: None }
    }

    #[test]
    fn the_caller_is_certified_and_nobody_else() {
        let day = Duration::from_secs(24 * 3600);
        let admin = SpiffeId::workload("cluster.local", "kube-system", "admin").unwrap();
        let csr = Csr::generate(&admin).unwrap();
        let chain = ca(day).sign(&caller(), &csr.csr_pem, 1000 * day).unwrap();
        let leaf = Material::from_pem(&chain[0], &csr.key_pem, None).unwrap();
        assert_eq!(leaf.spiffe_id().unwrap().as_str(), "spiffe://cluster.local/ns/default/sa/ratings");
        assert!(leaf.not_after().unwrap() <= SystemTime::now() + day);
        assert_eq!(chain.len(), 2);
    }

    #[test]
    fn hostile_requests_get_nothing() {
        let csr = Csr::generate(&SpiffeId::workload("cluster.local", "a", "b").unwrap()).unwrap().csr_pem;
        let ca = ca(Duration::from_secs(60));
        let mut middle = csr.clone();
        let at = middle.len() / 2;
        middle.replace_range(at..=at, if &middle[at..=at] == "A" { "B" } else { "A" });
        for hostile in ["", "x", &csr[..csr.len() / 2], &middle] {
            assert!(ca.sign(&caller(), hostile, Duration::ZERO).is_err(), "{hostile}");
        }
        let odd = Caller { namespace: "a/b".into(), ..caller() };
        assert!(ca.sign(&odd, &csr, Duration::ZERO).is_err());
    }

    #[test]
    fn a_token_is_asked_for() {
        let mut metadata = MetadataMap::new();
        assert_eq!(bearer(&metadata), Err(Refused::NoToken));
        metadata.insert("authorization", "Basic x".parse().unwrap());
        assert_eq!(bearer(&metadata), Err(Refused::NoToken));
        metadata.insert("authorization", "bearer t".parse().unwrap());
        assert_eq!(bearer(&metadata), Ok("t".into()));
    }
}
