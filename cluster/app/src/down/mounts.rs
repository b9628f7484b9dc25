//! Unmounting everything below a directory.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

/// Mounts can lie over each other; each round takes one layer.
const ROUNDS_MAX: usize = 16;

/// Detaches every mount at or below `directory`, innermost first.
pub(super) fn detach(directory: &Path) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
        let mounts = below(&table, directory);
        if mounts.is_empty() {
            return Ok(());
        }
        for mount in mounts {
            match umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                // Gone with another one, which shared it.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot unmount {}", mount.display()));
                }
            }
        }
    }
    bail!("mounts below {} come back", directory.display())
}

/// The mount points at or below `directory`, the last mounted first.
fn below(table: &str, directory: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut mounts: Vec<_> = points.filter(|point| point.starts_with(directory)).collect();
    mounts.reverse();
    mounts
}

/// The kernel writes space, tab, newline and backslash as octal numbers.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                bytes.push(value);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_are_found_innermost_first() {
        let table = "22 1 0:20 / / rw - ext4 /dev/a rw\n\
                     30 22 0:31 / /run/mesh/s/1 rw - tmpfs t rw\n\
                     31 22 0:31 / /run/mesh/s/1/in\\040side rw shared:3 - tmpfs t rw\n\
                     32 22 0:31 / /run/meshes rw - tmpfs t rw\n";
        let found = below(table, Path::new("/run/mesh"));
        assert_eq!(found, [PathBuf::from("/run/mesh/s/1/in side"), PathBuf::from("/run/mesh/s/1")]);
    }
}
