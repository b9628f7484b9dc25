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

type Key = (Option<Arc<str>>, Option<Arc<str>>);

#[derive(Debug)]
struct Entry {
    rotating: Rotating,
    chain: Option<(Arc<str>, Arc<str>)>,
    roots: Option<Arc<str>>,
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
            let chain = key.0.as_ref().and_then(|name| self.chain(name));
            let roots = key.1.as_ref().and_then(|name| self.roots(name));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.publish(chain, roots);
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
        match (certificate, &tls.validation.roots) {
            (Some(CertificateSource::Inline(certificate)), roots) => {
                let chain = (Arc::from(&*certificate.chain_pem), Arc::from(&*certificate.key_pem));
                let roots = match roots {
                    Some(RootSource::Inline(pem)) => Some(Arc::clone(pem)),
                    Some(RootSource::Secret(name)) => self.roots(name),
                    _ => None,
                };
                fresh(Some(chain), roots)
            }
            (None, Some(RootSource::Inline(pem))) => fresh(None, Some(Arc::clone(pem))),
            (certificate, roots) => {
                let certificate = match certificate {
                    Some(CertificateSource::Secret(name)) => Some(Arc::clone(name)),
                    _ => None,
                };
                let roots = match roots {
                    Some(RootSource::Secret(name)) => Some(Arc::clone(name)),
                    _ => None,
                };
                self.of_secrets(certificate, roots)
            }
        }
    }

    fn of_secrets(&mut self, certificate: Option<Arc<str>>, roots: Option<Arc<str>>) -> Rotating {
        let key = (certificate, roots);
        if let Some(entry) = self.entries.get(&key) {
            return entry.rotating.clone();
        }
        let chain = key.0.as_ref().and_then(|name| self.chain(name));
        let roots = key.1.as_ref().and_then(|name| self.roots(name));
        let mut entry = Entry { rotating: Rotating::empty(), chain: None, roots: None };
        entry.publish(chain, roots);
        let rotating = entry.rotating.clone();
        self.entries.insert(key, entry);
        rotating
    }

    fn chain(&self, name: &str) -> Option<(Arc<str>, Arc<str>)> {
        match &self.snapshot.secrets.get(name)?.kind {
            SecretKind::Certificate(certificate) => {
                Some((Arc::from(&*certificate.chain_pem), Arc::from(&*certificate.key_pem)))
            }
            SecretKind::Validation(_) => None,
        }
    }

    fn roots(&self, name: &str) -> Option<Arc<str>> {
        match &self.snapshot.secrets.get(name)?.kind {
            SecretKind::Validation(validation) => match &validation.roots {
                Some(RootSource::Inline(pem)) => Some(Arc::clone(pem)),
                _ => None,
            },
            SecretKind::Certificate(_) => None,
        }
    }
}

impl Entry {
    fn publish(&mut self, chain: Option<(Arc<str>, Arc<str>)>, roots: Option<Arc<str>>) {
        if chain == self.chain && roots == self.roots {
            return;
        }
        match material(chain.as_ref(), roots.as_deref()) {
            Ok(material) => self.rotating.publish(material),
            // The last good material serves on.
            Err(error) => tracing::warn!(error = %error, "A certificate of the control plane cannot be used"),
        }
        self.chain = chain;
        self.roots = roots;
    }
}

fn fresh(chain: Option<(Arc<str>, Arc<str>)>, roots: Option<Arc<str>>) -> Rotating {
    match material(chain.as_ref(), roots.as_deref()) {
        Ok(material) => Rotating::new(material),
        Err(error) => {
            tracing::warn!(error = %error, "An inline certificate cannot be used");
            Rotating::empty()
        }
    }
}

fn material(
    chain: Option<&(Arc<str>, Arc<str>)>,
    roots: Option<&str>,
) -> Result<Material, base_tls::TlsError> {
    let roots = roots.map(Roots::from_pem).transpose()?;
    match chain {
        Some((chain, key)) => Material::from_pem(chain, key, roots),
        None => Material::trust(roots),
    }
}
