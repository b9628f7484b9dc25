//! As much HTTP/1.1 as generator and backend need: where a message ends.

use anyhow::{Context, Result, bail, ensure};

/// Ends the head of a message.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Length of the head at the start of `bytes`, with its empty line, if it is complete.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD).map(|at| at + END_OF_HEAD.len())
}

/// Length of the whole response at the start of `bytes`, as soon as its head is complete. Anything but 200 is an error.
pub fn response_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = head_length(bytes) else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head]).context("a response's head is not text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200"), "the answer is `{status}`");
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            let length: usize = value.trim().parse().context("a response's length is not a number")?;
            return Ok(Some(head + length));
        }
    }
    bail!("a response has no content-length:\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let whole = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1";
        assert_eq!(response_length(whole).unwrap(), Some(whole.len() - 8));
        assert_eq!(response_length(&whole[..20]).unwrap(), None);
        assert!(response_length(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(response_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
