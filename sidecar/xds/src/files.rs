//! Certificates and roots that configuration names by path: read from the pod's files, and again when they change.

use sidecar_model::secret::{
    FILE_CERTIFICATE_PREFIX, FILE_ROOTS_PREFIX, SYSTEM_ROOTS, SecretKind, TlsCertificate,
};
use sidecar_model::tls::{RootSource, Validation};
use sidecar_model::{Secret, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
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
    /// Reads what is not known of `names`, and with `again` the rest, too. True when anything is new or differs from before. A file
    /// that cannot be read leaves what was read of it before.
    pub(crate) fn refresh(&mut self, names: &BTreeSet<Arc<str>>, again: bool) -> bool {
        let before = self.known.len();
        self.known.retain(|name, _| names.contains(name));
        let mut changed = self.known.len() != before;
        for name in names {
            if !again && self.known.contains_key(name) {
                continue;
            }
            match read(name) {
                Ok(kind) if self.known.get(name).is_some_and(|secret| secret.kind == kind) => {}
                Ok(kind) => {
                    self.known.insert(name.clone(), Arc::new(Secret { name: name.clone(), kind }));
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
        let pem = if name == SYSTEM_ROOTS { system_roots() } else { text(path) };
        let roots = Some(RootSource::Inline(pem?.into()));
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

/// The bundle of trusted roots, where one of the usual distributions keeps it.
fn system_roots() -> io::Result<String> {
    let places = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let found = places.into_iter().find(|path| std::fs::exists(path).unwrap_or(false));
    text(found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the machine has no trusted roots"))?)
}

fn text(path: &str) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("chain"), "chain-1").unwrap();
        std::fs::write(path("key"), "key-1").unwrap();
        let pair: Arc<str> = format!("{FILE_CERTIFICATE_PREFIX}{}~{}", path("chain"), path("key")).into();
        let roots: Arc<str> = format!("{FILE_ROOTS_PREFIX}{}", path("roots")).into();
        let names = BTreeSet::from([pair.clone(), roots.clone()]);
        let mut files = FileSecrets::default();
        assert!(files.refresh(&names, false));
        let secrets = |files: &FileSecrets| {
            let mut snapshot = Snapshot::default();
            files.add_to(&mut snapshot);
            snapshot.secrets
        };
        assert_eq!(secrets(&files).len(), 1, "there are no roots yet");
        std::fs::write(path("chain"), "chain-2").unwrap();
        std::fs::write(path("roots"), "roots-1").unwrap();
        assert!(files.refresh(&names, false));
        let chain = |files: &FileSecrets| match &secrets(files)[&pair].kind {
            SecretKind::Certificate(certificate) => certificate.chain_pem.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(&*chain(&files), "chain-1", "what is known is not read again");
        assert!(files.refresh(&names, true));
        assert_eq!(&*chain(&files), "chain-2");
        assert!(!files.refresh(&names, true), "nothing has changed");
        std::fs::remove_file(path("roots")).unwrap();
        assert!(!files.refresh(&names, true));
        assert!(secrets(&files).contains_key(&roots), "what was there stays");
        assert!(files.refresh(&BTreeSet::new(), false));
        assert!(secrets(&files).is_empty());
    }
}
