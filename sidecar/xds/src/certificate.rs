//! The workload's key and certificate: made here, signed by the mesh's authority, renewed at half of their life.
//!
//! All it takes is the service account's token and the server's own certificate, so an expired certificate is no obstacle. Every
//! certificate has a new key, which never leaves the process.

use crate::config::Config;
use crate::status::{CertificateView, Status, seconds};
use crate::transport::{Channel, ConnectError, Connected, connect, read};
use base_tls::{CertificateRequest, Material, Roots, Rotating, TlsError};
use base_types::{Backoff, ErrorChain, InvalidSpiffeId, SpiffeId};
use policies_xds::csr::{self, CertificateServiceClient};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Bounds of the pause before the next attempt.
const BACK_OFF_BASE: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// The authority must answer within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A certificate is never renewed earlier after it was issued, however short its life.
const RENEW_AFTER_MIN: Duration = Duration::from_millis(200);
/// How often the file of roots is looked at.
const ROOTS_INTERVAL: Duration = Duration::from_secs(30);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error("the workload has no identity")]
    Identity(#[from] InvalidSpiffeId),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the certificate authority refused the request")]
    Status(#[source] Box<tonic::Status>),
    #[error("the connection failed")]
    Connection(#[source] hyper::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("the certificate authority did not answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    #[error("the certificate cannot be used")]
    Material(#[from] TlsError),
    #[error("the certificate authority answered with {0}")]
    Unusable(String),
}

/// A certificate with its key and what else it needs to become a material again.
struct Issued {
    chain_pem: String,
    key_pem: Zeroizing<String>,
    /// Root that came with the certificate.
    root_pem: String,
}

/// Keeps `identity` supplied until it is dropped.
pub(crate) async fn run(config: Arc<Config>, identity: Rotating, status: Arc<Status>) {
    let mut backoff = Backoff::new(BACK_OFF_BASE, BACK_OFF_MAX);
    loop {
        match renew(&config, &identity, &status).await {
            Ok((issued, roots, life)) => {
                backoff.reset();
                keep(&config, &identity, &issued, roots, life).await;
            }
            Err(error) => {
                let delay = backoff.next_delay(rand::random());
                tracing::warn!(error = %ErrorChain(&error), ?delay, "Certificate could not be obtained, trying again");
                status.change(|view| view.certificate_error = Some(ErrorChain(&error).to_string()));
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Obtains a certificate and publishes it. Returns it with the roots it was published with and how long it lives.
async fn renew(
    config: &Config,
    identity: &Rotating,
    status: &Status,
) -> Result<(Issued, String, Duration), CertificateError> {
    let id = SpiffeId::workload(&config.trust_domain, &config.namespace, &config.service_account)?;
    let issued = obtain(config, &id).await?;
    let roots = read(&config.root_cert)?;
    let material = issued.material(&roots)?;
    if material.spiffe_id() != Some(&id) {
        let other = material.spiffe_id().map_or("no identity", SpiffeId::as_str);
        return Err(CertificateError::Unusable(format!("a certificate of {other} instead of {id}")));
    }
    let leaf = material.leaf().ok_or_else(|| CertificateError::Unusable("no certificate".to_owned()))?;
    let life = leaf.not_after.duration_since(SystemTime::now()).unwrap_or_default();
    if life.is_zero() {
        return Err(CertificateError::Unusable("a certificate that has expired".to_owned()));
    }
    tracing::info!(identity = %id, serial = leaf.serial, ?life, "Certificate obtained");
    status.change(|view| {
        view.certificate = Some(CertificateView {
            identity: id.to_string(),
            serial: leaf.serial.clone(),
            not_before_seconds: seconds(leaf.not_before),
            not_after_seconds: seconds(leaf.not_after),
            issued: view.certificate.as_ref().map_or(0, |before| before.issued) + 1,
        });
        view.certificate_error = None;
    });
    identity.publish(material);
    Ok((issued, roots, life))
}

/// Waits until it is time to renew; a change of the roots' file is published meanwhile.
async fn keep(config: &Config, identity: &Rotating, issued: &Issued, mut roots: String, life: Duration) {
    let renew_at = Instant::now() + renewal(life, rand::random());
    loop {
        let look_at = Instant::now() + ROOTS_INTERVAL;
        tokio::time::sleep_until(renew_at.min(look_at)).await;
        if Instant::now() >= renew_at {
            return;
        }
        let current = match read(&config.root_cert) {
            Ok(current) if current != roots => current,
            _ => continue,
        };
        match issued.material(&current) {
            Ok(material) => {
                tracing::info!("Roots have changed");
                identity.publish(material);
                roots = current;
            }
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "Changed roots cannot be used"),
        }
    }
}

/// Half of the life, a tenth of that earlier or later; `random` is in `[0, 1)`.
fn renewal(life: Duration, random: f64) -> Duration {
    (life / 2).mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0)).max(RENEW_AFTER_MIN)
}

async fn obtain(config: &Config, id: &SpiffeId) -> Result<Issued, CertificateError> {
    let request = CertificateRequest::generate(id)?;
    let message = csr::CertificateRequest {
        csr: request.csr_pem.clone(),
        validity_duration: i64::try_from(config.certificate_ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    };
    let Connected { channel, connection, origin, authorization } = connect(config).await?;
    let mut client = CertificateServiceClient::<Channel>::with_origin(channel, origin);
    let mut call = tonic::Request::new(message);
    call.metadata_mut().insert("authorization", authorization);
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.create_certificate(call));
    let answer = tokio::select! {
        answer = answer => answer.map_err(|_| CertificateError::Silent)?,
        ended = connection => {
            return Err(ended.map_or_else(CertificateError::Connection, |()| CertificateError::Closed));
        }
    };
    let answer = answer.map_err(|status| CertificateError::Status(Box::new(status)))?.into_inner();
    let (root, chain) = match answer.cert_chain.as_slice() {
        [] => return Err(CertificateError::Unusable("no certificate".to_owned())),
        [leaf] => (String::new(), vec![leaf.clone()]),
        [chain @ .., root] => (root.clone(), chain.to_vec()),
    };
    Ok(Issued { chain_pem: lines(&chain), key_pem: request.key_pem, root_pem: root })
}

/// PEM texts one after another, each ending its line.
fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{}\n", text.trim_end())).collect()
}

// === impl Issued ===

impl Issued {
    /// The material, trusting both the root that came with the certificate and those of the file: either may be newer.
    fn material(&self, roots_file: &str) -> Result<Material, TlsError> {
        let roots = Roots::from_pem(&lines(&[self.root_pem.clone(), roots_file.to_owned()]))?;
        Material::from_pem(&self.chain_pem, &self.key_pem, Some(roots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_around_half_of_the_life() {
        let hour = Duration::from_secs(3600);
        assert_eq!(renewal(hour, 0.0), Duration::from_secs(1620));
        assert_eq!(renewal(hour, 0.5), Duration::from_secs(1800));
        assert!(renewal(hour, 0.999) < Duration::from_secs(1980));
        assert_eq!(renewal(Duration::ZERO, 0.5), RENEW_AFTER_MIN);
    }
}
