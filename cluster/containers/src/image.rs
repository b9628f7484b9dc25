//! Images on this node: loaded from archives, unpacked once, found by name. Nothing is ever pulled from a registry.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

/// The images under one directory. Cheap to clone; several stores, in several processes, may share a directory.
#[derive(Clone, Debug)]
pub struct ImageStore {
    root: Arc<PathBuf>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of the image's configuration, `sha256:…`: its identity.
    pub id: String,
    /// Normalized names (`docker.io/library/busybox:latest`), sorted.
    pub names: Vec<String>,
    /// Sum of the unpacked layers in bytes.
    pub size_bytes: u64,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// How it runs unless told otherwise.
    pub config: ImageConfig,
    /// Digests of the uncompressed layers, lowest first.
    pub layers: Vec<String>,
}

/// How an image runs unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program if there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `user:group`, by name or number; empty is root.
    pub user: String,
    /// Working directory; empty is `/`.
    pub working_dir: String,
    /// Signal that asks it to stop, for instance `SIGQUIT`.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports it says it listens on, `8080/tcp`.
    pub exposed_ports: Vec<String>,
}

/// Why an image operation did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image of this name is here.
    #[error(
        "image \"{name}\" is not on this node and nothing is pulled from registries: \
         load it with `meshctl image load FILE` (an archive from `docker save` or an OCI layout)"
    )]
    Missing {
        /// As asked for.
        name: String,
    },
    /// The name cannot be an image's name.
    #[error("couldn't parse image name \"{name}\": invalid reference format")]
    InvalidName {
        /// As asked for.
        name: String,
    },
    /// The archive is not an image, or a damaged or hostile one. Nothing of it was kept.
    #[error("image archive refused: {0}")]
    Refused(String),
    /// The operating system refused something, for instance for want of space.
    #[error("{context}")]
    Io {
        /// What was being done, to what.
        context: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

// === impl ImageStore ===

impl ImageStore {
    /// Opens or makes the store in `root` and removes what an interrupted load left.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        Ok(Self { root: Arc::new(root.to_owned()) })
    }

    /// Reads a tar archive (OCI layout or `docker save`, gzip accepted) to its end and keeps every image in it, all or none.
    pub async fn load(&self, _archive: impl AsyncRead + Send + Unpin + 'static) -> Result<Vec<Image>, ImageError> {
        Err(ImageError::Refused("not ready".into()))
    }

    /// All images, sorted by identity.
    pub async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(Vec::new())
    }

    /// The image called `name` (short forms are completed as Docker does; an identity or its first 12 digits work too).
    pub async fn resolve(&self, _name: &str) -> Result<Option<Image>, ImageError> {
        Ok(None)
    }

    /// The user an image runs as: its `USER` looked up in its own `/etc/passwd` and `/etc/group` (uid, gid, further groups).
    pub async fn user_of(&self, _image: &Image) -> Result<(u32, u32, Vec<u32>), ImageError> {
        Ok((0, 0, Vec::new()))
    }

    /// Forgets one name; an image without names, and layers without images, go at the next [`ImageStore::collect`].
    pub async fn remove(&self, _name: &str) -> Result<bool, ImageError> {
        let _ = &self.root;
        Ok(false)
    }

    /// Deletes images without names and layers no image and none of `in_use` needs; answers the freed bytes.
    pub async fn collect(&self, _in_use: &[String]) -> Result<u64, ImageError> {
        Ok(0)
    }
}
