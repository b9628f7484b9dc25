//! Two things to measure others by: a minimal proxy over hyper, which does nothing but forward, and a loop that copies bytes.
//!
//! Each argument is `KIND:PORT:NEXT`: what arrives on loopback port PORT goes to port NEXT. KIND is `copy` or `http`, followed by any of
//! `+tls-in`, `+tls-out` (mutual TLS with `server.pem` or `client.pem` of the working directory), `+h2-in` and `+h2-out`.

mod forward;

use anyhow::{Context, Result};
use base_tls::{Client, ClientAuth, Material, Roots, Rotating, Server, ServerCheck};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

/// Buffer of each direction of a copied connection.
const COPY_BYTES: usize = 64 * 1024;

/// Either a socket or a TLS session over one.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// One way through.
struct Way {
    http: bool,
    h2_in: bool,
    h2_out: bool,
    tls_in: Option<Server>,
    next: Next,
}

/// Where a way leads.
#[derive(Clone)]
struct Next {
    address: SocketAddr,
    tls: Option<Client>,
}

fn main() -> Result<()> {
    base_tls::install_default_provider();
    let ways: Vec<String> = std::env::args().skip(1).collect();
    if ways.first().is_some_and(|first| first == "--version") {
        println!("perf peer {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        for text in ways {
            let (way, port) = parse(&text).with_context(|| format!("`{text}` is not KIND:PORT:NEXT"))?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            spawn_local(accept(listener, Rc::new(way)));
        }
        std::future::pending::<Result<()>>().await
    })
}

fn parse(text: &str) -> Result<(Way, u16)> {
    let mut fields = text.split(':');
    let mut field = || fields.next().context("a field is missing");
    let (kind, port, next) = (field()?, field()?.parse()?, field()?.parse()?);
    let flag = |name: &str| kind.split('+').any(|word| word == name);
    let h2_out = flag("h2-out");
    let alpn: &[&[u8]] = match (flag("http"), h2_out) {
        (false, _) => &[],
        (true, true) => &[b"h2"],
        (true, false) => &[b"http/1.1"],
    };
    let tls_in = if flag("tls-in") {
        let alpn: &[&[u8]] = if flag("http") { &[b"h2", b"http/1.1"] } else { &[] };
        Some(Server::new(&identity("server")?, ClientAuth::Required, alpn))
    } else {
        None
    };
    let tls = if flag("tls-out") {
        Some(Client::new(&identity("client")?, ServerCheck::ChainOnly, alpn))
    } else {
        None
    };
    let next = Next { address: SocketAddr::from((Ipv4Addr::LOCALHOST, next)), tls };
    Ok((Way { http: flag("http"), h2_in: flag("h2-in"), h2_out, tls_in, next }, port))
}

fn identity(name: &str) -> Result<Rotating> {
    let read = |file: String| std::fs::read_to_string(&file).context(file);
    let roots = Roots::from_pem(&read("root.pem".into())?)?;
    let (chain, key) = (read(format!("{name}.pem"))?, read(format!("{name}.key"))?);
    Ok(Rotating::new(Material::from_pem(&chain, &key, Some(roots))?))
}

async fn accept(listener: TcpListener, way: Rc<Way>) {
    let pool = Rc::new(forward::Pool::new(way.next.clone(), way.h2_out));
    while let Ok((stream, _)) = listener.accept().await {
        let (way, pool) = (Rc::clone(&way), Rc::clone(&pool));
        // A connection ends as its ends like.
        spawn_local(async move { drop(serve(stream, &way, pool).await) });
    }
}

async fn serve(stream: TcpStream, way: &Way, pool: Rc<forward::Pool>) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut stream, http2): (Box<dyn Io>, bool) = match &way.tls_in {
        None => (Box::new(stream), way.h2_in),
        Some(server) => {
            let stream = server.accept(stream).await?;
            let http2 = stream.alpn() == Some(b"h2");
            (Box::new(stream), http2)
        }
    };
    if way.http {
        return forward::serve(stream, http2, pool).await;
    }
    let mut next = way.next.connect().await?;
    copy_bidirectional_with_sizes(&mut stream, &mut next, COPY_BYTES, COPY_BYTES).await?;
    Ok(())
}

impl Next {
    async fn connect(&self) -> Result<Box<dyn Io>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(client) => Box::new(client.connect(stream, "app.default.svc.cluster.local").await?),
        })
    }
}
