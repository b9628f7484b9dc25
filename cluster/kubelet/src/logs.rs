//! Container logs in CRI format: one line is `<time> <stream> <F|P> <text>`; `P` is a part of a longer line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

/// Longest termination message (Kubernetes limit).
pub(crate) const TERMINATION_BYTES_MAX: u64 = 4096;
/// What a failed container's log gives as its termination message.
const LAST_WORDS_BYTES_MAX: u64 = 2048;
const LAST_WORDS_LINES_MAX: u64 = 80;
const BLOCK_BYTES: u64 = 64 << 10;

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// As written, RFC 3339 with nanoseconds.
    pub(crate) time: &'a [u8],
    pub(crate) stream: &'a [u8],
    /// The text goes on in the next line.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// Which lines a reader wants, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    /// Bytes left to write.
    pub(crate) bytes_left: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub(crate) stream: Option<String>,
    /// The line before was a part: no second timestamp.
    continued: bool,
}

// === impl Line ===

impl<'a> Line<'a> {
    /// Takes a line apart, without its line feed; `None` when it is not in CRI format.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let partial = match tag.split(|byte| *byte == b':').next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        Some(Self { time, stream, partial, text: parts.next().unwrap_or_default() })
    }
}

// === impl Selection ===

impl Selection {
    /// Lines not older than `since`, of one stream or of both, up to `bytes_left` bytes, with or without their times.
    pub(crate) fn new(
        since: Option<Timestamp>,
        timestamps: bool,
        bytes_left: Option<u64>,
        stream: Option<String>,
    ) -> Self {
        Self { since, timestamps, bytes_left, stream, continued: false }
    }

    /// Appends what the reader sees of `line` to `out`; false once the reader has had enough.
    pub(crate) fn show(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = Line::parse(line) else { return true };
        if self.stream.as_ref().is_some_and(|stream| stream.as_bytes() != line.stream)
            || !self.is_recent(&line)
        {
            return true;
        }
        let start = out.len();
        if self.timestamps && !self.continued {
            out.extend_from_slice(line.time);
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.continued = line.partial;
        if let Some(left) = &mut self.bytes_left {
            let added = u64::try_from(out.len() - start).unwrap_or(u64::MAX);
            if added >= *left {
                out.truncate(start + usize::try_from(*left).unwrap_or(usize::MAX));
                *left = 0;
                return false;
            }
            *left -= added;
        }
        true
    }

    fn is_recent(&self, line: &Line<'_>) -> bool {
        let Some(since) = self.since else { return true };
        let time = std::str::from_utf8(line.time).ok().and_then(|time| time.parse::<Timestamp>().ok());
        time.is_none_or(|time| time >= since)
    }
}

/// Where the last `lines` lines of `file` begin.
pub(crate) fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let (mut at, mut found) = (end, 0);
    let mut block = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(BLOCK_BYTES);
        file.seek(SeekFrom::Start(from))?;
        block.clear();
        file.by_ref().take(at - from).read_to_end(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let position = from + u64::try_from(index).unwrap_or(0);
            // The line feed that ends the file ends its last line and starts none.
            if *byte == b'\n' && position + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(position + 1);
                }
            }
        }
        at = from;
    }
    Ok(0)
}

/// The first bytes of a file as text; empty when it cannot be read.
pub(crate) fn head(path: &Path, bytes_max: u64) -> String {
    let mut bytes = Vec::new();
    // A message that cannot be read is no message.
    let _unreadable = File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of a log, as a failed container's termination message.
pub(crate) fn last_words(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let from = tail_offset(&mut file, LAST_WORDS_LINES_MAX)?;
        file.seek(SeekFrom::Start(from))?;
        let (mut raw, mut out) = (Vec::new(), Vec::new());
        file.take(1 << 20).read_to_end(&mut raw)?;
        let mut all = Selection::default();
        for line in raw.split(|byte| *byte == b'\n') {
            all.show(line, &mut out);
        }
        let surplus = out.len().saturating_sub(usize::try_from(LAST_WORDS_BYTES_MAX).unwrap_or(usize::MAX));
        Ok(out.split_off(surplus))
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21T01:00:00.000000001Z stdout F one\n\
                       2026-11-21T01:00:01Z stderr P tw\n\
                       2026-11-21T01:00:01Z stderr F o\n\
                       2026-11-21T01:00:02Z stdout F \n\
                       garbage\n\
                       2026-11-21T01:00:03Z stdout F four 4\n";

    fn shown(mut selection: Selection) -> String {
        let mut out = Vec::new();
        for line in LOG.as_bytes().split(|byte| *byte == b'\n') {
            if !selection.show(line, &mut out) {
                break;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_joined_and_filtered() {
        assert_eq!(shown(Selection::default()), "one\ntwo\n\nfour 4\n");
        let since = Some("2026-11-21T01:00:02Z".parse().unwrap());
        assert_eq!(shown(Selection { since, ..Selection::default() }), "\nfour 4\n");
        assert_eq!(shown(Selection { bytes_left: Some(6), ..Selection::default() }), "one\ntw");
        assert_eq!(shown(Selection { stream: Some("stderr".into()), ..Selection::default() }), "two\n");
        assert_eq!(
            shown(Selection { timestamps: true, since, ..Selection::default() }),
            "2026-11-21T01:00:02Z \n2026-11-21T01:00:03Z four 4\n"
        );
    }

    #[test]
    fn the_tail_is_found_from_the_end() {
        let path = std::env::temp_dir().join(format!("kubelet-tail-{}", std::process::id()));
        let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        let mut file = File::open(&path).unwrap();
        let mut tail =
            |lines| text[usize::try_from(tail_offset(&mut file, lines).unwrap()).unwrap()..].to_owned();
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "line 19999\n");
        assert_eq!(tail(10_000).lines().next(), Some("line 10000"));
        assert_eq!(tail(99_999), text);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn last_words_are_the_end_of_the_log() {
        let path = std::env::temp_dir().join(format!("kubelet-words-{}", std::process::id()));
        std::fs::write(&path, LOG).unwrap();
        assert_eq!(last_words(&path), "one\ntwo\n\nfour 4\n");
        assert_eq!(head(&path, 10), "2026-11-21");
        std::fs::remove_file(&path).unwrap();
        assert_eq!((last_words(&path), head(&path, 9)), (String::new(), String::new()));
    }
}
