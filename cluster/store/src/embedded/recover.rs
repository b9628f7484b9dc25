//! From files to a tree: the newest checkpoint, then every log record after it.
//!
//! A crash can leave a torn last frame, temporary files, and files that a checkpoint has replaced; all are cleaned up. Anything else
//! that does not read back is damage, and the store refuses to open rather than lose writes it acknowledged.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use super::{
    Sync,
    frame::{self, Damage, FileHeader, HEADER, Record},
    log::{Log, from_io},
    snapshot,
    tree::{Change, Tree},
};
use crate::error::StoreError;

/// A store as its files say it was.
pub(super) struct Recovered {
    pub(super) tree: Tree,
    /// Where the next write goes.
    pub(super) log: Log,
    /// The size of the logs that the next checkpoint will replace.
    pub(super) checkpoint_bytes: u64,
}

/// A log file found in the directory.
struct Found {
    path: PathBuf,
    bytes: Vec<u8>,
    header: FileHeader,
}

/// Creates the directory if need be and takes its lock.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    if !dir.is_dir() {
        std::fs::create_dir_all(dir).map_err(|error| from_io("creating", dir, dir, &error))?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
    }
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|error| from_io("opening", &path, dir, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(from_io("locking", &path, dir, &error)),
    }
}

/// Reads everything in `dir`, which must be locked.
pub(super) fn recover(dir: &Path, sync: Sync) -> Result<Recovered, StoreError> {
    let (logs, checkpoints) = scan(dir)?;
    let mut tree = match checkpoints.last() {
        Some(newest) => {
            let (revision, pairs) = snapshot::read(newest, dir)?;
            Tree::from_checkpoint(revision, pairs)
        }
        None => Tree::default(),
    };
    let start = tree.revision();
    let mut found = Vec::new();
    for path in logs {
        found.push(open(path, dir)?);
    }
    // The log that spans the checkpoint, or begins with it, is the first one needed.
    let needed = found.iter().rposition(|log| log.header.revision <= start).unwrap_or(0);
    for old in found.drain(..needed) {
        remove(&old.path);
    }
    for old in checkpoints.iter().rev().skip(1) {
        remove(old);
    }
    let Some(first) = found.first() else {
        if start > 0 {
            // A checkpoint's log is durable before the checkpoint is.
            return Err(corrupt(&dir.join(Log::name(start)), 0, "log is missing"));
        }
        return Ok(Recovered { log: Log::create(dir, 0, sync)?, tree, checkpoint_bytes: 0 });
    };
    if first.header.revision > start {
        return Err(corrupt(&first.path, 0, "records before this log are missing"));
    }
    let mut total = 0;
    let mut active = (0, HEADER);
    for (index, log) in found.iter().enumerate() {
        let last = found[index + 1..].iter().all(|later| later.bytes.len() <= HEADER);
        if index > 0 && log.header.revision != tree.revision() {
            if last && log.bytes.len() <= HEADER && log.header.revision < tree.revision() {
                // Made by a rotation that did not come to pass.
                remove(&log.path);
                continue;
            }
            return Err(corrupt(&log.path, 0, "log does not follow the one before it"));
        }
        let end = replay(log, &mut tree, last)?;
        total += end as u64;
        active = (index, end);
    }
    if tree.revision() < start {
        return Err(corrupt(&found[active.0].path, active.1, "records up to the checkpoint are missing"));
    }
    let log = &found[active.0];
    let log = Log::resume(dir, log.path.clone(), log.header.salt, active.1 as u64, sync)?;
    Ok(Recovered { tree, log, checkpoint_bytes: total })
}

/// The log and checkpoint files of a directory, oldest first. Removes temporary files.
fn scan(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), StoreError> {
    let fail = |error| from_io("reading", dir, dir, &error);
    let (mut logs, mut checkpoints) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".tmp") {
            remove(&path);
        } else if name.starts_with("log-") {
            logs.push(path);
        } else if name.starts_with("checkpoint-") {
            checkpoints.push(path);
        }
    }
    logs.sort();
    checkpoints.sort();
    Ok((logs, checkpoints))
}

fn open(path: PathBuf, dir: &Path) -> Result<Found, StoreError> {
    let bytes = std::fs::read(&path).map_err(|error| from_io("reading", &path, dir, &error))?;
    let header = FileHeader::decode(&bytes).map_err(|reason| corrupt(&path, 0, reason))?;
    if path.file_name().is_none_or(|name| name.to_string_lossy() != Log::name(header.revision)) {
        return Err(corrupt(&path, 0, "file header does not fit the file name"));
    }
    Ok(Found { path, bytes, header })
}

/// Applies a log's records that the tree does not have yet; answers where its last whole frame ends.
fn replay(log: &Found, tree: &mut Tree, may_be_torn: bool) -> Result<usize, StoreError> {
    let (mut offset, mut revision) = (HEADER, log.header.revision);
    while offset < log.bytes.len() {
        let mut payload = match frame::payload(&log.bytes, log.header.salt, offset) {
            Ok(payload) => payload,
            Err(Damage::Torn(reason))
                if may_be_torn && !frame::frame_follows(&log.bytes, log.header.salt, offset) =>
            {
                let lost = log.bytes.len() - offset;
                tracing::warn!(file = %log.path.display(), offset, bytes = lost, reason, "Cut off an unfinished write");
                return Ok(offset);
            }
            Err(Damage::Torn(reason) | Damage::Rotten(reason)) => {
                return Err(corrupt(&log.path, offset, reason));
            }
        };
        let next = offset + frame::FRAME + payload.len();
        while !payload.is_empty() {
            let record = frame::pull(&mut payload).map_err(|reason| corrupt(&log.path, offset, reason))?;
            let change = match record {
                Record::Put(kv) => Change { revision: kv.mod_revision, key: kv.key, value: Some(kv.value) },
                Record::Delete { revision, key } => Change { revision, key, value: None },
                Record::Compact { revision } => {
                    while !tree.compact(revision, usize::MAX) {}
                    continue;
                }
                Record::End { .. } => return Err(corrupt(&log.path, offset, "record has no place in a log")),
            };
            if change.revision != revision + 1 {
                return Err(corrupt(&log.path, offset, "revisions do not follow each other"));
            }
            revision = change.revision;
            if revision > tree.revision() {
                tree.apply(change);
            }
        }
        offset = next;
    }
    Ok(offset)
}

fn corrupt(file: &Path, offset: usize, reason: &str) -> StoreError {
    StoreError::Corrupt { file: file.to_owned(), offset: offset as u64, reason: reason.to_owned() }
}

/// Makes the entries of a directory durable.
fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|error| from_io("syncing", dir, dir, &error))
}

/// Removes a file that is not needed; one that stays does no harm.
pub(super) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "Cannot remove a file that is not needed");
    }
}
