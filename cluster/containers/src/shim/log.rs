//! The container's log file in CRI format: `2026-01-02T03:04:05.999999999Z stdout F line`. Rotated here, so that nobody else needs to write to it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest piece of a line in one record; longer lines are marked `P`. What containerd and CRI-O use.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Kubernetes' defaults `containerLogMaxSize` and `containerLogMaxFiles`.
const FILE_BYTES_MAX: u64 = 10 << 20;
const FILES_MAX: u32 = 5;

/// Which of the two streams a piece came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Cuts one stream into records.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

/// The file. Without a path everything is dropped.
#[derive(Debug)]
pub(super) struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    bytes: u64,
    bytes_max: u64,
    records: Vec<u8>,
}

// === impl Lines ===

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Adds what was read at `now` to the log's next write.
    pub(super) fn push(&mut self, mut data: &[u8], now: Duration, log: &mut Log) {
        while !data.is_empty() {
            let room = LINE_BYTES_MAX - self.pending.len();
            let end = data.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) if self.pending.is_empty() => {
                    log.record(self.stream, 'F', &data[..end], now);
                    data = &data[end + 1..];
                }
                Some(end) => {
                    self.pending.extend_from_slice(&data[..end]);
                    log.record(self.stream, 'F', &self.pending, now);
                    self.pending.clear();
                    data = &data[end + 1..];
                }
                None if data.len() <= room => {
                    self.pending.extend_from_slice(data);
                    data = &[];
                }
                None => {
                    self.pending.extend_from_slice(&data[..room]);
                    log.record(self.stream, 'P', &self.pending, now);
                    self.pending.clear();
                    data = &data[room..];
                }
            }
        }
        if self.pending.is_empty() {
            // Most streams end in whole lines; an idle helper should hold no buffer.
            self.pending.shrink_to(0);
        }
    }

    /// The stream ended: what is left is a line.
    pub(super) fn finish(&mut self, now: Duration, log: &mut Log) {
        if !self.pending.is_empty() {
            log.record(self.stream, 'F', &self.pending, now);
            self.pending = Vec::new();
        }
    }
}

// === impl Log ===

impl Log {
    /// Opens or continues the file at `path`; an empty path drops everything.
    pub(super) fn open(path: &Path) -> Self {
        let path = Some(path.to_owned()).filter(|path| !path.as_os_str().is_empty());
        let mut log = Self { path, file: None, bytes: 0, bytes_max: FILE_BYTES_MAX, records: Vec::new() };
        log.reopen();
        log
    }

    /// Writes what was gathered. A full disk costs log lines, never the container.
    pub(super) fn flush(&mut self) {
        if self.records.is_empty() {
            return;
        }
        if self.bytes >= self.bytes_max {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.records) {
                Ok(()) => self.bytes += self.records.len() as u64,
                Err(_) => self.file = None,
            }
        }
        self.records.clear();
        if self.records.capacity() > 2 * LINE_BYTES_MAX {
            self.records = Vec::new();
        }
    }

    fn record(&mut self, stream: Stream, tag: char, line: &[u8], now: Duration) {
        if self.path.is_none() {
            return;
        }
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        // Writing to a vector cannot fail.
        let _ = write!(self.records, "{} {name} {tag} ", Rfc3339(now));
        self.records.extend_from_slice(line);
        self.records.push(b'\n');
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        let open = || -> io::Result<(File, u64)> {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            let file = File::options().create(true).append(true).mode(0o640).open(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        if let Ok((file, bytes)) = open() {
            (self.file, self.bytes) = (Some(file), bytes);
        }
    }

    /// `0.log` → `0.log.1` → … ; the oldest goes.
    fn rotate(&mut self) {
        let Some(path) = &self.path else { return };
        let numbered = |n: u32| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..FILES_MAX - 1).rev() {
            let _ = fs::rename(numbered(n), numbered(n + 1));
        }
        if fs::rename(path, numbered(1)).is_ok() {
            self.file = None;
            self.bytes = 0;
        }
    }
}

/// Time since 1970, for records.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

struct Rfc3339(Duration);

impl std::fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

/// Gregorian date of a day since 1970, counting in years that begin in March so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
