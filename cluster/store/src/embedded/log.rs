//! The log file that is being written.
//!
//! It owns appending and the promise about it: [`Log::append`] answers success only after `fdatasync` did, and after an error that leaves
//! the file's durable content unknown it never answers success again.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Sync,
    frame::{self, FileHeader, HEADER},
};
use crate::error::StoreError;

/// An open log file, at its end.
pub(super) struct Log {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    salt: u64,
    end: u64,
    sync: Sync,
    broken: Option<StoreError>,
}

// === impl Log ===

impl Log {
    /// The file name of the log that begins after a revision; names sort as revisions do.
    pub(super) fn name(revision: u64) -> String {
        format!("log-{revision:020}")
    }

    /// Creates the log that begins after `revision`, durably.
    pub(super) fn create(dir: &Path, revision: u64, sync: Sync) -> Result<Self, StoreError> {
        let path = dir.join(Self::name(revision));
        let header = FileHeader::new(revision);
        let temporary = path.with_extension("tmp");
        let written = (|| {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
            file.write_all_at(&header.encode(), 0)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        })();
        match written {
            Ok(file) => {
                let (dir, end) = (dir.to_owned(), HEADER as u64);
                Ok(Self { dir, path, file, salt: header.salt, end, sync, broken: None })
            }
            Err(error) => {
                let _ = std::fs::remove_file(&temporary);
                let _ = std::fs::remove_file(&path);
                Err(from_io("creating", &path, dir, &error))
            }
        }
    }

    /// Goes on with an existing log, whose frames end at `end`; what follows is cut off.
    pub(super) fn resume(
        dir: &Path,
        path: PathBuf,
        salt: u64,
        end: u64,
        sync: Sync,
    ) -> Result<Self, StoreError> {
        let opened = (|| {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            if file.metadata()?.len() != end {
                file.set_len(end)?;
                file.sync_all()?;
            }
            Ok(file)
        })();
        match opened {
            Ok(file) => Ok(Self { dir: dir.to_owned(), path, file, salt, end, sync, broken: None }),
            Err(error) => Err(from_io("opening", &path, dir, &error)),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// Why nothing can be appended any more.
    pub(super) fn broken(&self) -> Option<&StoreError> {
        self.broken.as_ref()
    }

    /// Refuses all later appends.
    pub(super) fn stop(&mut self, error: StoreError) {
        tracing::error!(%error, "Store stops taking writes");
        self.broken = Some(error);
    }

    /// Appends the frame that was begun in `buffer` and makes it durable.
    pub(super) fn append(&mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        frame::seal(buffer, self.salt, self.end);
        if let Err(error) = self.file.write_all_at(buffer, self.end) {
            let error = from_io("writing", &self.path, &self.dir, &error);
            // Part of the frame may be in the file: take it back, or the next frame would follow rubbish.
            let undone = self.file.set_len(self.end);
            match (&error, undone) {
                (StoreError::Full { .. }, Ok(())) => {}
                _ => self.stop(error.clone()),
            }
            return Err(error);
        }
        if let Err(error) = (self.sync)(&self.file) {
            // The kernel may have dropped the pages and call them clean: a second fdatasync would lie.
            let error = io_error("syncing", &self.path, &error.to_string());
            self.stop(error.clone());
            return Err(error);
        }
        self.end += buffer.len() as u64;
        Ok(())
    }

    /// Begins the next log file after `revision`; this one stays for recovery.
    pub(super) fn rotate(&mut self, revision: u64) -> Result<(), StoreError> {
        match Self::create(&self.dir, revision, Arc::clone(&self.sync)) {
            Ok(next) => {
                *self = next;
                Ok(())
            }
            Err(error) => {
                if self.dir.join(Self::name(revision)).exists() {
                    // At the next start it would be taken for the successor of this log.
                    self.stop(error.clone());
                }
                Err(error)
            }
        }
    }
}

/// An I/O error with its context; a full disk is told apart because it passes.
pub(super) fn from_io(action: &'static str, file: &Path, dir: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { dir: dir.to_owned() },
        _ => io_error(action, file, &error.to_string()),
    }
}

fn io_error(action: &'static str, file: &Path, message: &str) -> StoreError {
    StoreError::Io { action, file: file.to_owned(), message: message.to_owned() }
}
