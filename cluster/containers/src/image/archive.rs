//! Reads image archives: OCI layouts and `docker save`. Everything is spooled to a directory, checked, and only then described.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{ImageConfig, ImageError};

/// Largest archive, and largest image once unpacked. Own choice.
pub(crate) const BYTES_MAX: u64 = 16 << 30;
const FILES_MAX: usize = 4096;
const JSON_BYTES_MAX: u64 = 4 << 20;
/// Bounded by overlayfs' mount options, see [`super::layer_dir`]. Docker stops at 127.
const LAYERS_MAX: usize = 100;

/// An archive on disk: the path inside of each file, and where it is now.
#[derive(Debug)]
pub(crate) struct Spool {
    files: HashMap<PathBuf, Spooled>,
    links: HashMap<PathBuf, PathBuf>,
}

#[derive(Debug)]
struct Spooled {
    path: PathBuf,
    digest: String,
    bytes: u64,
}

/// One image of an archive, ready to be unpacked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) names: Vec<String>,
    pub(crate) config: ImageConfig,
    /// Digest of the uncompressed layer and the file that holds it.
    pub(crate) layers: Vec<(String, PathBuf)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

// === impl Spool ===

impl Spool {
    /// Copies the files of `archive` (tar, possibly gzipped) into `dir`, checking those whose path names their digest.
    pub(crate) fn read(archive: impl Read, dir: &Path) -> Result<Self, ImageError> {
        let archive = decompress(archive).map_err(not_tar)?;
        let mut tar = tar::Archive::new(archive.take(BYTES_MAX));
        let mut spool = Self { files: HashMap::new(), links: HashMap::new() };
        for entry in tar.entries().map_err(not_tar)? {
            let mut entry = entry.map_err(not_tar)?;
            let path = inside(&entry.path().map_err(not_tar)?)?;
            if spool.files.len() + spool.links.len() >= FILES_MAX {
                return Err(ImageError::Refused(format!("more than {FILES_MAX} files")));
            }
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let target = dir.join(spool.files.len().to_string());
                let spooled = copy(&mut entry, target)?;
                check_name(&path, &spooled.digest)?;
                spool.files.insert(path, spooled);
            } else if kind.is_symlink() || kind.is_hard_link() {
                let name = entry.link_name().map_err(not_tar)?.unwrap_or_default().into_owned();
                let base =
                    if kind.is_symlink() { path.parent().unwrap_or(Path::new("")) } else { Path::new("") };
                let target = follow(base, &name)?;
                spool.links.insert(path, target);
            }
        }
        Ok(spool)
    }

    /// Every image in the archive for this machine.
    pub(crate) fn images(&self) -> Result<Vec<Found>, ImageError> {
        let found = if self.files.contains_key(Path::new("manifest.json")) {
            let manifests: Vec<DockerManifest> = self.json(Path::new("manifest.json"))?;
            manifests.into_iter().map(|m| self.docker(m)).collect::<Result<Vec<_>, _>>()?
        } else if self.files.contains_key(Path::new("index.json")) {
            let index: ImageIndex = self.json(Path::new("index.json"))?;
            self.index(&index, None, 0)?
        } else {
            return Err(ImageError::Refused(
                "neither index.json (OCI layout) nor manifest.json (docker save) is in it".into(),
            ));
        };
        if found.is_empty() {
            return Err(ImageError::Refused(format!("no image in it is for linux/{}", machine())));
        }
        Ok(found)
    }

    fn docker(&self, manifest: DockerManifest) -> Result<Found, ImageError> {
        let config = inside(&manifest.config)?;
        let layers = manifest.layers.iter().map(|path| inside(path)).collect::<Result<Vec<_>, _>>()?;
        self.found(&config, manifest.repo_tags.unwrap_or_default(), layers)
    }

    fn index(&self, index: &ImageIndex, name: Option<&str>, depth: u8) -> Result<Vec<Found>, ImageError> {
        let mut found = Vec::new();
        for descriptor in index.manifests() {
            let name = image_name(descriptor).or(name.map(str::to_owned));
            let for_us = descriptor.platform().as_ref().is_none_or(|p| p.architecture() == &machine());
            match descriptor.media_type() {
                MediaType::ImageIndex if depth < 2 => {
                    found.extend(self.index(&self.blob(descriptor)?, name.as_deref(), depth + 1)?);
                }
                MediaType::ImageManifest if for_us => found.push(self.oci(descriptor, name)?),
                // Docker's own media types describe the same documents.
                MediaType::Other(kind) if kind.contains("manifest.list") && depth < 2 => {
                    found.extend(self.index(&self.blob(descriptor)?, name.as_deref(), depth + 1)?);
                }
                MediaType::Other(kind) if kind.contains("distribution.manifest.v2") && for_us => {
                    found.push(self.oci(descriptor, name)?);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn oci(&self, descriptor: &Descriptor, name: Option<String>) -> Result<Found, ImageError> {
        let manifest: ImageManifest = self.blob(descriptor)?;
        let layers = manifest.layers().iter().map(blob_path).collect::<Result<Vec<_>, _>>()?;
        self.found(&blob_path(manifest.config())?, name.into_iter().collect(), layers)
    }

    fn found(&self, config: &Path, names: Vec<String>, layers: Vec<PathBuf>) -> Result<Found, ImageError> {
        let parsed: ImageConfiguration = self.json(config)?;
        if parsed.architecture() != &machine() {
            let text =
                format!("it is for linux/{}, this machine is linux/{}", parsed.architecture(), machine());
            return Err(ImageError::Refused(text));
        }
        let diff_ids = parsed.rootfs().diff_ids();
        if diff_ids.len() != layers.len() {
            let text = format!("{} layers, but the configuration names {}", layers.len(), diff_ids.len());
            return Err(ImageError::Refused(text));
        }
        if layers.len() > LAYERS_MAX {
            return Err(ImageError::Refused(format!("more than {LAYERS_MAX} layers")));
        }
        let names = names.iter().map(|name| super::name::normalize(name).ok_or_else(|| bad_name(name)));
        let mut names = names.collect::<Result<Vec<_>, _>>()?;
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(ImageError::Refused(
                "the image has no name: save it by its tag, not by its ID".into(),
            ));
        }
        let id = format!("sha256:{}", self.file(config)?.digest);
        let layers = layers.iter().map(|path| self.file(path).map(|file| file.path.clone()));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let layers = diff_ids.iter().cloned().zip(layers).collect();
        Ok(Found { id, names, config: image_config(&parsed), layers })
    }

    fn blob<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, ImageError> {
        self.json(&blob_path(descriptor)?)
    }

    fn file(&self, path: &Path) -> Result<&Spooled, ImageError> {
        let mut path = path;
        // `docker save` writes a layer once and links further uses to it; links to links do not occur.
        if let Some(target) = self.links.get(path) {
            path = target;
        }
        self.files.get(path).ok_or_else(|| ImageError::Refused(format!("\"{}\" is missing", path.display())))
    }

    fn json<T: DeserializeOwned>(&self, path: &Path) -> Result<T, ImageError> {
        let file = self.file(path)?;
        if file.bytes > JSON_BYTES_MAX {
            return Err(ImageError::Refused(format!("\"{}\" is too large", path.display())));
        }
        let bytes = fs::read(&file.path).map_err(spool_error)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::Refused(format!("\"{}\" cannot be read: {error}", path.display())))
    }
}

/// Opens a stream that may be gzipped.
pub(crate) fn decompress<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(4);
    stream.by_ref().take(4).read_to_end(&mut magic)?;
    let kind = magic.clone();
    let whole = io::Cursor::new(magic).chain(stream);
    match kind.as_slice() {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Err(io::Error::other("zstd compression is not supported, save it with gzip or uncompressed"))
        }
        _ => Ok(Box::new(whole)),
    }
}

