//! The chunked transfer coding (RFC 9112, 7.1), strictly: CR LF everywhere, bounded extensions, bounded trailers.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};

use super::scan::{Scanner, line, split_header};
use crate::error::ParseError;
use crate::limits::Limits;
use crate::names;

/// Bytes of a size line with its extensions.
const SIZE_LINE_MAX: usize = 1024;

/// Where in a chunked body the reader is.
#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers(Scanner),
    Done,
}

/// Decodes one chunked body from a connection's buffer.
#[derive(Debug)]
pub(crate) struct ChunkDecoder {
    state: State,
    trailer_bytes: usize,
    trailer_count: usize,
}

/// What the buffer held.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Nothing whole: read more.
    More,
    /// Bytes of the body.
    Data(Bytes),
    /// The body's end.
    End(Option<HeaderMap>),
}

impl ChunkDecoder {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { state: State::Size, trailer_bytes: limits.head_bytes, trailer_count: limits.header_count }
    }

    /// Takes the next piece out of `buf`.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Chunk, ParseError> {
        loop {
            match &mut self.state {
                State::Size => match size_line(buf)? {
                    None => return Ok(Chunk::More),
                    Some(0) => self.state = State::Trailers(Scanner::default()),
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(left) => {
                    if buf.is_empty() {
                        return Ok(Chunk::More);
                    }
                    let take = usize::try_from(*left).map_or(buf.len(), |left| left.min(buf.len()));
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Chunk::Data(buf.split_to(take).freeze()));
                }
                State::DataEnd => match &buf[..] {
                    [] | [b'\r'] => return Ok(Chunk::More),
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        self.state = State::Size;
                    }
                    _ => return Err(ParseError::Chunk),
                },
                State::Trailers(scanner) => {
                    let trailers = match &buf[..] {
                        [b'\r', b'\n', ..] => {
                            buf.advance(2);
                            None
                        }
                        [] | [b'\r'] => return Ok(Chunk::More),
                        _ => {
                            let limits = Limits {
                                head_bytes: self.trailer_bytes,
                                header_count: self.trailer_count,
                                ..Limits::default()
                            };
                            let Some(length) = scanner.scan(buf, &limits)? else { return Ok(Chunk::More) };
                            Some(trailer_lines(&buf.split_to(length).freeze())?)
                        }
                    };
                    self.state = State::Done;
                    return Ok(Chunk::End(trailers.filter(|map| !map.is_empty())));
                }
                State::Done => return Ok(Chunk::End(None)),
            }
        }
    }
}

/// Takes a size line off `buf`: hexadecimal digits and, after `;`, extensions that are read over.
fn size_line(buf: &mut BytesMut) -> Result<Option<u64>, ParseError> {
    let mut size: u64 = 0;
    let mut digits = 0;
    while let Some(digit) = buf.get(digits).and_then(|byte| char::from(*byte).to_digit(16)) {
        if digits == 15 {
            return Err(ParseError::Chunk);
        }
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    let rest = &buf[digits..];
    if rest.is_empty() && digits < 16 {
        return Ok(None);
    }
    if digits == 0 || !matches!(rest[0], b'\r' | b';') {
        return Err(ParseError::Chunk);
    }
    let Some(end) = rest.iter().position(|byte| !matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)) else {
        return if buf.len() > SIZE_LINE_MAX { Err(ParseError::Chunk) } else { Ok(None) };
    };
    if end > SIZE_LINE_MAX {
        return Err(ParseError::Chunk);
    }
    match &rest[end..] {
        [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            buf.advance(digits + end + 2);
            Ok(Some(size))
        }
        _ => Err(ParseError::Chunk),
    }
}

/// The trailers of a body. Fields that would change its framing or routing are refused.
fn trailer_lines(block: &Bytes) -> Result<HeaderMap, ParseError> {
    let mut map = HeaderMap::new();
    let mut at = 0;
    while let Some((text, next)) = line(block, at) {
        if text.is_empty() {
            break;
        }
        let (name_end, start, end) = split_header(text)?;
        let name = names::header_name(&text[..name_end]).ok_or(ParseError::HeaderName)?;
        if matches!(
            name,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::HOST | header::CONNECTION
        ) {
            return Err(ParseError::Chunk);
        }
        let value = HeaderValue::from_maybe_shared(block.slice(at + start..at + end))
            .map_err(|_| ParseError::HeaderValue)?;
        map.append(name, value);
        at = next;
    }
    Ok(map)
}
