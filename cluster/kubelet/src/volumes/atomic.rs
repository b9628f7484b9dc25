//! Files that change all at once: a directory whose visible names are links through `..data`, which is swapped by one rename.
//!
//! Layout, as Kubernetes' kubelet writes it: `..<time>/` holds the files, `..data` points to it, each top-level name points into `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner, when it is not root.
    pub(crate) uid: Option<u32>,
}

/// Files by relative path.
pub(crate) type Payload = BTreeMap<String, File>;

/// Whether `path` stays inside the directory it is relative to, and leaves the writer's own names alone.
pub(crate) fn is_safe(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with("..")
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Makes `directory` show exactly `payload`; answers whether anything changed. Readers see the old or the new files, never a mixture.
///
/// `group` owns the files when given.
pub(crate) fn write(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    if let Some(path) = payload.keys().find(|path| !is_safe(path)) {
        let text = format!("path \"{path}\" leaves the volume");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let data = directory.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && shows(&directory.join(old), payload)
    {
        return Ok(false);
    }
    let next = write_files(directory, payload, group)?;
    let link = directory.join(DATA_NEXT);
    remove_if_there(&link)?;
    symlink(&next, &link)?;
    fs::rename(&link, &data)?;
    let names: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &names {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    sweep(directory, &names, &next)?;
    Ok(true)
}

fn write_files(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<PathBuf> {
    let stamp = Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f").to_string();
    let name = PathBuf::from(format!("..{stamp}"));
    let root = directory.join(&name);
    fs::create_dir(&root)?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.data)?;
        if group.is_some() || file.uid.is_some() {
            chown(&target, file.uid, group)?;
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    }
    Ok(name)
}

fn shows(root: &Path, payload: &Payload) -> bool {
    let same = payload.iter().all(|(path, file)| {
        let target = root.join(path);
        fs::read(&target).is_ok_and(|data| data == file.data)
            && fs::metadata(&target).is_ok_and(|meta| meta.permissions().mode() & 0o7777 == file.mode)
    });
    same && count_files(root, 0) == payload.len()
}

/// Number of files below `root`; volumes nest a few levels at most.
fn count_files(root: &Path, depth: usize) -> usize {
    if depth > 32 {
        return 0;
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path(), depth + 1),
            _ => 1,
        })
        .sum()
}

/// Removes visible names and generations that are no longer shown.
fn sweep(directory: &Path, names: &BTreeSet<&str>, current: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let Some(text) = name.to_str() else { continue };
        if text == DATA || names.contains(text) || Path::new(&name) == current {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            remove_if_there(&entry.path())?;
        } else if kind.is_dir() && text.starts_with("..") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |text: &str, mode| File { data: text.as_bytes().to_vec(), mode, uid: None };
        files.iter().map(|(path, text, mode)| ((*path).to_owned(), file(text, *mode))).collect()
    }

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("kubelet-atomic-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn swaps_everything_at_once_and_sweeps() {
        let directory = scratch("swap");
        assert!(write(&directory, &payload(&[("a", "1", 0o644), ("sub/b", "2", 0o400)]), None).unwrap());
        assert_eq!(fs::read_to_string(directory.join("sub/b")).unwrap(), "2");
        let mode = fs::metadata(directory.join("sub/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        assert_eq!(fs::read_link(directory.join("a")).unwrap(), Path::new("..data/a"));
        let first = fs::read_link(directory.join("..data")).unwrap();

        assert!(!write(&directory, &payload(&[("a", "1", 0o644), ("sub/b", "2", 0o400)]), None).unwrap());
        assert_eq!(fs::read_link(directory.join("..data")).unwrap(), first, "same content, same directory");

        assert!(write(&directory, &payload(&[("a", "3", 0o644)]), None).unwrap());
        assert_eq!(fs::read_to_string(directory.join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(directory.join("sub")).is_err());
        assert!(!directory.join(first).exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn refuses_paths_that_leave_the_volume() {
        let directory = scratch("escape");
        for path in ["../x", "/etc/x", "a/../../x", "..data", ""] {
            assert!(write(&directory, &payload(&[(path, "", 0o644)]), None).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }
}
