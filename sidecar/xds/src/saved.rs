//! The last good configuration in a file: written whole, renamed into place, believed only when its checksum is right.
//!
//! The file is a magic word, the CRC-32 of the rest, and a protobuf message. It is readable by its owner only, since secrets of
//! gateways may be in it.

use crate::state::Held;
use prost::Message;
use sidecar_model::ResourceType;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"MESHXDS1";
const FILE: &str = "last-good.xds";
/// Larger files are not read.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[derive(Clone, PartialEq, Message)]
struct Content {
    /// Who saved it; another proxy does not take it.
    #[prost(string, tag = "1")]
    node: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Saved>,
}

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "vec", tag = "4")]
    message: Vec<u8>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SavedError {
    #[error("cannot {action} `{path}`")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("`{path}` is damaged: {reason}")]
    Damaged { path: PathBuf, reason: &'static str },
}

/// A file in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: PathBuf,
    node: String,
}

// === impl Store ===

impl Store {
    pub(crate) fn new(directory: &Path, node: &str) -> Self {
        Self { path: directory.join(FILE), node: node.to_owned() }
    }

    /// What was saved; nothing when there is no file, or it is another proxy's.
    pub(crate) fn load(&self) -> Result<Vec<(ResourceType, Arc<str>, Held)>, SavedError> {
        let error = |source| SavedError::File { action: "read", path: self.path.clone(), source };
        match std::fs::metadata(&self.path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(other) => return Err(error(other)),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(self.damaged("it is too large")),
            Ok(_) => {}
        }
        let bytes = std::fs::read(&self.path).map_err(error)?;
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| self.damaged("it begins wrong"))?;
        let (sum, body) = rest.split_first_chunk::<4>().ok_or_else(|| self.damaged("it is too short"))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
            return Err(self.damaged("its checksum is wrong"));
        }
        let content = Content::decode(body).map_err(|_| self.damaged("its content cannot be read"))?;
        if content.node != self.node {
            return Ok(Vec::new());
        }
        let known = content.resources.into_iter().filter_map(|saved| {
            let kind = ResourceType::from_type_url(&saved.type_url)?;
            let held = Held { version: saved.version.into(), message: saved.message.into() };
            Some((kind, saved.name.into(), held))
        });
        Ok(known.collect())
    }

    /// Replaces what was saved.
    pub(crate) fn save<'a>(
        &self,
        resources: impl Iterator<Item = (ResourceType, &'a Arc<str>, &'a Held)>,
    ) -> Result<(), SavedError> {
        let saved = |(kind, name, held): (ResourceType, &Arc<str>, &Held)| Saved {
            type_url: kind.type_url().to_owned(),
            name: name.to_string(),
            version: held.version.to_string(),
            message: held.message.to_vec(),
        };
        let content = Content { node: self.node.clone(), resources: resources.map(saved).collect() };
        let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + content.encoded_len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&content.encode_to_vec());
        let sum = crc32fast::hash(&bytes[MAGIC.len() + 4..]).to_be_bytes();
        bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&sum);
        self.replace(&bytes).map_err(|source| SavedError::File {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)
    }

    fn damaged(&self, reason: &'static str) -> SavedError {
        SavedError::Damaged { path: self.path.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn held(version: &str, message: &[u8]) -> Held {
        Held { version: version.into(), message: message.into() }
    }

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path(), "sidecar~a");
        assert!(store.load().unwrap().is_empty(), "no file is no error");
        let (name, one) = (Arc::from("c"), held("1", b"abc"));
        store.save([(ResourceType::Cluster, &name, &one)].into_iter()).unwrap();
        assert_eq!(store.load().unwrap(), vec![(ResourceType::Cluster, name.clone(), one.clone())]);
        assert_eq!(std::fs::metadata(&store.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Store::new(directory.path(), "sidecar~b").load().unwrap().is_empty(), "another proxy's file");

        let good = std::fs::read(&store.path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x40;
            std::fs::write(&store.path, &bad).unwrap();
            assert!(matches!(store.load(), Err(SavedError::Damaged { .. })), "byte {index}");
            std::fs::write(&store.path, &good[..index]).unwrap();
            assert!(matches!(store.load(), Err(SavedError::Damaged { .. })), "cut at {index}");
        }
    }
}
