//! A strict reading of HTTP/1.1 request streams, written apart from the sidecar's: what the sidecar forwards must be whole to it.

/// One request as it stands in the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target.
    pub target: String,
    /// Header lines in order, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Decoded body.
    pub body: Vec<u8>,
}

impl Request {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(have, _)| have == name).map(|(_, value)| value.as_slice()).collect()
    }
}

/// What the rest of a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is left.
    Empty,
    /// The beginning of a request.
    Partial,
    /// Something no strict reader takes, and why.
    Malformed(&'static str),
}

/// Reads all requests of a stream.
pub fn parse(mut bytes: &[u8]) -> (Vec<Request>, Rest) {
    let mut requests = Vec::new();
    while !bytes.is_empty() {
        match one(bytes) {
            Ok(Some((request, length))) => {
                requests.push(request);
                bytes = &bytes[length..];
            }
            Ok(None) => return (requests, Rest::Partial),
            Err(why) => return (requests, Rest::Malformed(why)),
        }
    }
    (requests, Rest::Empty)
}

fn one(bytes: &[u8]) -> Result<Option<(Request, usize)>, &'static str> {
    let Some((lines, at)) = lines(bytes)? else { return Ok(None) };
    let (first, rest) = lines.split_first().ok_or("no request line")?;
    let first = std::str::from_utf8(first).map_err(|_| "request line beyond ASCII")?;
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err("request line") };
    if method.is_empty() || !method.bytes().all(token) {
        return Err("method");
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return Err("target");
    }
    let headers = rest.iter().map(|line| header(line)).collect::<Result<Vec<_>, _>>()?;
    let mut request = Request { method: method.into(), target: target.into(), headers, body: Vec::new() };
    if request.all("host").len() != 1 {
        return Err("not exactly one host");
    }
    let codings = request.all("transfer-encoding");
    let lengths = request.all("content-length");
    let end = match (&codings[..], &lengths[..]) {
        ([], []) => at,
        ([], [length]) => {
            let text = std::str::from_utf8(length).map_err(|_| "length")?;
            if text.is_empty() || text.len() > 19 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err("length");
            }
            let end = at.saturating_add(text.parse().map_err(|_| "length")?);
            let Some(body) = bytes.get(at..end) else { return Ok(None) };
            request.body = body.to_vec();
            end
        }
        ([b"chunked"], []) => match chunks(bytes, at)? {
            Some((body, end)) => {
                request.body = body;
                end
            }
            None => return Ok(None),
        },
        _ => return Err("framing"),
    };
    Ok(Some((request, end)))
}

/// The lines up to the empty one, and the offset after it.
#[allow(clippy::type_complexity, reason = "a list of lines and an offset need no name")]
fn lines(bytes: &[u8]) -> Result<Option<(Vec<&[u8]>, usize)>, &'static str> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let Some(end) = bytes[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)) else {
            return Ok(None);
        };
        match &bytes[at + end..] {
            [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => {}
            _ => return Err("bare CR, LF or NUL"),
        }
        let line = &bytes[at..at + end];
        at += end + 2;
        if line.is_empty() {
            return Ok(Some((lines, at)));
        }
        lines.push(line);
    }
}

fn header(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|byte| token(*byte)) {
        return Err("header name");
    }
    if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
        return Err("header value");
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii().to_vec()))
}

fn chunks(bytes: &[u8], mut at: usize) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + end]).map_err(|_| "chunk size")?;
        if size.is_empty() || size.len() > 15 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("chunk size");
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| "chunk size")?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at + size) else { return Ok(None) };
        body.extend_from_slice(data);
        at += size;
        match &bytes[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => at += 2,
            _ => return Err("chunk end"),
        }
    }
    let Some((trailers, end)) = lines(&bytes[at..])? else { return Ok(None) };
    for line in trailers {
        let (name, _) = header(line)?;
        if matches!(name.as_str(), "content-length" | "transfer-encoding" | "host") {
            return Err("trailer");
        }
    }
    Ok(Some((body, at + end)))
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_strictly() {
        let (requests, rest) = parse(
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST /b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
        assert_eq!((requests.len(), rest), (2, Rest::Empty));
        assert_eq!(requests[1].body, b"abc");
        for (bytes, rest) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n"[..], Rest::Partial),
            (b"GET / HTTP/1.1\nhost: a\r\n\r\n", Rest::Malformed("bare CR, LF or NUL")),
            (b"GET / HTTP/1.1\r\n\r\n", Rest::Malformed("not exactly one host")),
            (
                b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                Rest::Malformed("framing"),
            ),
        ] {
            assert_eq!(parse(bytes), (Vec::new(), rest));
        }
    }
}
