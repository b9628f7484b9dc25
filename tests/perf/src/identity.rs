//! Certificates of the measured proxies, and the files in which foreign programs want them.

use anyhow::Result;
use base_tls::{CertificateAuthority, LeafProfile, Material, Roots, Rotating};
use std::path::Path;
use std::time::Duration;

const LIFETIME: Duration = Duration::from_secs(86_400);

/// A certificate with its key and the root it is trusted by, all PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub chain: String,
    pub key: String,
    pub root: String,
}

impl Identity {
    /// An identity of the service account `name`.
    pub fn issue(ca: &CertificateAuthority, name: &str) -> Result<Self> {
        let id = format!("spiffe://cluster.local/ns/default/sa/{name}").parse()?;
        let issued = ca.issue(&LeafProfile {
            spiffe_id: Some(id),
            server: true,
            client: true,
            lifetime: LIFETIME,
            ..LeafProfile::default()
        })?;
        Ok(Self {
            chain: issued.chain_pem,
            key: issued.key_pem.to_string(),
            root: ca.certificate_pem().to_owned(),
        })
    }

    /// As TLS sides of our own use it.
    pub fn rotating(&self) -> Result<Rotating> {
        let roots = Roots::from_pem(&self.root)?;
        Ok(Rotating::new(Material::from_pem(&self.chain, &self.key, Some(roots))?))
    }

    /// Writes `NAME.pem`, `NAME.key`, and `NAME.both` with the two, below `dir`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<()> {
        std::fs::write(dir.join(format!("{name}.pem")), &self.chain)?;
        std::fs::write(dir.join(format!("{name}.key")), &self.key)?;
        std::fs::write(dir.join(format!("{name}.both")), format!("{}{}", self.chain, self.key))?;
        Ok(())
    }
}
