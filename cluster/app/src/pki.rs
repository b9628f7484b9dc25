//! The cluster's keys: one authority and one token key on disk, made once; every certificate from it in memory, made at each start.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use base_tls::{CertificateAuthority, Issued, LeafProfile, Material, Roots, generate_key_pem};

use crate::kubeconfig::write_private;

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The administrator's certificate lives in a file people copy, so it lives long.
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Serving certificates of a process that never restarts are renewed after this long.
pub(crate) const RENEW_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The authority and the key that signs service-account tokens.
pub(crate) struct Pki {
    authority: CertificateAuthority,
    service_account_key: String,
}

// === impl Pki ===

impl Pki {
    /// Reads the keys in `directory`, or makes them. The directory and its files are for their owner alone.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let context = || format!("cannot keep keys in {}", directory.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(context)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).with_context(context)?;
        let service_account_key =
            read_or(&directory.join("sa.key"), || Ok(generate_key_pem()?.0.to_string()))?;
        Ok(Self { authority: authority(directory)?, service_account_key })
    }

    /// The authority's certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// The key that signs service-account tokens.
    pub(crate) fn service_account_key(&self) -> &str {
        &self.service_account_key
    }

    /// A client certificate: `user` and `group` are what the API server sees.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Issued> {
        self.issue(LeafProfile {
            common_name: Some(user.into()),
            organization: group.map(Into::into),
            client: true,
            ..LeafProfile::default()
        })
    }

    /// The API server's certificate, for every name and address it has.
    pub(crate) fn api_server(&self, fabric: Ipv4Addr) -> Result<Material> {
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let addresses = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 96, 0, 1), fabric];
        self.material(&self.issue(LeafProfile {
            common_name: Some("kube-apiserver".into()),
            dns_names: names.map(Into::into).into(),
            addresses: addresses.map(IpAddr::V4).into(),
            server: true,
            ..LeafProfile::default()
        })?)
    }

    /// A node's certificate: it serves the kubelet's API and is the kubelet's own identity.
    pub(crate) fn node(&self, name: &str, address: Ipv4Addr) -> Result<Issued> {
        self.issue(LeafProfile {
            common_name: Some(format!("system:node:{name}")),
            organization: Some("system:nodes".into()),
            dns_names: vec![name.into()],
            addresses: vec![IpAddr::V4(address)],
            server: true,
            client: true,
            ..LeafProfile::default()
        })
    }

    /// A certificate with the cluster's authority as the root for peers.
    pub(crate) fn material(&self, issued: &Issued) -> Result<Material> {
        let roots = Roots::from_pem(self.ca_pem())?;
        Ok(Material::from_pem(&issued.chain_pem, &issued.key_pem, Some(roots))?)
    }

    fn issue(&self, profile: LeafProfile) -> Result<Issued> {
        Ok(self.authority.issue(&LeafProfile { lifetime: LEAF_LIFETIME, ..profile })?)
    }
}

fn authority(directory: &Path) -> Result<CertificateAuthority> {
    let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
    if let (Ok(certificate), Ok(key)) = (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
        let authority = CertificateAuthority::from_pem(&certificate, &key)
            .with_context(|| format!("the cluster's authority in {} is damaged", directory.display()))?;
        if authority.not_after() > SystemTime::now() + DAY {
            return Ok(authority);
        }
    }
    let authority = CertificateAuthority::generate("mesh-cluster", "mesh", AUTHORITY_LIFETIME)?;
    // The certificate last: a crash in between leaves no pair, and the next start makes a new one.
    for (path, pem) in [(&key, authority.key_pem()), (&certificate, authority.certificate_pem())] {
        write_private(path, pem.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(authority)
}

fn read_or(path: &PathBuf, make: impl FnOnce() -> Result<String>) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make()?;
            write_private(path, text.as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(text)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pki");
        let first = Pki::open(&directory).unwrap();
        let second = Pki::open(&directory).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.service_account_key(), second.service_account_key());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        for file in ["ca.crt", "ca.key", "sa.key"] {
            assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn certificates_say_who_and_where() {
        let root = tempfile::tempdir().unwrap();
        let pki = Pki::open(root.path()).unwrap();
        let node = pki.node("node1", Ipv4Addr::new(172, 30, 0, 11)).unwrap();
        let material = pki.material(&node).unwrap();
        assert!(material.leaf().is_some());
        pki.api_server(Ipv4Addr::new(172, 30, 0, 1)).unwrap();
        pki.client("admin", Some("system:masters")).unwrap();
    }
}
