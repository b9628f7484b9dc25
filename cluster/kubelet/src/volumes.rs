//! A pod's volumes: made before its containers, kept up to date while they run, removed after them.
//!
//! [`payload`] says what a volume holds, [`atomic`] writes it, [`token`] keeps service account tokens fresh, [`mounts`] turns volumes
//! into mounts of a container.

pub(crate) mod atomic;
pub(crate) mod mounts;
pub(crate) mod payload;
pub(crate) mod token;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use self::atomic::Payload;
use self::payload::PayloadError;
use crate::{pod, resources};

/// Room for a volume of secrets: several objects of the API's size limit, twice while they are swapped.
const SECRETS_BYTES_MAX: i64 = 64 << 20;

/// Why a pod's volumes cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Payload { volume: String, source: PayloadError },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    Io { volume: String, source: io::Error },
    #[error(
        "MountVolume.SetUp failed for volume \"{volume}\" : hostPath type check failed: {path} is not a {wanted}"
    )]
    HostPathType { volume: String, path: String, wanted: &'static str },
    #[error("volume \"{0}\" has a source that this node does not support")]
    Unsupported(String),
    #[error(transparent)]
    Unanswered(#[from] crate::objects::Unanswered),
    #[error("failed to fetch token: {0}")]
    Token(#[source] kube::Error),
}

/// The directory of one volume of the pod whose directory is `pod_dir`.
pub(crate) fn directory(pod_dir: &Path, volume: &str) -> PathBuf {
    pod_dir.join("volumes").join(volume)
}

/// Makes or updates every volume of the pod. Blocks on the file system.
pub(crate) fn refresh(pod_dir: &Path, from: &payload::Sources<'_>) -> Result<(), VolumeError> {
    let volumes = pod::spec(from.pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().try_for_each(|volume| refresh_one(pod_dir, volume, from))
}

fn refresh_one(pod_dir: &Path, volume: &Volume, from: &payload::Sources<'_>) -> Result<(), VolumeError> {
    let directory = directory(pod_dir, &volume.name);
    let group = payload::fs_group(from.pod);
    let io = |source| VolumeError::Io { volume: volume.name.clone(), source };
    let filled = |payload: Result<Payload, PayloadError>, memory: bool| {
        let payload =
            payload.map_err(|source| VolumeError::Payload { volume: volume.name.clone(), source })?;
        fs::create_dir_all(&directory).map_err(io)?;
        if memory {
            mount_tmpfs(&directory, Some(SECRETS_BYTES_MAX), 0o755).map_err(io)?;
        }
        let payload = if group.is_some() { group_readable(payload) } else { payload };
        atomic::write(&directory, &payload, group).map(drop).map_err(io)
    };
    if let Some(source) = &volume.config_map {
        filled(payload::config_map(source, from), false)
    } else if let Some(source) = &volume.secret {
        filled(payload::secret(source, from), true)
    } else if let Some(source) = &volume.projected {
        filled(payload::projected(source, from), true)
    } else if let Some(source) = &volume.downward_api {
        filled(payload::downward(source.items.as_deref(), source.default_mode, from), false)
    } else if let Some(source) = &volume.empty_dir {
        let memory = source.medium.as_deref() == Some("Memory");
        let size = source.size_limit.as_ref().and_then(resources::units).filter(|size| *size > 0);
        empty_dir(&directory, memory, size, group).map_err(io)
    } else if let Some(source) = &volume.host_path {
        host_path(&volume.name, source)
    } else {
        Err(VolumeError::Unsupported(volume.name.clone()))
    }
}

/// Files owned by a pod's group are readable by it, as Kubernetes does for read-only volumes.
fn group_readable(mut payload: Payload) -> Payload {
    for file in payload.values_mut() {
        file.mode |= 0o440;
    }
    payload
}

fn empty_dir(directory: &Path, memory: bool, size: Option<i64>, group: Option<u32>) -> io::Result<()> {
    if directory.exists() && (!memory || is_mount_point(directory)) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    if memory {
        mount_tmpfs(directory, size, 0o777)?;
    }
    let mut mode = 0o777;
    if let Some(group) = group {
        chown(directory, None, Some(group))?;
        mode |= 0o2000;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))
}

fn mount_tmpfs(directory: &Path, size: Option<i64>, mode: u32) -> io::Result<()> {
    if is_mount_point(directory) {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(size) = size {
        options.push_str(&format!(",size={size}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), directory, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Whether something is mounted on `directory` itself.
fn is_mount_point(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    directory
        .parent()
        .is_some_and(|parent| device(directory).is_some() && device(directory) != device(parent))
}

fn host_path(volume: &str, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let io = |source| VolumeError::Io { volume: volume.to_owned(), source };
    let found = fs::metadata(path).ok().map(|meta| meta.file_type());
    let kind = source.type_.as_deref().unwrap_or_default();
    let wanted = match kind {
        "DirectoryOrCreate" if found.is_none() => return fs::create_dir_all(path).map_err(io),
        "FileOrCreate" if found.is_none() => return fs::write(path, "").map_err(io),
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => (found.is_some_and(|kind| kind.is_dir()), "directory"),
        "File" | "FileOrCreate" => (found.is_some_and(|kind| kind.is_file()), "file"),
        "Socket" => (found.is_some_and(|kind| kind.is_socket()), "socket"),
        "CharDevice" => (found.is_some_and(|kind| kind.is_char_device()), "character device"),
        "BlockDevice" => (found.is_some_and(|kind| kind.is_block_device()), "block device"),
        _ => return Err(VolumeError::Unsupported(volume.to_owned())),
    };
    match wanted {
        (true, _) => Ok(()),
        (false, wanted) => {
            Err(VolumeError::HostPathType { volume: volume.to_owned(), path: source.path.clone(), wanted })
        }
    }
}

/// Removes all volumes of a pod; what they held is lost. Absent ones are fine. Blocks on the file system.
pub(crate) fn remove(pod_dir: &Path) -> io::Result<()> {
    let root = pod_dir.join("volumes");
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        // Never remove files through a mount that would not go away.
        while is_mount_point(&entry.path()) {
            umount2(&entry.path(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
    }
    fs::remove_dir_all(root)
}

/// Whether the pod's volumes need a service account token, and which.
pub(crate) fn token_asks(pod: &Pod) -> Vec<payload::TokenAsk> {
    let volumes = pod::spec(pod).and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes
        .iter()
        .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref())
        .flatten()
        .filter_map(|source| source.service_account_token.as_ref().map(payload::TokenAsk::of))
        .collect()
}
