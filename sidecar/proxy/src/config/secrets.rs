//! Certificates and roots that come from the control plane, as TLS material that follows their rotation.

use std::collections::HashMap;
use std::sync::Arc;

use base_tls::{Material, Roots, Rotating};
use sidecar_model::Snapshot;
use sidecar_model::secret::SecretKind;
use sidecar_model::tls::{CertificateSource, RootSource, SECRET_DEFAULT, SECRET_ROOT_CA, TlsParameters};

/// TLS material by the names that make it up.
#[derive(Debug, Default)]
pub struct SecretStore {
    entries: HashMap<Key, Entry>,
    snapshot: Arc<Snapshot>,
}

/// Names of certificates and of roots, and a list of revocations that stands in the configuration itself.
type Key = (Vec<Arc<str>>, Option<Arc<str>>, Box<str>);

/// Chains with their keys.
type Chains = Vec<(Arc<str>, Arc<str>)>;

/// Roots with their revocation lists, PEM.
type Trust = Option<(Arc<str>, Box<str>)>;

#[derive(Debug)]
struct Entry {
    rotating: Rotating,
    known: Option<(Chains, Trust)>,
}

impl SecretStore {
    /// Takes over the secrets of a snapshot: material in use is replaced where it changed.
    pub(crate) fn update(&mut self, snapshot: &Arc<Snapshot>) {
        if Arc::ptr_eq(&self.snapshot.secrets, &snapshot.secrets) {
            return;
        }
        self.snapshot = Arc::clone(snapshot);
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            let (chains, trust) = (self.chains(&key.0), self.trust(&key));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.publish(chains, trust);
            }
        }
    }

    /// The material for a listener's or cluster's TLS: the workload's own when it names that, else one of secrets or inline texts.
    pub(crate) fn material(&mut self, tls: &TlsParameters, identity: &Rotating) -> Rotating {
        let certificate = tls.certificates.first();
        let own_certificate =
            matches!(certificate, Some(CertificateSource::Secret(name)) if **name == *SECRET_DEFAULT);
        let own_roots =
            matches!(&tls.validation.roots, Some(RootSource::Secret(name)) if **name == *SECRET_ROOT_CA);
        if own_certificate || (certificate.is_none() && own_roots) {
            return identity.clone();
        }
        let names = tls.certificates.iter().filter_map(|source| match source {
            CertificateSource::Secret(name) => Some(Arc::clone(name)),
            CertificateSource::Inline(_) => None,
        });
        let inline = tls.certificates.iter().filter_map(|source| match source {
            CertificateSource::Inline(one) => Some((Arc::from(&*one.chain_pem), Arc::from(&*one.key_pem))),
            CertificateSource::Secret(_) => None,
        });
        let crl = &tls.validation.crl;
        let roots = match &tls.validation.roots {
            Some(RootSource::Secret(name)) => Some(Arc::clone(name)),
            _ => None,
        };
        let key: Key = (names.collect(), roots, crl.clone());
        let inline: Chains = inline.collect();
        if inline.is_empty() && !matches!(&tls.validation.roots, Some(RootSource::Inline(_))) {
            return self.of_secrets(key);
        }
        let trust = match &tls.validation.roots {
            Some(RootSource::Inline(pem)) => Some((Arc::clone(pem), crl.clone())),
            _ => self.trust(&key),
        };
        let mut chains = inline;
        chains.extend(self.chains(&key.0));
        fresh(&chains, trust.as_ref())
    }

    fn of_secrets(&mut self, key: Key) -> Rotating {
        if let Some(entry) = self.entries.get(&key) {
            return entry.rotating.clone();
        }
        let (chains, trust) = (self.chains(&key.0), self.trust(&key));
        let mut entry = Entry { rotating: Rotating::empty(), known: None };
        entry.publish(chains, trust);
        let rotating = entry.rotating.clone();
        self.entries.insert(key, entry);
        rotating
    }

    /// The certificates of these names that are there.
    fn chains(&self, names: &[Arc<str>]) -> Chains {
        let one = |name: &Arc<str>| match &self.snapshot.secrets.get(name)?.kind {
            SecretKind::Certificate(certificate) => {
                Some((Arc::from(&*certificate.chain_pem), Arc::from(&*certificate.key_pem)))
            }
            SecretKind::Validation(_) => None,
        };
        names.iter().filter_map(one).collect()
    }

    /// The roots of a name, with the revocation lists that come with them and those of the configuration.
    fn trust(&self, key: &Key) -> Trust {
        let SecretKind::Validation(validation) = &self.snapshot.secrets.get(key.1.as_ref()?)?.kind else {
            return None;
        };
        match &validation.roots {
            Some(RootSource::Inline(pem)) => {
                Some((Arc::clone(pem), format!("{}{}", validation.crl, key.2).into()))
            }
            _ => None,
        }
    }
}

impl Entry {
    fn publish(&mut self, chains: Chains, trust: Trust) {
        let new = Some((chains, trust));
        if new == self.known {
            return;
        }
        if let Some((chains, trust)) = &new {
            match material(chains, trust.as_ref()) {
                Ok(material) => self.rotating.publish(material),
                // The last good material serves on.
                Err(error) => {
                    tracing::warn!(error = %error, "A certificate of the control plane cannot be used")
                }
            }
        }
        self.known = new;
    }
}

fn fresh(chains: &Chains, trust: Option<&(Arc<str>, Box<str>)>) -> Rotating {
    match material(chains, trust) {
        Ok(material) => Rotating::new(material),
        Err(error) => {
            tracing::warn!(error = %error, "An inline certificate cannot be used");
            Rotating::empty()
        }
    }
}

fn material(chains: &Chains, trust: Option<&(Arc<str>, Box<str>)>) -> Result<Material, base_tls::TlsError> {
    let roots = match trust {
        None => None,
        Some((roots, crl)) if crl.is_empty() => Some(Roots::from_pem(roots)?),
        Some((roots, crl)) => Some(Roots::from_pem(roots)?.with_crls(crl)?),
    };
    let Some(((chain, key), others)) = chains.split_first() else { return Material::trust(roots) };
    let first = Material::from_pem(chain, key, roots)?;
    others.iter().try_fold(first, |material, (chain, key)| material.and_pem(chain, key))
}
