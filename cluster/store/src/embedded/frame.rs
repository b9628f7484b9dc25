//! The byte format of log and checkpoint files.
//!
//! A file is a header and frames. A frame is what one write to the disk carries: a magic number, the length of its payload, a CRC of that
//! header, a CRC of the payload, the payload. Both sums include the file's random salt and the frame's offset, so that neither bytes
//! of another file nor a frame stored as somebody's value can pass for a frame here. The payload is a run of records.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::KeyValue;

/// The size of the file header.
pub(super) const HEADER: usize = 32;
/// The size of a frame's own header.
pub(super) const FRAME: usize = 16;
/// No frame is larger: a batch ends long before, and a value is smaller.
pub(super) const PAYLOAD_MAX: usize = 256 << 20;
/// Disks write at least this much at once; a piece of this size that is all zero was never written.
const SECTOR: usize = 512;

const FILE_MAGIC: &[u8; 8] = b"MESHKV01";
const FRAME_MAGIC: u32 = 0x4d4b_5646;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPACT: u8 = 3;
const END: u8 = 4;

/// What the file header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// In a log: the revision before its first record. In a checkpoint: its revision.
    pub(super) revision: u64,
    pub(super) salt: u64,
}

/// One thing a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// In a log `mod_revision` is the record's revision.
    Put(KeyValue),
    Delete {
        revision: u64,
        key: Arc<str>,
    },
    Compact {
        revision: u64,
    },
    /// The last record of a checkpoint, with the number of pairs before it.
    End {
        count: u64,
    },
}

/// Why there is no frame at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// A write that a crash cut short can look like this.
    Torn(&'static str),
    /// No crash explains this.
    Rotten(&'static str),
}

// === impl FileHeader ===

impl FileHeader {
    /// A header with a fresh salt.
    pub(super) fn new(revision: u64) -> Self {
        use std::hash::{BuildHasher, Hasher};
        // The standard library seeds this from the system's random numbers.
        let salt = std::hash::RandomState::new().build_hasher().finish();
        Self { revision, salt }
    }

    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(FILE_MAGIC);
        bytes[8..16].copy_from_slice(&self.revision.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes.get(..HEADER).ok_or("file header is cut short")?;
        if &bytes[..8] != FILE_MAGIC {
            return Err("not a store file of this version");
        }
        if u32_at(bytes, 24) != Some(crc32fast::hash(&bytes[..24])) {
            return Err("file header has a wrong checksum");
        }
        let (Some(revision), Some(salt)) = (u64_at(bytes, 8), u64_at(bytes, 16)) else {
            return Err("file header is cut short");
        };
        Ok(Self { revision, salt })
    }
}

/// Room for a frame's header, to which records are then appended.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME, 0);
}

