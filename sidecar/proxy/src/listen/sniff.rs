//! The first bytes of a connection: TLS with its names, HTTP/1, HTTP/2, or anything else. Bounded in bytes and time.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use sidecar_http::h2::PREFACE;
use sidecar_http::{Prefixed, buffer};
use sidecar_model::filter_chain::{Terminal, TransportProtocol};
use sidecar_model::tcp::TcpCluster;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hello::{self, HELLO_MAX, Parsed};
use crate::config::{ChainPlan, ListenerPlan};

/// How long a client that sends nothing is waited for when the listener does not say: then it is a server-first protocol.
const SILENCE: Duration = Duration::from_secs(5);
/// The same where nothing speaks first.
const IDLE: Duration = Duration::from_secs(3600);
/// Clusters of connections to destinations that the mesh does not know.
const ANYWHERE: [&str; 3] = ["PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"];
/// How long the rest of a beginning may take.
const BEGUN: Duration = Duration::from_secs(10);
/// Bytes of a request line that is looked at.
const LINE_MAX: usize = 8 * 1024;

const METHODS: [&[u8]; 12] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"TRACE ",
    b"CONNECT ",
    b"PROPFIND ",
    b"MKCOL ",
    b"REPORT ",
];

/// What the first bytes say.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sniffed {
    /// They begin a TLS handshake.
    pub(crate) tls: bool,
    /// The server name asked for.
    pub(crate) server_name: Option<Box<str>>,
    /// ALPN of the handshake, or `http/1.0`, `http/1.1` or `h2c`.
    pub(crate) protocols: Vec<Box<str>>,
}

/// What is to be found out.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    tls: bool,
    http: bool,
}

/// Looks at the first bytes, if the listener's chains depend on them; none if the client went away or took too long. `early` are bytes
/// that were read already.
pub(super) async fn first_bytes(
    stream: TcpStream,
    early: BytesMut,
    plan: &ListenerPlan,
) -> Option<(Prefixed<TcpStream>, Sniffed)> {
    let wanted = wanted(plan);
    if !wanted.tls && !wanted.http {
        return Some((Prefixed::new(early, stream), Sniffed::default()));
    }
    if let Some(sniffed) = (!early.is_empty()).then(|| judge(&early, wanted)).flatten() {
        return Some((Prefixed::new(early, stream), sniffed));
    }
    let mut stream = stream;
    let limit = plan.listener.listener_filters_timeout.filter(|limit| !limit.is_zero());
    let goes_on = limit.is_none() || plan.listener.continue_on_listener_filters_timeout;
    match timeout(limit.unwrap_or_else(|| patience(plan)), stream.readable()).await {
        Ok(Ok(())) => {}
        Err(_) if goes_on => return Some((Prefixed::new(early, stream), Sniffed::default())),
        Ok(Err(_)) | Err(_) => return None,
    }
    let mut input = buffer::take();
    input.extend_from_slice(&early);
    let reading = read(&mut stream, &mut input, wanted);
    match timeout(limit.unwrap_or(BEGUN), reading).await {
        Ok(Some(sniffed)) => Some((Prefixed::new(input, stream), sniffed)),
        // A handshake that was begun and not gone on with is no other protocol.
        Err(_) if goes_on && !hello::begins(&input) => {
            Some((Prefixed::new(input, stream), Sniffed::default()))
        }
        Ok(None) | Err(_) => None,
    }
}

/// Where bytes that are not HTTP lead to a service, the client may be waiting for that service to speak first. Where they lead nowhere
/// in particular, a silent client is one that has opened its connection ahead of its first request.
fn patience(plan: &ListenerPlan) -> Duration {
    let anywhere = |chain: &&Arc<ChainPlan>| match &chain.chain.terminal {
        Terminal::Http(_) => true,
        Terminal::Tcp(tcp) => {
            matches!(&tcp.cluster, TcpCluster::Single(name) if ANYWHERE.contains(&&**name))
        }
    };
    if plan.chains.iter().chain(&plan.default).all(|chain| anywhere(&chain)) { IDLE } else { SILENCE }
}

/// Only what a chain's match depends on is waited for: a listener with a single chain reads nothing ahead.
fn wanted(plan: &ListenerPlan) -> Wanted {
    let filters = plan.listener.listener_filters;
    let mut matches = plan.chains.iter().map(|chain| &chain.chain.matches);
    let depends = matches.any(|one| {
        one.transport_protocol != TransportProtocol::Any
            || !one.application_protocols.is_empty()
            || !one.server_names.is_empty()
    });
    Wanted { tls: depends && filters.tls_inspector, http: depends && filters.http_inspector }
}

async fn read(stream: &mut TcpStream, input: &mut BytesMut, wanted: Wanted) -> Option<Sniffed> {
    loop {
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
        if let Some(sniffed) = judge(input, wanted) {
            return Some(sniffed);
        }
    }
}

/// What the bytes so far say; none if more are needed.
fn judge(input: &[u8], wanted: Wanted) -> Option<Sniffed> {
    if wanted.tls {
        match hello::parse(input) {
            Parsed::More if input.len() < 2 * HELLO_MAX => return None,
            Parsed::Hello(hello) => {
                return Some(Sniffed { tls: true, server_name: hello.server_name, protocols: hello.alpn });
            }
            Parsed::More | Parsed::NotTls => {}
        }
    }
    if !wanted.http {
        return Some(Sniffed::default());
    }
    http(input).map(|protocol| Sniffed {
        protocols: protocol.map(Into::into).into_iter().collect(),
        ..Sniffed::default()
    })
}

/// Which HTTP the bytes begin, if any; none if more are needed.
fn http(input: &[u8]) -> Option<Option<&'static str>> {
    if input.len() >= PREFACE.len() && input.starts_with(PREFACE) {
        return Some(Some("h2c"));
    }
    if PREFACE.starts_with(input) {
        return None;
    }
    let Some(method) =
        METHODS.iter().find(|method| method.starts_with(&input[..input.len().min(method.len())]))
    else {
        return Some(None);
    };
    if input.len() < method.len() {
        return None;
    }
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return if input.len() > LINE_MAX { Some(None) } else { None };
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    Some(match line {
        _ if line.ends_with(b" HTTP/1.1") => Some("http/1.1"),
        _ if line.ends_with(b" HTTP/1.0") => Some("http/1.0"),
        _ => None,
    })
}

/// Whether HTTP/2 begins, for a connection that is known to be HTTP; none if more bytes are needed.
pub(crate) fn is_http2(input: &[u8]) -> Option<bool> {
    let length = input.len().min(PREFACE.len());
    if input[..length] != PREFACE[..length] {
        return Some(false);
    }
    (length >= 16).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_from_other_bytes() {
        for (input, want) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Some("http/1.1"))),
            (b"POST /x HTTP/1.0\r\nHost", Some(Some("http/1.0"))),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(Some("h2c"))),
            (b"PRI * HT", None),
            (b"P", None),
            (b"GE", None),
            (b"GET /long", None),
            (b"GETX / HTTP/1.1\r\n", Some(None)),
            (b"get / HTTP/1.1\r\n", Some(None)),
            (b"GET / SMTP\r\n", Some(None)),
            (b"*1\r\n$4\r\nPING\r\n", Some(None)),
            (b"\0\0\0\x08", Some(None)),
        ] {
            assert_eq!(http(input), want, "{:?}", String::from_utf8_lossy(input));
        }
        assert_eq!(is_http2(b"PRI * HTTP/2.0\r\n"), Some(true));
        assert_eq!(is_http2(b"PRI"), None);
        assert_eq!(is_http2(b"POST"), Some(false));
    }
}
