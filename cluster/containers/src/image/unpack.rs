//! Turns a layer's tar stream into a directory overlayfs can use. Nothing in the stream can reach outside that directory: every path is resolved
//! by the kernel with the directory as root, and names with `..` are refused. OCI image specification, "Image Layer Filesystem Changeset".

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, fsync, linkat, symlinkat, unlinkat};
use tar::{Entry, EntryType};

use super::ImageError;
use crate::sys;

/// More entries than any sensible image has in one layer. Own choice.
const ENTRIES_MAX: usize = 1 << 20;
/// Above this many files one `syncfs` is cheaper than an `fsync` each. Own choice.
const FSYNC_FILES_MAX: usize = 64;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks an uncompressed layer into the empty directory `root` and makes it durable; answers the bytes of its files.
/// `bytes_max` bounds them.
pub(crate) fn unpack(layer: impl Read, root: &Path, bytes_max: u64) -> Result<u64, ImageError> {
    let handle = open_root(root)?;
    let mut unpacker = Unpacker { root: handle, bytes: 0, bytes_max, files: 0 };
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().map_err(damaged)?;
    for (count, entry) in entries.enumerate() {
        if count >= ENTRIES_MAX {
            return Err(ImageError::Refused(format!("a layer has more than {ENTRIES_MAX} entries")));
        }
        unpacker.entry(&mut entry.map_err(damaged)?)?;
    }
    if unpacker.files > FSYNC_FILES_MAX {
        nix::unistd::syncfs(&unpacker.root).map_err(|e| failed(root, e))?;
    }
    Ok(unpacker.bytes)
}

struct Unpacker {
    root: OwnedFd,
    bytes: u64,
    bytes_max: u64,
    files: usize,
}

/// A directory and the name of an entry in it.
struct Place {
    parent: OwnedFd,
    name: PathBuf,
}

// === impl Unpacker ===

impl Unpacker {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), ImageError> {
        let path = relative(&entry.path().map_err(damaged)?)?;
        let kind = entry.header().entry_type();
        let Some(place) = self.place(&path)? else {
            // The root itself: only its metadata counts.
            return if kind.is_dir() {
                self.metadata(entry, &self.root, Path::new("."), true)
            } else {
                Ok(())
            };
        };
        if place.name.as_os_str().as_bytes().starts_with(WHITEOUT) {
            return whiteout(&place).map_err(|e| failed(&path, e));
        }
        if kind.is_dir() {
            make_directory(&place).map_err(|e| failed(&path, e))?;
            return self.metadata(entry, &place.parent, &place.name, true);
        }
        clear(&place).map_err(|e| failed(&path, e))?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &place, &path)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(damaged)?.ok_or_else(|| no_target(&path))?;
                symlinkat(target.as_ref(), &place.parent, &place.name).map_err(|e| failed(&path, e))?;
            }
            EntryType::Link => return self.hard_link(entry, &place, &path),
            EntryType::Fifo | EntryType::Char | EntryType::Block => node(entry, &place, &path)?,
            EntryType::XGlobalHeader => return Ok(()),
            other => {
                let text = format!("entry \"{}\" has the unsupported type {other:?}", path.display());
                return Err(ImageError::Refused(text));
            }
        }
        self.metadata(entry, &place.parent, &place.name, false)
    }

    /// Finds the directory of `path`, making missing ones; `None` for the root.
    fn place(&self, path: &Path) -> Result<Option<Place>, ImageError> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let mut parent = PathBuf::new();
        let mut handle = self.resolve(Path::new(".")).map_err(|e| failed(path, e))?;
        for component in path.parent().into_iter().flat_map(Path::components) {
            parent.push(component);
            handle = match self.resolve(&parent) {
                Err(Errno::ENOENT) => {
                    let made = mkdirat(&handle, component.as_os_str(), Mode::from_bits_truncate(0o755));
                    made.and_then(|()| self.resolve(&parent)).map_err(|e| failed(path, e))?
                }
                result => result.map_err(|e| failed(path, e))?,
            };
        }
        Ok(Some(Place { parent: handle, name: name.into() }))
    }

    fn resolve(&self, path: &Path) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat2(&self.root, path, OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT))
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        place: &Place,
        path: &Path,
    ) -> Result<(), ImageError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&place.parent, &place.name, flags, Mode::from_bits_truncate(0o600));
        let mut file = std::fs::File::from(file.map_err(|e| failed(path, e))?);
        let left = self.bytes_max - self.bytes;
        let copied = io::copy(&mut entry.by_ref().take(left + 1), &mut file);
        let copied = copied.map_err(|source| unpack_error(path, source))?;
        if copied > left {
            return Err(ImageError::Refused(format!(
                "the image unpacks to more than {} bytes",
                self.bytes_max
            )));
        }
        self.bytes += copied;
        self.files += 1;
        if self.files <= FSYNC_FILES_MAX {
            fsync(&file).map_err(|e| failed(path, e))?;
        }
        Ok(())
    }

    fn hard_link(&self, entry: &Entry<'_, impl Read>, place: &Place, path: &Path) -> Result<(), ImageError> {
        let target = entry.link_name().map_err(damaged)?.ok_or_else(|| no_target(path))?;
        let target = relative(&target)?;
        let source = self.place(&target)?.ok_or_else(|| no_target(path))?;
        let (from, to) = (&source.parent, &place.parent);
        linkat(from, &source.name, to, &place.name, LinkatFlags::empty()).map_err(|e| failed(path, e))
    }

    fn metadata(
        &self,
        entry: &mut Entry<'_, impl Read>,
        parent: &OwnedFd,
        name: &Path,
        directory: bool,
    ) -> Result<(), ImageError> {
        let header = entry.header();
        let owner = |id: u64| u32::try_from(id).map_err(|_| damaged(io::ErrorKind::InvalidData.into()));
        let (uid, gid) = (owner(header.uid().map_err(damaged)?)?, owner(header.gid().map_err(damaged)?)?);
        let (mode, seconds) = (header.mode().map_err(damaged)?, header.mtime().map_err(damaged)?);
        let link = header.entry_type().is_symlink();
        let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(parent, name, ids.0, ids.1, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| failed(name, e))?;
        if !link {
            let mode = Mode::from_bits_truncate(mode & 0o7777);
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).map_err(|e| failed(name, e))?;
        }
        if !directory && !link {
            attributes(entry, parent, name)?;
        }
        let time = TimeSpec::new(i64::try_from(seconds).unwrap_or(0), 0);
        utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(|e| failed(name, e))
    }
}