/// Fills in the header of the frame in `buffer`, to be written at `offset`.
pub(super) fn seal(buffer: &mut [u8], salt: u64, offset: u64) {
    let payload = (buffer.len() - FRAME) as u32;
    let payload_sum = sum(salt, offset, &buffer[FRAME..]);
    buffer[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    buffer[4..8].copy_from_slice(&payload.to_le_bytes());
    buffer[8..12].copy_from_slice(&payload_sum.to_le_bytes());
    let header_sum = sum(salt, offset, &buffer[..12]);
    buffer[12..16].copy_from_slice(&header_sum.to_le_bytes());
}

fn sum(salt: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// The payload of the frame at `offset` of a file's bytes.
pub(super) fn payload(file: &[u8], salt: u64, offset: usize) -> Result<&[u8], Damage> {
    let rest = file.get(offset..).unwrap_or_default();
    let Some(header) = rest.get(..FRAME) else { return Err(Damage::Torn("frame header is cut short")) };
    let zero = |from: usize, to: usize| has_zero_piece(file, from, to);
    if u32_at(header, 0) != Some(FRAME_MAGIC)
        || u32_at(header, 12) != Some(sum(salt, offset as u64, &header[..12]))
    {
        let unwritten = zero(offset, offset + FRAME);
        let reason = "frame header is wrong";
        return Err(if unwritten { Damage::Torn(reason) } else { Damage::Rotten(reason) });
    }
    let length = u32_at(header, 4).unwrap_or(0) as usize;
    if length > PAYLOAD_MAX {
        return Err(Damage::Rotten("frame is too large"));
    }
    let Some(payload) = rest.get(FRAME..FRAME + length) else {
        return Err(Damage::Torn("frame is cut short"));
    };
    if u32_at(header, 8) != Some(sum(salt, offset as u64, payload)) {
        let unwritten = zero(offset, offset + FRAME + length);
        let reason = "frame has a wrong checksum";
        return Err(if unwritten { Damage::Torn(reason) } else { Damage::Rotten(reason) });
    }
    Ok(payload)
}

/// Whether a whole sector's share of `from..to` is zero, as it is when a crash kept it from the disk.
fn has_zero_piece(file: &[u8], from: usize, to: usize) -> bool {
    let to = to.min(file.len());
    let mut start = from;
    while start < to {
        let end = ((start / SECTOR + 1) * SECTOR).min(to);
        if file[start..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end;
    }
    false
}

/// Whether any whole frame begins after `offset`: then what is at `offset` is not the end of the file.
pub(super) fn frame_follows(file: &[u8], salt: u64, offset: usize) -> bool {
    let magic = FRAME_MAGIC.to_le_bytes();
    let first = offset + 1;
    file.get(first..)
        .unwrap_or_default()
        .windows(4)
        .enumerate()
        .any(|(i, window)| window == magic.as_slice() && payload(file, salt, first + i).is_ok())
}

/// Appends a record to a frame.
pub(super) fn push(buffer: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Put(kv) => push_put(buffer, kv),
        Record::Delete { revision, key } => {
            buffer.push(DELETE);
            buffer.extend_from_slice(&revision.to_le_bytes());
            buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
            buffer.extend_from_slice(key.as_bytes());
        }
        Record::Compact { revision } => {
            buffer.push(COMPACT);
            buffer.extend_from_slice(&revision.to_le_bytes());
        }
        Record::End { count } => {
            buffer.push(END);
            buffer.extend_from_slice(&count.to_le_bytes());
        }
    }
}

/// Appends [`Record::Put`] to a frame.
pub(super) fn push_put(buffer: &mut Vec<u8>, kv: &KeyValue) {
    buffer.push(PUT);
    buffer.extend_from_slice(&kv.mod_revision.to_le_bytes());
    buffer.extend_from_slice(&kv.create_revision.to_le_bytes());
    buffer.extend_from_slice(&(kv.key.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&(kv.value.len() as u32).to_le_bytes());
    buffer.extend_from_slice(kv.key.as_bytes());
    buffer.extend_from_slice(&kv.value);
}

/// Takes the first record off a payload.
pub(super) fn pull(payload: &mut &[u8]) -> Result<Record, &'static str> {
    const SHORT: &str = "record is cut short";
    let kind = take(payload, 1).ok_or(SHORT)?[0];
    let number = take(payload, 8).and_then(|b| u64_at(b, 0)).ok_or(SHORT)?;
    match kind {
        PUT => {
            let head = take(payload, 16).ok_or(SHORT)?;
            let create_revision = u64_at(head, 0).ok_or(SHORT)?;
            let key = u32_at(head, 8).ok_or(SHORT)? as usize;
            let value = u32_at(head, 12).ok_or(SHORT)? as usize;
            let key = text(take(payload, key).ok_or(SHORT)?)?;
            let value = Bytes::copy_from_slice(take(payload, value).ok_or(SHORT)?);
            Ok(Record::Put(KeyValue { key, value, create_revision, mod_revision: number }))
        }
        DELETE => {
            let length = take(payload, 4).and_then(|b| u32_at(b, 0)).ok_or(SHORT)? as usize;
            Ok(Record::Delete { revision: number, key: text(take(payload, length).ok_or(SHORT)?)? })
        }
        COMPACT => Ok(Record::Compact { revision: number }),
        END => Ok(Record::End { count: number }),
        _ => Err("record is of an unknown kind"),
    }
}

fn text(bytes: &[u8]) -> Result<Arc<str>, &'static str> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| "key is not text")
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
