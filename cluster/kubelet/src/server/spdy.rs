//! SPDY/3.1 as `kubectl port-forward` speaks it: frames and header blocks. Pure: bytes in, frames out, and back.
//!
//! Format: draft-mbelshe-httpbis-spdy-00 with the version 3 dictionary. Priorities, settings and windows have no meaning to Kubernetes'
//! clients, which neither send nor keep them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress};

/// Longest frame taken from a client.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// All headers of one stream, inflated.
const HEADERS_BYTES_MAX: usize = 16 << 10;
const VERSION: u16 = 3;
const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
/// Status of a stream that is not begun: what it asks for has not been done.
const REFUSED_STREAM: u32 = 3;
/// How a zlib stream with the dictionary begins; its last four bytes are the dictionary's checksum.
const ZLIB_HEAD: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
/// An empty header block as a stored block of the compressed stream, so that nothing has to be compressed on this side; and an empty one
/// after it, which makes a reader in Go hand over the first.
const NO_HEADERS: [u8; 14] = [0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Words of the dictionary that carry their length; the rest of it follows them.
const WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|\
authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|content-location|content-md5|\
content-range|content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|\
last-modified|location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|\
transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|\
keep-alive|origin";
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found\
500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,\
text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream; it has no data when it is finished at once.
    Open { stream: u32, headers: Vec<(String, String)>, finished: bool },
    /// Bytes of a stream, perhaps the last.
    Data { stream: u32, data: Bytes, finished: bool },
    /// A stream is given up.
    Reset { stream: u32 },
    /// To be sent back.
    Ping(u32),
    /// The client is about to close.
    GoAway,
    /// Of no meaning here.
    Other,
}

/// Why a session cannot go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("frame of {0} bytes, more than {FRAME_BYTES_MAX}")]
    Long(usize),
    #[error("version {0} instead of 3")]
    Version(u16),
    #[error("malformed frame of type {0}")]
    Frame(u16),
    #[error("headers that cannot be inflated, or more than {HEADERS_BYTES_MAX} bytes of them")]
    Headers,
}

/// Reads one side of a session: header blocks depend on those before them.
pub(super) struct Decoder {
    inflate: Decompress,
    begun: bool,
}

// === impl Decoder ===

impl Decoder {
    pub(super) fn new() -> Self {
        let mut inflate = Decompress::new(false);
        // What is inflated stays in the window: a stored block with the dictionary is as good as presetting it.
        let dictionary = dictionary();
        let length = u16::try_from(dictionary.len()).unwrap_or(u16::MAX);
        let mut block = BytesMut::with_capacity(dictionary.len() + 5);
        block.put_u8(0);
        block.put_u16_le(length);
        block.put_u16_le(!length);
        block.put_slice(&dictionary);
        let mut seen = Vec::with_capacity(dictionary.len() + 64);
        let _always_fits = inflate.decompress_vec(&block, &mut seen, FlushDecompress::Sync);
        Self { inflate, begun: false }
    }

    /// The next whole frame of what has come; `None` until there is more.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = buffer.first_chunk::<8>() else { return Ok(None) };
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(SpdyError::Long(length));
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        let mut head = buffer.split_to(8);
        let (first, flags) = (head.get_u32(), head.get_u8());
        let body = buffer.split_to(length).freeze();
        let finished = flags & FIN != 0;
        if first >> 31 == 0 {
            return Ok(Some(Frame::Data { stream: first, data: body, finished }));
        }
        let [version, kind] = [(first >> 16) as u16 & 0x7fff, (first & 0xffff) as u16];
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        self.control(kind, body, finished).map(Some)
    }

    fn control(&mut self, kind: u16, mut body: Bytes, finished: bool) -> Result<Frame, SpdyError> {
        let wrong = |_| SpdyError::Frame(kind);
        Ok(match kind {
            SYN_STREAM => {
                let stream = body.try_get_u32().map_err(wrong)? & 0x7fff_ffff;
                // The stream it belongs to, its priority, a slot for a certificate.
                if body.len() < 6 {
                    return Err(SpdyError::Frame(kind));
                }
                body.advance(6);
                Frame::Open { stream, headers: self.headers(&body)?, finished }
            }
            RST_STREAM => Frame::Reset { stream: body.try_get_u32().map_err(wrong)? & 0x7fff_ffff },
            PING => Frame::Ping(body.try_get_u32().map_err(wrong)?),
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        let mut input = block;
        if !std::mem::replace(&mut self.begun, true) {
            // The second byte says how well it is compressed, too, which is the client's affair.
            let known =
                |head: &[u8]| head[0] == ZLIB_HEAD[0] && head[1] & 0x20 != 0 && head[2..] == ZLIB_HEAD[2..];
            input = input
                .split_at_checked(ZLIB_HEAD.len())
                .filter(|(head, _)| known(head))
                .ok_or(SpdyError::Headers)?
                .1;
        }
        let mut text = Vec::with_capacity(HEADERS_BYTES_MAX);
        let before = self.inflate.total_in();
        self.inflate
            .decompress_vec(input, &mut text, FlushDecompress::Sync)
            .map_err(|_| SpdyError::Headers)?;
        if self.inflate.total_in() - before != input.len() as u64 {
            return Err(SpdyError::Headers);
        }
        pairs(&text).ok_or(SpdyError::Headers)
    }
}

fn pairs(mut text: &[u8]) -> Option<Vec<(String, String)>> {
    let count = text.try_get_u32().ok()?;
    let mut word = || {
        let length = text.try_get_u32().ok()? as usize;
        let (word, rest) = text.split_at_checked(length)?;
        text = rest;
        String::from_utf8(word.to_vec()).ok()
    };
    // Each takes eight bytes at least, so that a large count ends early.
    (0..count).map(|_| Some((word()?, word()?))).collect()
}

fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split('|') {
        all.put_u32(u32::try_from(word.len()).unwrap_or(0));
        all.put_slice(word.as_bytes());
    }
    all.put_slice(REST.as_bytes());
    all
}

