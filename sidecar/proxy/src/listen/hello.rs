//! Reading a TLS client hello without taking it off the stream: server name and ALPN (RFC 8446, 4.1.2; RFC 6066; RFC 7301).

/// Bytes of a client hello that is looked at; a longer one is refused.
pub(super) const HELLO_MAX: usize = 16 * 1024;

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// What a client hello asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientHello {
    pub(super) server_name: Option<Box<str>>,
    pub(super) alpn: Vec<Box<str>>,
}

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a hello.
    More,
    /// Not TLS.
    NotTls,
    /// A hello.
    Hello(ClientHello),
}

/// Looks at the first bytes of a stream.
pub(super) fn parse(input: &[u8]) -> Parsed {
    match input {
        [] => return Parsed::More,
        [RECORD_HANDSHAKE] => return Parsed::More,
        [RECORD_HANDSHAKE, 3, ..] => {}
        _ => return Parsed::NotTls,
    }
    let mut message = Vec::new();
    let mut rest = input;
    while let Some((header, after)) = rest.split_at_checked(5) {
        if header[0] != RECORD_HANDSHAKE || header[1] != 3 {
            return Parsed::NotTls;
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > HELLO_MAX {
            return Parsed::NotTls;
        }
        let fragment = &after[..length.min(after.len())];
        message.extend_from_slice(fragment);
        if let [kind, a, b, c, body @ ..] = &message[..] {
            let wanted = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != CLIENT_HELLO || wanted > HELLO_MAX {
                return Parsed::NotTls;
            }
            if body.len() >= wanted {
                return hello(&body[..wanted]).map_or(Parsed::NotTls, Parsed::Hello);
            }
        }
        if fragment.len() < length {
            return Parsed::More;
        }
        rest = &after[length..];
    }
    Parsed::More
}

/// Whether the bytes can be the beginning of a handshake.
pub(super) fn begins(input: &[u8]) -> bool {
    input.first() == Some(&RECORD_HANDSHAKE)
}

/// Takes values off the front of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.take(1)?[0]);
        self.take(length)
    }

    fn vec16(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    let mut found = ClientHello::default();
    reader.take(2 + 32)?;
    reader.vec8()?;
    reader.vec16()?;
    reader.vec8()?;
    if reader.0.is_empty() {
        return Some(found);
    }
    let mut extensions = Reader(reader.vec16()?);
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.u16()?, extensions.vec16()?);
        match kind {
            EXTENSION_SERVER_NAME => {
                let mut names = Reader(Reader(content).vec16()?);
                while !names.0.is_empty() {
                    let (kind, name) = (names.take(1)?[0], names.vec16()?);
                    if kind == 0 {
                        found.server_name = Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase().into());
                    }
                }
            }
            EXTENSION_ALPN => {
                let mut protocols = Reader(Reader(content).vec16()?);
                while !protocols.0.is_empty() {
                    found.alpn.push(std::str::from_utf8(protocols.vec8()?).ok()?.into());
                }
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with server name `a.test` and ALPN `istio`, `h2`, in records of `size` bytes.
    fn sample(size: usize) -> Vec<u8> {
        let mut extensions = vec![0, 0, 0, 11, 0, 9, 0, 0, 6];
        extensions.extend(b"A.test");
        extensions.extend([0, 16, 0, 11, 0, 9, 5]);
        extensions.extend(b"istio");
        extensions.push(2);
        extensions.extend(b"h2");
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut message = vec![CLIENT_HELLO, 0, 0, u8::try_from(body.len()).unwrap()];
        message.extend(body);
        let records = message.chunks(size).map(|part| {
            let mut record = vec![RECORD_HANDSHAKE, 3, 1, 0, u8::try_from(part.len()).unwrap()];
            record.extend(part);
            record
        });
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn names_are_read_however_the_hello_is_cut() {
        let want =
            ClientHello { server_name: Some("a.test".into()), alpn: vec!["istio".into(), "h2".into()] };
        for size in [5, 40, 200] {
            let bytes = sample(size);
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Parsed::More, "{end} of {}", bytes.len());
            }
            assert_eq!(
                parse(&bytes),
                Parsed::Hello(ClientHello { server_name: want.server_name.clone(), alpn: want.alpn.clone() })
            );
        }
    }

    #[test]
    fn other_bytes_are_not_tls() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            b"\x16\x02\x01",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        ] {
            assert_eq!(parse(bytes), Parsed::NotTls, "{bytes:?}");
        }
        let mut bytes = sample(200);
        for at in 5..bytes.len() {
            let kept = bytes[at];
            bytes[at] = 0xff;
            parse(&bytes);
            bytes[at] = kept;
        }
    }
}
