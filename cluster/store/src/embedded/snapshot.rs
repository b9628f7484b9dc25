//! Checkpoint files: all live pairs as of one revision, so that older log files can go.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{
    frame::{self, FileHeader, HEADER, Record},
    log::from_io,
};
use crate::{error::StoreError, model::KeyValue};

/// A frame is closed once it has this many bytes.
const FRAME_BYTES: usize = 1 << 20;

/// The file name of the checkpoint at a revision.
pub(super) fn name(revision: u64) -> String {
    format!("checkpoint-{revision:020}")
}

/// Writes the checkpoint of `revision`; once this returns it is durable under its name.
pub(super) fn write(dir: &Path, revision: u64, pairs: &[KeyValue]) -> Result<u64, StoreError> {
    let path = dir.join(name(revision));
    let temporary = path.with_extension("tmp");
    let written = (|| {
        let file = write_file(&temporary, revision, pairs)?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()?;
        file.metadata().map(|metadata| metadata.len())
    })();
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        from_io("writing", &path, dir, &error)
    })
}

fn write_file(path: &Path, revision: u64, pairs: &[KeyValue]) -> io::Result<File> {
    let header = FileHeader::new(revision);
    let mut out = BufWriter::with_capacity(256 << 10, File::create(path)?);
    out.write_all(&header.encode())?;
    let mut offset = HEADER as u64;
    let mut buffer = Vec::new();
    frame::begin(&mut buffer);
    for kv in pairs {
        frame::push_put(&mut buffer, kv);
        if buffer.len() >= FRAME_BYTES {
            flush(&mut out, &mut buffer, header.salt, &mut offset)?;
        }
    }
    frame::push(&mut buffer, &Record::End { count: pairs.len() as u64 });
    flush(&mut out, &mut buffer, header.salt, &mut offset)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file)
}

fn flush(out: &mut impl Write, buffer: &mut Vec<u8>, salt: u64, offset: &mut u64) -> io::Result<()> {
    frame::seal(buffer, salt, *offset);
    out.write_all(buffer)?;
    *offset += buffer.len() as u64;
    frame::begin(buffer);
    Ok(())
}

/// Reads a checkpoint. It was renamed only when it was durable, so that any damage in it is real.
pub(super) fn read(path: &Path, dir: &Path) -> Result<(u64, Vec<KeyValue>), StoreError> {
    let bytes = std::fs::read(path).map_err(|error| from_io("reading", path, dir, &error))?;
    let corrupt = |offset: usize, reason: &str| StoreError::Corrupt {
        file: PathBuf::from(path),
        offset: offset as u64,
        reason: reason.to_owned(),
    };
    let header = FileHeader::decode(&bytes).map_err(|reason| corrupt(0, reason))?;
    let (mut offset, mut pairs, mut ended) = (HEADER, Vec::new(), false);
    while offset < bytes.len() {
        let mut payload = frame::payload(&bytes, header.salt, offset).map_err(|damage| {
            let (frame::Damage::Torn(reason) | frame::Damage::Rotten(reason)) = damage;
            corrupt(offset, reason)
        })?;
        let next = offset + frame::FRAME + payload.len();
        while !payload.is_empty() {
            match frame::pull(&mut payload).map_err(|reason| corrupt(offset, reason))? {
                Record::Put(kv) if !ended => pairs.push(kv),
                Record::End { count } if count == pairs.len() as u64 => ended = true,
                _ => return Err(corrupt(offset, "record has no place in a checkpoint")),
            }
        }
        offset = next;
    }
    if !ended {
        return Err(corrupt(offset, "checkpoint is cut short"));
    }
    Ok((header.revision, pairs))
}
