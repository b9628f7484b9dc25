//! The container's view of files: overlay root, mounts, device nodes, hidden and read-only paths. Runs in the new mount namespace, so nothing
//! of it is ever visible on the host and all of it goes with the container.
//!
//! Host paths are opened as detached mounts first. Then the root is changed, and only then are they attached: no symbolic link of an image can
//! lead outside, because there is no outside any more.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chdir, chown, pivot_root};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount, Spec};

use super::{Result, at};
use crate::record::{Rootfs, ShimConfig};
use crate::sys;

/// Present in every container, OCI runtime specification "Default Devices".
const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// A host path opened before the root changed.
struct Source {
    tree: OwnedFd,
    directory: bool,
}

/// Builds the view below `bundle/rootfs` and makes it the root of this process.
pub(super) fn enter(config: &ShimConfig, spec: &Spec, bundle: &Path, allow_devices: bool) -> Result<()> {
    let none = None::<&str>;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let sources = mounts.iter().map(source).collect::<Result<Vec<_>>>()?;
    at(
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none),
        "cannot detach from the host's mounts",
    )?;
    let rootfs = bundle.join("rootfs");
    overlay(&config.rootfs, &rootfs, allow_devices)?;
    at(chdir(&rootfs), "cannot enter the root file system")?;
    at(pivot_root(".", "."), "cannot change the root")?;
    at(umount2(".", MntFlags::MNT_DETACH), "cannot leave the old root")?;
    at(chdir("/"), "cannot enter the new root")?;
    let linux = spec.linux().as_ref();
    let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    for (wanted, source) in mounts.iter().zip(sources) {
        let target = wanted.destination();
        let done = match source {
            Some(source) => bind(wanted, source),
            None => special(wanted),
        };
        at(done, format_args!("cannot mount {}", target.display()))?;
        if target == Path::new("/dev") && wanted.typ().as_deref() == Some("tmpfs") {
            at(nodes(devices), "cannot make device nodes")?;
        }
    }
    let paths = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    for path in paths(linux.and_then(|linux| linux.readonly_paths().as_ref())) {
        at(make_readonly(Path::new(&path)), format_args!("cannot protect {path}"))?;
    }
    for path in paths(linux.and_then(|linux| linux.masked_paths().as_ref())) {
        at(mask(Path::new(&path)), format_args!("cannot hide {path}"))?;
    }
    let cwd = spec.process().as_ref().map_or(Path::new("/"), |process| process.cwd());
    at(make_directories(cwd, 0), format_args!("cannot make the working directory {}", cwd.display()))?;
    if spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        at(mount(none, "/", none, flags, none), "cannot make the root read-only")?;
    }
    Ok(())
}

fn overlay(rootfs: &Rootfs, target: &Path, allow_devices: bool) -> Result<()> {
    at(chdir(&rootfs.layers_dir), "cannot enter the layers")?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.lower.join(":"),
        rootfs.upper.display(),
        rootfs.work.display()
    );
    let flags = if allow_devices { MsFlags::empty() } else { MsFlags::MS_NODEV };
    let mounted = mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()));
    at(mounted, "cannot mount the layers of the image")
}

fn source(wanted: &Mount) -> Result<Option<Source>> {
    if wanted.typ().as_deref() != Some("bind") {
        return Ok(None);
    }
    let path = wanted.source().clone().unwrap_or_default();
    let what = || format!("cannot mount {} at {}", path.display(), wanted.destination().display());
    let directory = at(fs::metadata(&path), what())?.is_dir();
    let tree = at(sys::open_tree(&path), what())?;
    Ok(Some(Source { tree, directory }))
}

fn bind(wanted: &Mount, source: Source) -> io::Result<()> {
    let (mut attributes, mut propagation) = (0, MsFlags::empty());
    for option in wanted.options().iter().flatten() {
        match option.as_str() {
            "ro" => attributes |= sys::MOUNT_ATTR_RDONLY,
            "nosuid" => attributes |= sys::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= sys::MOUNT_ATTR_NODEV,
            "noexec" => attributes |= sys::MOUNT_ATTR_NOEXEC,
            "private" | "rprivate" => propagation = MsFlags::MS_PRIVATE,
            "slave" | "rslave" => propagation = MsFlags::MS_SLAVE,
            "shared" | "rshared" => propagation = MsFlags::MS_SHARED,
            _ => {}
        }
    }
    let target = wanted.destination();
    mount_point(target, source.directory)?;
    sys::mount_setattr(source.tree.as_fd(), attributes, propagation.bits())?;
    sys::move_mount(source.tree.as_fd(), target)
}

fn special(wanted: &Mount) -> io::Result<()> {
    let target = wanted.destination();
    mount_point(target, true)?;
    let (mut flags, mut readonly, mut data) = (MsFlags::empty(), false, Vec::new());
    for option in wanted.options().iter().flatten() {
        match option.as_str() {
            "ro" => readonly = true,
            "rw" => {}
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            other => data.push(other),
        }
    }
    let (source, data) = (wanted.source().as_deref(), data.join(","));
    mount(source, target, wanted.typ().as_deref(), flags, Some(data.as_str()))?;
    if readonly {
        // Of this mount only: the same file system may be mounted elsewhere, writable.
        let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// Makes the place to mount on, if it is missing.
fn mount_point(target: &Path, directory: bool) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    make_directories(if directory { target } else { parent }, 0)?;
    if directory {
        return Ok(());
    }
    File::options().create(true).append(true).open(target).map(drop)
}

/// Like `create_dir_all`, but makes what dangling links of the image point to: `/var/run` is often a link to a `/run` that is not there.
fn make_directories(path: &Path, depth: usize) -> io::Result<()> {
    const DEPTH_MAX: usize = 40;
    if path.is_dir() {
        return Ok(());
    }
    if depth > DEPTH_MAX {
        return Err(Errno::ELOOP.into());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    make_directories(parent, depth + 1)?;
    match fs::read_link(path) {
        Ok(link) => make_directories(&parent.join(link), depth + 1),
        Err(_) => fs::create_dir(path),
    }
}

fn nodes(devices: &[LinuxDevice]) -> io::Result<()> {
    let dev = Path::new("/dev");
    for (name, major, minor) in NODES {
        mknod(&dev.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    }
    for (target, name) in LINKS {
        symlink(target, dev.join(name))?;
    }
    for device in devices {
        let kind = match device.typ() {
            LinuxDeviceType::B => SFlag::S_IFBLK,
            _ => SFlag::S_IFCHR,
        };
        fs::create_dir_all(device.path().parent().unwrap_or(dev))?;
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let mode = Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666));
        match mknod(device.path(), kind, mode, makedev(number(device.major()), number(device.minor()))) {
            Ok(()) => {}
            Err(Errno::EEXIST) => continue,
            Err(error) => return Err(error.into()),
        }
        let (uid, gid) = (device.uid().map(Uid::from_raw), device.gid().map(Gid::from_raw));
        chown(device.path(), uid, gid)?;
    }
    Ok(())
}

fn make_readonly(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let tree = sys::open_tree(path)?;
    sys::mount_setattr(tree.as_fd(), sys::MOUNT_ATTR_RDONLY, 0)?;
    sys::move_mount(tree.as_fd(), path)
}

fn mask(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("size=0k"))?)
        }
        Ok(_) => Ok(mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?),
    }
}
