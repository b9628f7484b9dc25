//! New connections: with one request each, with a TLS handshake each, or left open.

use super::closed::read_response;
use super::{Counts, Load, REQUEST, Window, drive};
use crate::identity::Identity;
use anyhow::{Context, Result};
use base_tls::{Client, ServerCheck};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const CLOSING_REQUEST: &[u8] =
    b"GET /products/1 HTTP/1.1\r\nhost: app.default.svc.cluster.local\r\nconnection: close\r\n\r\n";
const SERVER: &str = "app.default.svc.cluster.local";

/// Whether handshakes begin from nothing or resume a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshakes {
    Full,
    Resumed,
}

/// `clients` open a connection, ask once, and are told to go; again and again.
pub fn connections(address: SocketAddr, clients: usize, window: &Window<'_>) -> Result<Load> {
    drive(clients, window, |counts| async move {
        let mut input = Vec::with_capacity(8192);
        while !counts.ended.get() {
            let sent = Instant::now();
            let stream = connect(address).await?;
            once(stream, &mut input).await?;
            counts.answered(sent);
        }
        Ok(())
    })
}

/// The same over mutual TLS.
pub fn handshakes(
    address: SocketAddr,
    clients: usize,
    kind: Handshakes,
    identity: &Identity,
    window: &Window<'_>,
) -> Result<Load> {
    let material = identity.rotating()?;
    let client = move || Client::new(&material, ServerCheck::ChainOnly, &[b"http/1.1"]);
    drive(clients, window, |counts| shake(address, kind, client.clone(), counts))
}

async fn shake(
    address: SocketAddr,
    kind: Handshakes,
    client: impl Fn() -> Client,
    counts: Rc<Counts>,
) -> Result<()> {
    let mut input = Vec::with_capacity(8192);
    let mut current = client();
    while !counts.ended.get() {
        if kind == Handshakes::Full {
            // A new client knows no session.
            current = client();
        }
        let sent = Instant::now();
        let stream = connect(address).await?;
        stream.set_nodelay(true)?;
        once(current.connect(stream, SERVER).await?, &mut input).await?;
        counts.answered(sent);
    }
    Ok(())
}

/// A connection; when all ports towards the address rest after use, as soon as there is one again.
async fn connect(address: SocketAddr) -> Result<TcpStream> {
    loop {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            other => return other.with_context(|| format!("cannot connect to {address}")),
        }
    }
}

/// One request, answered; then the connection is closed by whoever is first.
async fn once<S: tokio::io::AsyncRead + AsyncWriteExt + Unpin>(
    mut stream: S,
    input: &mut Vec<u8>,
) -> Result<()> {
    stream.write_all(CLOSING_REQUEST).await?;
    stream.flush().await?;
    read_response(&mut stream, input).await
}

/// Opens `count` connections that have each had one answer, calls `look` while they rest, and closes them.
pub fn idle<T>(
    address: SocketAddr,
    count: usize,
    tls: Option<&Identity>,
    look: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = match tls {
        Some(identity) => Some(Client::new(&identity.rotating()?, ServerCheck::ChainOnly, &[b"http/1.1"])),
        None => None,
    };
    runtime.block_on(async {
        let (mut plain, mut secured) = (Vec::new(), Vec::new());
        let mut input = Vec::with_capacity(8192);
        for _ in 0..count {
            let mut stream = connect(address).await?;
            if let Some(client) = &client {
                let mut stream = client.connect(stream, SERVER).await?;
                stream.write_all(REQUEST).await?;
                stream.flush().await?;
                read_response(&mut stream, &mut input).await?;
                secured.push(stream);
            } else {
                stream.write_all(REQUEST).await?;
                read_response(&mut stream, &mut input).await?;
                plain.push(stream);
            }
        }
        look()
    })
}
