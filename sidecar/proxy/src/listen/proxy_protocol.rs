//! The PROXY protocol, versions 1 and 2: a header in front of the first bytes that says where a connection really comes from.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. As in Envoy, a connection without the header is closed
//! unless the listener allows it; what follows the addresses in version 2 (TLVs) is skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf as _, BytesMut};
use sidecar_model::listener::ProxyProtocol;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Begins version 1.
const V1: &[u8] = b"PROXY ";
/// Longest line of version 1, its end included.
const V1_MAX: usize = 107;
/// Begins version 2.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses.
const V2_HEAD: usize = 16;

/// The ends of a connection, as the header gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// What bytes say so far.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// More are needed.
    More,
    /// A header of that many bytes; no ends when it speaks of the proxy's own connection or of no address we know.
    Header(usize, Option<Ends>),
    /// No header of a version that is allowed.
    Absent,
    /// A header that breaks the protocol.
    Broken,
}

/// Reads the header. What was read beyond it stays in `input`.
///
/// The outer `None` means that the connection must be closed: it ended, has no header, or a broken one.
pub(super) async fn read(
    io: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    rules: ProxyProtocol,
) -> Option<Option<Ends>> {
    loop {
        match parse(input, rules) {
            Parsed::Header(length, ends) => {
                input.advance(length);
                return Some(ends);
            }
            Parsed::Absent => return rules.optional.then_some(None),
            Parsed::Broken => return None,
            Parsed::More => {}
        }
        if io.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

fn parse(input: &[u8], rules: ProxyProtocol) -> Parsed {
    let begins = |signature: &[u8]| {
        let length = input.len().min(signature.len());
        input[..length] == signature[..length]
    };
    if rules.version2 && begins(V2) {
        return if input.len() < V2_HEAD { Parsed::More } else { version2(input) };
    }
    if rules.version1 && begins(V1) {
        return version1(input);
    }
    Parsed::Absent
}

fn version1(input: &[u8]) -> Parsed {
    let window = &input[..input.len().min(V1_MAX)];
    let Some(end) = window.windows(2).position(|two| two == b"\r\n") else {
        return if window.len() < V1_MAX { Parsed::More } else { Parsed::Broken };
    };
    let Some(ends) = std::str::from_utf8(&input[V1.len()..end]).ok().and_then(line) else {
        return Parsed::Broken;
    };
    Parsed::Header(end + 2, ends)
}

/// What stands between `PROXY ` and the end of the line; none if it is wrong.
fn line(text: &str) -> Option<Option<Ends>> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut ip = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (ip()?, ip()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| plain)
    };
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then_some(Some(Ends {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

/// `input` has the whole head.
fn version2(input: &[u8]) -> Parsed {
    let (version, command, family) = (input[12] >> 4, input[12] & 0xf, input[13]);
    let length = usize::from(u16::from_be_bytes([input[14], input[15]]));
    if version != 2 || command > 1 {
        return Parsed::Broken;
    }
    // Family and transport: of TCP there are two.
    let needed = match family {
        0x11 => 12,
        0x21 => 36,
        _ => 0,
    };
    if command == 1 && length < needed {
        return Parsed::Broken;
    }
    if input.len() < V2_HEAD + length {
        return Parsed::More;
    }
    let body = &input[V2_HEAD..V2_HEAD + length];
    let ends = match (command, family) {
        // The proxy's own connection, to see whether we live.
        (0, _) => None,
        (_, 0x11) => addresses::<4>(body),
        (_, 0x21) => addresses::<16>(body),
        // Neither datagrams nor the sockets of one machine arrive here.
        (_, 0x00) => None,
        _ => return Parsed::Broken,
    };
    Parsed::Header(V2_HEAD + length, ends)
}

/// Two addresses of `N` bytes, then two ports.
fn addresses<const N: usize>(body: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let mut body = body;
    let source = IpAddr::from(take::<N>(&mut body)?);
    let destination = IpAddr::from(take::<N>(&mut body)?);
    let source_port = u16::from_be_bytes(take(&mut body)?);
    let destination_port = u16::from_be_bytes(take(&mut body)?);
    Some(Ends {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: ProxyProtocol = ProxyProtocol { optional: false, version1: true, version2: true };

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&V2[..], &[0x20 | command, family], &length, body].concat()
    }

    #[test]
    fn version1_is_read_to_the_letter() {
        let max = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - 16));
        for (text, want) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET",
                Parsed::Header(45, ends("192.0.2.1:56324", "198.51.100.2:443")),
            ),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Parsed::Header(32, ends("[2001:db8::1]:1", "[::1]:2"))),
            ("PROXY UNKNOWN\r\n", Parsed::Header(15, None)),
            ("PROXY UNKNOWN ffff::1 whatever\r\n", Parsed::Header(32, None)),
            (&max, Parsed::Header(V1_MAX, None)),
            (&max.replace("xx", "xxx"), Parsed::Broken),
            ("", Parsed::More),
            ("PRO", Parsed::More),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r", Parsed::More),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n", Parsed::Broken),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 7\r\n", Parsed::Broken),
            ("PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n", Parsed::Broken),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n", Parsed::Broken),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 01 443\r\n", Parsed::Broken),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", Parsed::Broken),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Parsed::Broken),
            ("PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", Parsed::Broken),
            ("PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n", Parsed::Broken),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n\r\n", Parsed::Broken),
            ("GET / HTTP/1.1\r\n", Parsed::Absent),
            ("proxy TCP4", Parsed::Absent),
        ] {
            assert_eq!(parse(text.as_bytes(), BOTH), want, "{text:?}");
        }
    }

    #[test]
    fn version2_is_read_to_the_byte() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb];
        let mut six = [0; 36];
        six[15] = 1;
        six[31] = 2;
        six[33] = 3;
        six[35] = 4;
        let tlv = [&four[..], &[4, 0, 2, 7, 7]].concat();
        for (bytes, want) in [
            (v2(1, 0x11, &four), Parsed::Header(28, ends("192.0.2.1:56324", "198.51.100.2:443"))),
            (v2(1, 0x11, &tlv), Parsed::Header(33, ends("192.0.2.1:56324", "198.51.100.2:443"))),
            (v2(1, 0x21, &six), Parsed::Header(52, ends("[::1]:3", "[::2]:4"))),
            (v2(0, 0x00, &[]), Parsed::Header(16, None)),
            (v2(0, 0x11, &four), Parsed::Header(28, None)),
            (v2(1, 0x00, &[1, 2]), Parsed::Header(18, None)),
            (v2(1, 0x11, &four)[..27].to_vec(), Parsed::More),
            (v2(1, 0x11, &four)[..15].to_vec(), Parsed::More),
            (v2(1, 0x11, &four[..11]), Parsed::Broken),
            (v2(1, 0x21, &six[..35]), Parsed::Broken),
            (v2(1, 0x12, &four), Parsed::Broken),
            (v2(1, 0x31, &[0; 216]), Parsed::Broken),
            (v2(2, 0x11, &four), Parsed::Broken),
            ([&V2[..], &[0x11, 0x11, 0, 0]].concat(), Parsed::Broken),
            (V2[..11].to_vec(), Parsed::More),
        ] {
            assert_eq!(parse(&bytes, BOTH), want, "{bytes:?}");
        }
    }

    #[test]
    fn versions_can_be_forbidden() {
        let (one, two) = (&b"PROXY UNKNOWN\r\n"[..], v2(0, 0, &[]));
        let only = |version1, version2| ProxyProtocol { version1, version2, ..BOTH };
        assert_eq!(parse(one, only(false, true)), Parsed::Absent);
        assert_eq!(parse(&two, only(true, false)), Parsed::Absent);
        assert_eq!(parse(one, only(true, false)), Parsed::Header(15, None));
        assert_eq!(parse(&two, only(false, true)), Parsed::Header(16, None));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), cut in 0..13usize) {
            for input in [bytes.clone(), [V1, &bytes[..]].concat(), [&V2[..cut.min(12)], &bytes[..]].concat()] {
                if let Parsed::Header(length, _) = parse(&input, BOTH) {
                    proptest::prop_assert!(length <= input.len());
                }
            }
        }
    }
}
