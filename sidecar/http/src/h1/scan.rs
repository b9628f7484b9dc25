//! Finding the end of a head as bytes arrive, each looked at once.

use crate::error::ParseError;
use crate::limits::Limits;

/// Progress through one head.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    scanned: usize,
    line_start: usize,
    lines: usize,
}

impl Scanner {
    /// The length of the head with its empty line, once all of it is in `buf`. Call again with the same bytes and more.
    pub(crate) fn scan(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, ParseError> {
        while let Some(found) = memchr::memchr(b'\n', &buf[self.scanned..]) {
            let line_feed = self.scanned + found;
            if line_feed >= limits.head_bytes {
                return Err(ParseError::TooLarge);
            }
            if line_feed == self.line_start || buf[line_feed - 1] != b'\r' {
                return Err(ParseError::LineEnd);
            }
            self.scanned = line_feed + 1;
            if line_feed - self.line_start == 1 {
                if self.lines == 0 {
                    return Err(ParseError::RequestLine);
                }
                return Ok(Some(self.scanned));
            }
            self.lines += 1;
            if self.lines > limits.header_count + 1 {
                return Err(ParseError::TooManyHeaders);
            }
            self.line_start = self.scanned;
        }
        self.scanned = buf.len();
        if self.scanned >= limits.head_bytes { Err(ParseError::TooLarge) } else { Ok(None) }
    }
}

/// The next line of a scanned head, without CR LF, and the offset after it.
pub(crate) fn line(head: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = head.get(from..)?;
    let end = memchr::memchr(b'\n', rest)?;
    let line = rest[..end].strip_suffix(b"\r")?;
    Some((line, from + end + 1))
}

/// Whether `byte` may stand in a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

/// Splits a header line into name and value, as offsets into the line: name end, value start, value end.
pub(crate) fn split_header(line: &[u8]) -> Result<(usize, usize, usize), ParseError> {
    let colon = line.iter().position(|byte| !is_token(*byte)).ok_or(ParseError::HeaderName)?;
    if colon == 0 || line[colon] != b':' {
        return Err(ParseError::HeaderName);
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start =
        line[colon + 1..].iter().position(|byte| !blank(byte)).map_or(line.len(), |at| colon + 1 + at);
    let end = line.iter().rposition(|byte| !blank(byte)).map_or(start, |at| (at + 1).max(start));
    Ok((colon, start, end))
}
