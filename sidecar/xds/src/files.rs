//! Certificates and roots that configuration names by path: read from the pod's files, and again when they change.

use sidecar_model::secret::{
    FILE_CERTIFICATE_PREFIX, FILE_ROOTS_PREFIX, SecretKind, TlsCertificate, is_in_files,
};
use sidecar_model::tls::{RootSource, Validation};
use sidecar_model::{Secret, Snapshot};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Larger files are not certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The secrets read so far, by name.
#[derive(Debug, Default)]
pub(crate) struct FileSecrets {
    known: BTreeMap<Arc<str>, Arc<Secret>>,
}

// === impl FileSecrets ===

impl FileSecrets {
    /// Reads what `snapshot` refers to. True when anything is new or differs from before. A file that cannot be read
    /// leaves what was read of it before.
    pub(crate) fn refresh(&mut self, snapshot: &Snapshot) -> bool {
        let wanted: Vec<_> =
            snapshot.references().secrets.into_iter().filter(|name| is_in_files(name)).collect();
        let before = self.known.len();
        self.known.retain(|name, _| wanted.contains(name));
        let mut changed = self.known.len() != before;
        for name in wanted {
            match read(&name) {
                Ok(kind) if self.known.get(&name).is_some_and(|secret| secret.kind == kind) => {}
                Ok(kind) => {
                    self.known.insert(name.clone(), Arc::new(Secret { name, kind }));
                    changed = true;
                }
                Err(error) => tracing::warn!(secret = %name, %error, "Secret cannot be read from its files"),
            }
        }
        changed
    }

    /// Puts what was read into `snapshot`.
    pub(crate) fn add_to(&self, snapshot: &mut Snapshot) {
        if self.known.is_empty() {
            return;
        }
        let secrets = Arc::make_mut(&mut snapshot.secrets);
        secrets.extend(self.known.iter().map(|(name, secret)| (name.clone(), secret.clone())));
    }
}

fn read(name: &str) -> io::Result<SecretKind> {
    if let Some(path) = name.strip_prefix(FILE_ROOTS_PREFIX) {
        let roots = Some(RootSource::Inline(text(path)?.into()));
        return Ok(SecretKind::Validation(Arc::new(Validation { roots, ..Validation::default() })));
    }
    let paths = name.strip_prefix(FILE_CERTIFICATE_PREFIX).and_then(|paths| paths.split_once('~'));
    let (chain, key) =
        paths.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no two paths"))?;
    Ok(SecretKind::Certificate(Arc::new(TlsCertificate {
        chain_pem: text(chain)?.into(),
        key_pem: text(key)?.into(),
        ocsp_staple: Box::default(),
    })))
}

fn text(path: &str) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    std::fs::read_to_string(path)
}