/// Extended attributes, of which images use `security.capability`.
fn attributes(entry: &mut Entry<'_, impl Read>, parent: &OwnedFd, name: &Path) -> Result<(), ImageError> {
    let Some(extensions) = entry.pax_extensions().map_err(damaged)? else { return Ok(()) };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension.map_err(damaged)?;
        // Only these two namespaces mean anything inside an image; others could speak to overlayfs itself.
        if let Some(key) = extension.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr."))
            && (key == "security.capability" || key.starts_with("user."))
        {
            found.push((key.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = openat(parent, name, flags, Mode::empty()).map_err(|e| failed(name, e))?;
    for (key, value) in found {
        sys::set_xattr(file.as_fd(), &key, &value).map_err(|source| unpack_error(name, source))?;
    }
    Ok(())
}

/// Docker's whiteouts in overlayfs' form: a 0/0 character device hides a name, an attribute hides a directory's lower content.
fn whiteout(place: &Place) -> io::Result<()> {
    let name = place.name.as_os_str().as_bytes();
    if name == OPAQUE {
        return sys::set_xattr(place.parent.as_fd(), "trusted.overlay.opaque", b"y");
    }
    let hidden = Path::new(OsStr::from_bytes(&name[WHITEOUT.len()..]));
    // `.wh..wh.` names are bookkeeping of aufs.
    if hidden.as_os_str().is_empty()
        || name[WHITEOUT.len()..].starts_with(WHITEOUT)
        || hidden == Path::new("..")
    {
        return Ok(());
    }
    let hidden = Place { parent: place.parent.try_clone()?, name: hidden.to_owned() };
    clear(&hidden)?;
    Ok(mknodat(&hidden.parent, &hidden.name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?)
}

fn node(entry: &Entry<'_, impl Read>, place: &Place, path: &Path) -> Result<(), ImageError> {
    let header = entry.header();
    let kind = match header.entry_type() {
        EntryType::Char => SFlag::S_IFCHR,
        EntryType::Block => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let major = header.device_major().map_err(damaged)?.unwrap_or(0);
    let minor = header.device_minor().map_err(damaged)?.unwrap_or(0);
    let device = makedev(u64::from(major), u64::from(minor));
    mknodat(&place.parent, &place.name, kind, Mode::from_bits_truncate(0o600), device)
        .map_err(|e| failed(path, e))
}

fn make_directory(place: &Place) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(0o755);
    match mkdirat(&place.parent, &place.name, mode) {
        Err(Errno::EEXIST) => {}
        result => return Ok(result?),
    }
    let stat = fstatat(&place.parent, &place.name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
        return Ok(());
    }
    clear(place)?;
    Ok(mkdirat(&place.parent, &place.name, mode)?)
}

/// Removes an earlier entry of the same name in the same layer. A directory with content stays and makes the next step fail.
fn clear(place: &Place) -> io::Result<()> {
    match unlinkat(&place.parent, &place.name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => Ok(unlinkat(&place.parent, &place.name, UnlinkatFlags::RemoveDir)?),
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The path below the root; refuses `..`.
fn relative(path: &Path) -> Result<PathBuf, ImageError> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(ImageError::Refused(format!("entry \"{}\" leaves the image", path.display())));
            }
        }
    }
    Ok(out)
}

fn open_root(root: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    nix::fcntl::open(root, flags, Mode::empty()).map_err(|e| failed(root, e))
}

fn damaged(source: io::Error) -> ImageError {
    match source.raw_os_error() {
        // The stream itself cannot be read as what it claims to be.
        None => ImageError::Refused(format!("a layer is damaged: {source}")),
        Some(_) => ImageError::Io { context: "cannot read a layer".into(), source },
    }
}

fn no_target(path: &Path) -> ImageError {
    ImageError::Refused(format!("link \"{}\" has no target", path.display()))
}

fn failed(path: &Path, error: impl Into<io::Error>) -> ImageError {
    unpack_error(path, error.into())
}

fn unpack_error(path: &Path, source: io::Error) -> ImageError {
    match source.raw_os_error() {
        None => damaged(source),
        Some(_) => ImageError::Io { context: format!("cannot unpack \"{}\"", path.display()), source },
    }
}
