//! Images on this node: loaded from archives, unpacked once, found by name. Nothing is ever pulled from a registry.

mod archive;
mod name;
mod stream;
mod unpack;
mod user;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

use self::archive::{BYTES_MAX, Found, Hashing, Spool, decompress};

const INDEX: &str = "index.json";
const LAYERS: &str = "layers";
const TEMPORARY: &str = "tmp";

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

/// The file that names images; everything it names is complete and durable.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    images: Vec<Image>,
    /// Bytes of each layer.
    layer_bytes: BTreeMap<String, u64>,
}

// === impl ImageStore ===

impl ImageStore {
    /// Opens or makes the store in `root` and removes what an interrupted load left.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let store = Self { root: Arc::new(root.to_owned()) };
        let empty = store.layers_dir().join(EMPTY_LAYER);
        fs::create_dir_all(&empty).map_err(io_error("cannot make", &empty))?;
        // Images may hold programs that raise privileges; nobody but root reaches them from the host.
        set_mode(root, 0o700)?;
        set_mode(&empty, 0o755)?;
        let lock = store.lock_file()?;
        // Held: another process is loading, and its temporary files are its own.
        if lock.try_lock().is_ok() {
            store.clear_temporary()?;
        }
        Ok(store)
    }

    /// Reads a tar archive (OCI layout or `docker save`, gzip accepted) to its end and keeps every image in it, all or none.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<Image>, ImageError> {
        let (reader, pump) = stream::blocking(archive);
        let store = self.clone();
        let pump = tokio::spawn(pump);
        let result = blocking(move || store.load_archive(reader)).await;
        pump.abort();
        result
    }

    /// All images, sorted by identity.
    pub async fn list(&self) -> Result<Vec<Image>, ImageError> {
        let store = self.clone();
        blocking(move || Ok(store.index()?.images)).await
    }

    /// The image called `name` (short forms are completed as Docker does; an identity or its first 12 digits work too).
    pub async fn resolve(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || store.resolve_now(&name)).await
    }

    /// The user an image runs as: its `USER` looked up in its own `/etc/passwd` and `/etc/group` (uid, gid, further groups).
    pub async fn user_of(&self, image: &Image) -> Result<(u32, u32, Vec<u32>), ImageError> {
        let (store, image) = (self.clone(), image.clone());
        blocking(move || user::of_image(&store, &image)).await
    }

    /// Forgets one name; an image without names, and layers without images, go at the next [`ImageStore::collect`].
    pub async fn remove(&self, name: &str) -> Result<bool, ImageError> {
        let (store, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let full = name::normalize(&name).ok_or(ImageError::InvalidName { name })?;
            let _lock = store.lock()?;
            let mut index = store.index()?;
            let before: usize = index.images.iter().map(|image| image.names.len()).sum();
            index.images.iter_mut().for_each(|image| image.names.retain(|n| *n != full));
            let after: usize = index.images.iter().map(|image| image.names.len()).sum();
            store.write_index(&index)?;
            Ok(after != before)
        })
        .await
    }

    /// Deletes images without names and layers no image and none of `in_use` needs; answers the freed bytes.
    pub async fn collect(&self, in_use: &[String]) -> Result<u64, ImageError> {
        let (store, in_use) = (self.clone(), in_use.to_vec());
        blocking(move || store.collect_now(in_use)).await
    }

    /// Like [`ImageStore::resolve`], on this thread.
    pub(crate) fn resolve_now(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let mut images = self.index()?.images;
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        if digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let by_id = |image: &Image| image.id["sha256:".len()..].starts_with(digits);
            if let Some(found) = images.iter().position(by_id) {
                return Ok(Some(images.swap_remove(found)));
            }
        }
        let full = name::normalize(name).ok_or_else(|| ImageError::InvalidName { name: name.to_owned() })?;
        let found = images.iter().position(|image| image.names.contains(&full));
        Ok(found.map(|found| images.swap_remove(found)))
    }

    /// uid, gid and further groups, on this thread; of `uid` if given, else of the image's `USER`.
    pub(crate) fn user_now(
        &self,
        image: &Image,
        uid: Option<u32>,
    ) -> Result<(u32, u32, Vec<u32>), ImageError> {
        match uid {
            None => user::of_image(self, image),
            Some(uid) => user::groups_of(self, image, uid).map(|(gid, groups)| (uid, gid, groups)),
        }
    }

    /// Directory that holds all layers.
    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join(LAYERS)
    }

    fn load_archive(&self, reader: impl io::Read) -> Result<Vec<Image>, ImageError> {
        let _lock = self.lock()?;
        self.clear_temporary()?;
        let result = self.load_locked(reader);
        let cleared = self.clear_temporary();
        let images = result?;
        cleared.map(|()| images)
    }

    fn load_locked(&self, reader: impl io::Read) -> Result<Vec<Image>, ImageError> {
        let temporary = self.root.join(TEMPORARY);
        let spool_dir = temporary.join("spool");
        fs::create_dir_all(&spool_dir).map_err(io_error("cannot make", &spool_dir))?;
        let found = Spool::read(reader, &spool_dir)?.images()?;
        let (mut index, mut left) = (self.index()?, BYTES_MAX);
        for image in &found {
            for (digest, file) in &image.layers {
                if !index.layer_bytes.contains_key(digest) {
                    let bytes = self.add_layer(digest, file, &temporary, left)?;
                    left -= bytes;
                    index.layer_bytes.insert(digest.clone(), bytes);
                }
            }
        }
        sync(&self.layers_dir())?;
        let loaded: Vec<Image> = found.into_iter().map(|image| index.add(image)).collect();
        self.write_index(&index)?;
        Ok(loaded)
    }

    /// Unpacks one layer beside the others and moves it in once it is whole, verified and durable.
    fn add_layer(
        &self,
        digest: &str,
        file: &Path,
        temporary: &Path,
        bytes_max: u64,
    ) -> Result<u64, ImageError> {
        let target = self.layers_dir().join(layer_dir(digest)?);
        let fresh = temporary.join("layer");
        for left in [&fresh, &target] {
            remove_tree(left)?;
        }
        fs::create_dir(&fresh).map_err(io_error("cannot make", &fresh))?;
        set_mode(&fresh, 0o755)?;
        let compressed = File::open(file).map_err(io_error("cannot open", file))?;
        let plain = decompress(io::BufReader::with_capacity(128 << 10, compressed))
            .map_err(|error| ImageError::Refused(format!("a layer cannot be read: {error}")))?;
        let mut plain = Hashing::new(plain);
        let bytes = unpack::unpack(&mut plain, &fresh, bytes_max)?;
        let actual = plain.finish().map_err(|e| ImageError::Refused(format!("a layer is damaged: {e}")))?;
        if actual != digest {
            let text = format!("a layer has the digest {actual} instead of {digest}: the archive is damaged");
            return Err(ImageError::Refused(text));
        }
        sync(&fresh)?;
        fs::rename(&fresh, &target).map_err(io_error("cannot keep", &target))?;
        Ok(bytes)
    }

    fn collect_now(&self, in_use: Vec<String>) -> Result<u64, ImageError> {
        let _lock = self.lock()?;
        let mut index = self.index()?;
        index.images.retain(|image| !image.names.is_empty());
        let needed: HashSet<String> =
            index.images.iter().flat_map(|image| image.layers.iter().cloned()).chain(in_use).collect();
        let unneeded: Vec<_> = index.layer_bytes.keys().filter(|d| !needed.contains(*d)).cloned().collect();
        let freed = unneeded.iter().filter_map(|digest| index.layer_bytes.remove(digest)).sum();
        // First forgotten, then deleted: an interruption leaves files nobody names, never a name without files.
        self.write_index(&index)?;
        for digest in &unneeded {
            remove_tree(&self.layers_dir().join(layer_dir(digest)?))?;
        }
        Ok(freed)
    }

    fn index(&self) -> Result<Index, ImageError> {
        let path = self.root.join(INDEX);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| io_error("cannot understand", &path)(io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(io_error("cannot read", &path)(error)),
        }
    }

    fn write_index(&self, index: &Index) -> Result<(), ImageError> {
        let (path, fresh) = (self.root.join(INDEX), self.root.join("index.json.tmp"));
        let bytes = serde_json::to_vec(index).map_err(|e| io_error("cannot write", &path)(e.into()))?;
        fs::write(&fresh, bytes).map_err(io_error("cannot write", &fresh))?;
        sync(&fresh)?;
        fs::rename(&fresh, &path).map_err(io_error("cannot replace", &path))?;
        sync(&self.root)
    }

    fn lock_file(&self) -> Result<File, ImageError> {
        let path = self.root.join("lock");
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        options.map_err(io_error("cannot open", &path))
    }

    fn lock(&self) -> Result<File, ImageError> {
        let file = self.lock_file()?;
        file.lock().map_err(io_error("cannot lock", &self.root))?;
        Ok(file)
    }

    fn clear_temporary(&self) -> Result<(), ImageError> {
        let path = self.root.join(TEMPORARY);
        remove_tree(&path)?;
        fs::create_dir(&path).map_err(io_error("cannot make", &path))
    }
}

