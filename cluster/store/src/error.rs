//! The one error type of a store. It can be cloned, because one failure may answer many writes.

use std::path::PathBuf;

use crate::model::KeyValue;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A precondition did not hold.
    #[error("precondition failed: the key is {}", match current { Some(kv) => format!("at revision {}", kv.mod_revision), None => "absent".to_owned() })]
    Conflict {
        /// What the key holds.
        current: Option<KeyValue>,
    },
    /// An absent key was to be deleted.
    #[error("key not found")]
    NotFound,
    /// The revision asked for is older than the history.
    #[error("revision is compacted, the oldest is {oldest}")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: u64,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {requested} is in the future, the newest is {current}")]
    Future {
        /// What was asked for.
        requested: u64,
        /// The newest revision.
        current: u64,
    },
    /// A watcher did not take its events in time; it must list again.
    #[error("watcher is too slow: {queued} events were waiting")]
    TooSlow {
        /// How many events were waiting for it.
        queued: usize,
    },
    /// The key or value is larger than the store takes.
    #[error("key and value have {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that is taken.
        limit: usize,
    },
    /// The disk is full. Nothing was written; a later write may succeed.
    #[error("no space left in {}", dir.display())]
    Full {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The disk failed. Reads go on; writes are refused until the store is opened again.
    #[error("{action} {} failed: {message}", file.display())]
    Io {
        /// What was done, as a verb.
        action: &'static str,
        /// To which file.
        file: PathBuf,
        /// The system's words.
        message: String,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A file is damaged in a way no crash explains; the store does not open.
    #[error("{} is damaged at byte {offset}: {reason}", file.display())]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The store was closed.
    #[error("store is closed")]
    Closed,
}