/// Counts and hashes what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

// === impl Hashing ===

impl<R: Read> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// Reads the rest and answers `sha256:…` of everything.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex(&self.hash.finalize())))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hash.update(&buf[..count]);
        Ok(count)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn copy(entry: &mut impl Read, path: PathBuf) -> Result<Spooled, ImageError> {
    let mut file = File::create(&path).map_err(spool_error)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 128 << 10]);
    loop {
        let count = entry.read(&mut buffer).map_err(not_tar)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(spool_error)?;
        bytes += count as u64;
    }
    Ok(Spooled { path, digest: hex(&hash.finalize()), bytes })
}

/// A file below `blobs/sha256` must be what its name says.
fn check_name(path: &Path, digest: &str) -> Result<(), ImageError> {
    match path.strip_prefix("blobs/sha256") {
        Ok(name) if name != Path::new(digest) => {
            let text = format!("blob {} has the digest {digest}: the archive is damaged", name.display());
            Err(ImageError::Refused(text))
        }
        _ => Ok(()),
    }
}

fn inside(path: &Path) -> Result<PathBuf, ImageError> {
    follow(Path::new(""), path)
}

/// `base/path` without dots; refuses what leaves the archive.
fn follow(base: &Path, path: &Path) -> Result<PathBuf, ImageError> {
    let mut out = base.to_owned();
    for component in path.components() {
        let left = match component {
            Component::Normal(name) => {
                out.push(name);
                true
            }
            Component::CurDir => true,
            Component::ParentDir => out.pop(),
            Component::RootDir | Component::Prefix(_) => false,
        };
        if !left {
            return Err(ImageError::Refused(format!("\"{}\" leaves the archive", path.display())));
        }
    }
    Ok(out)
}

fn blob_path(descriptor: &Descriptor) -> Result<PathBuf, ImageError> {
    let digest = descriptor.digest().to_string();
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Path::new("blobs/sha256").join(hex)),
        _ => Err(ImageError::Refused(format!("digest \"{digest}\" is not supported"))),
    }
}

fn image_name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    keys.iter().find_map(|key| annotations.get(*key)).cloned()
}

fn image_config(parsed: &ImageConfiguration) -> ImageConfig {
    let Some(config) = parsed.config() else { return ImageConfig::default() };
    let list = |value: &Option<Vec<String>>| value.clone().unwrap_or_default();
    let labels: BTreeMap<_, _> = config.labels().clone().unwrap_or_default().into_iter().collect();
    let mut exposed_ports = list(config.exposed_ports());
    exposed_ports.sort();
    ImageConfig {
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        env: list(config.env()),
        user: config.user().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        stop_signal: config.stop_signal().clone(),
        labels,
        exposed_ports,
    }
}

fn machine() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::ARM64 } else { Arch::Amd64 }
}

fn bad_name(name: &str) -> ImageError {
    ImageError::Refused(format!("\"{name}\" is not an image name"))
}

fn not_tar(source: io::Error) -> ImageError {
    ImageError::Refused(format!("not a readable tar archive: {source}"))
}

fn spool_error(source: io::Error) -> ImageError {
    ImageError::Io { context: "cannot keep the archive while it is read".into(), source }
}