fn control(kind: u16, body: &[&[u8]]) -> Bytes {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(8 + length);
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    frame.put_u32(u32::try_from(length).unwrap_or(0) & 0x00ff_ffff);
    body.iter().for_each(|part| frame.put_slice(part));
    frame.freeze()
}

/// Accepts a stream. `first` is the first answer of the session, which begins its compressed headers.
pub(super) fn accept(stream: u32, first: bool) -> Bytes {
    control(SYN_REPLY, &[&stream.to_be_bytes(), if first { &ZLIB_HEAD } else { &[] }, &NO_HEADERS])
}

/// Refuses a stream.
pub(super) fn refuse(stream: u32) -> Bytes {
    control(RST_STREAM, &[&stream.to_be_bytes(), &REFUSED_STREAM.to_be_bytes()])
}

/// Answers a ping.
pub(super) fn ping(id: u32) -> Bytes {
    control(PING, &[&id.to_be_bytes()])
}

/// Bytes of a stream, at most 16 MiB, perhaps its last.
pub(super) fn data(stream: u32, bytes: &[u8], finished: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u32(stream & 0x7fff_ffff);
    frame.put_u32(u32::from(finished) << 24 | (u32::try_from(bytes.len()).unwrap_or(0) & 0x00ff_ffff));
    frame.put_slice(bytes);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header block as zlib's own compressor writes it with the dictionary, made with Python's `zlib.compressobj(zdict=…)`: two
    /// streams' headers in one compressed stream.
    const BLOCKS: [&str; 2] = [BLOCK_1, BLOCK_2];
    const BLOCK_1: &str = "78f9e3c6a7c202253a48f95b044eea96061606409ab308125f99a074cc68004e892545a989b9d0c2863515141500000000ffff";
    const BLOCK_2: &str = "225333a8a44a04000000ffff";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn open(stream: u32, block: &[u8]) -> Bytes {
        control(SYN_STREAM, &[&stream.to_be_bytes(), &[0; 6], block])
    }

    #[test]
    fn streams_are_opened_with_their_headers() {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::new();
        for (stream, block) in [1, 3].into_iter().zip(BLOCKS) {
            buffer.extend_from_slice(&open(stream, &bytes(block)));
        }
        // Byte by byte, as a network may bring it.
        let (mut frames, all) = (Vec::new(), buffer.split());
        for byte in all {
            buffer.put_u8(byte);
            frames.extend(decoder.next(&mut buffer).unwrap());
        }
        let headers = |kind: &str| -> Vec<(String, String)> {
            [("port", "9080"), ("requestid", "0"), ("streamtype", kind)]
                .map(|(a, b)| (a.into(), b.into()))
                .into()
        };
        let opened = |stream, kind| Frame::Open { stream, headers: headers(kind), finished: false };
        assert_eq!(frames, [opened(1, "error"), opened(3, "data")]);
    }

    #[test]
    fn what_is_sent_can_be_read() {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::new();
        for frame in [data(3, b"abc", false), data(3, b"", true), ping(7), refuse(5)] {
            buffer.extend_from_slice(&frame);
        }
        let mut next = || decoder.next(&mut buffer).unwrap();
        assert_eq!(
            next(),
            Some(Frame::Data { stream: 3, data: Bytes::from_static(b"abc"), finished: false })
        );
        assert_eq!(next(), Some(Frame::Data { stream: 3, data: Bytes::new(), finished: true }));
        assert_eq!((next(), next(), next()), (Some(Frame::Ping(7)), Some(Frame::Reset { stream: 5 }), None));
        // The answers' headers are one compressed stream: empty each time.
        let mut reader = Decoder::new();
        for (stream, first) in [(1, true), (3, false), (5, false)] {
            assert_eq!(reader.headers(&accept(stream, first)[12..]).unwrap(), []);
        }
    }

    #[test]
    fn hostile_frames_end_the_session() {
        let read = |bytes: &[u8]| Decoder::new().next(&mut BytesMut::from(bytes));
        assert_eq!(read(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]), Err(SpdyError::Long(0xff_ffff)));
        assert_eq!(read(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), Err(SpdyError::Version(2)));
        for kind in [SYN_STREAM, RST_STREAM, PING] {
            assert_eq!(read(&control(kind, &[&[0, 0]])), Err(SpdyError::Frame(kind)));
        }
        for block in [&b"short"[..], b"no zlib at all", &bytes(BLOCK_2)] {
            assert_eq!(read(&open(1, block)), Err(SpdyError::Headers));
        }
        // A megabyte of zeros in a thousand bytes.
        let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
        let mut bomb = ZLIB_HEAD.to_vec();
        bomb.reserve(1 << 14);
        deflate.compress_vec(&vec![0; 1 << 20], &mut bomb, flate2::FlushCompress::Sync).unwrap();
        assert_eq!(read(&open(1, &bomb)), Err(SpdyError::Headers));
        let mut many = bytes(BLOCK_1);
        many.truncate(20);
        assert!(read(&open(1, &many)).is_err());
        assert_eq!(pairs(&[0xff; 12]), None);
    }
}