// === impl Index ===

impl Index {
    /// Adds an image and takes its names away from others.
    fn add(&mut self, found: Found) -> Image {
        let mut names = found.names;
        for other in &mut self.images {
            other.names.retain(|name| !names.contains(name));
        }
        if let Some(same) = self.images.iter().position(|other| other.id == found.id) {
            names.append(&mut self.images.remove(same).names);
            names.sort();
        }
        let layers: Vec<String> = found.layers.into_iter().map(|(digest, _)| digest).collect();
        let size_bytes = layers.iter().filter_map(|digest| self.layer_bytes.get(digest)).sum();
        let image = Image {
            id: found.id,
            names,
            size_bytes,
            loaded_at: Timestamp::now(),
            config: found.config,
            layers,
        };
        self.images.push(image.clone());
        self.images.sort_by(|a, b| a.id.cmp(&b.id));
        image
    }
}

/// Lowest layer of an image that has none: overlayfs wants one.
pub(crate) const EMPTY_LAYER: &str = "empty";

/// Directory name of a layer. Half of the digest is enough to tell layers apart and keeps the mount options of 100 layers below one page.
pub(crate) fn layer_dir(digest: &str) -> Result<&str, ImageError> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(|hex| &hex[..32])
        .ok_or_else(|| ImageError::Refused(format!("\"{digest}\" is not a layer digest")))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io_error("cannot set the mode of", path))
}

fn sync(path: &Path) -> Result<(), ImageError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("cannot make durable", path))
}

fn remove_tree(path: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", path)(error)),
        _ => Ok(()),
    }
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let context = format!("{what} {}", path.display());
    move |source| ImageError::Io { context, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(ImageError::Io { context: "the image store stopped".into(), source: io::Error::other(error) })
    })
}
