//! A data path with fixed configuration, for measuring by hand:
//! `forward backend` answers 1 KiB to everything, `forward plain ADDRESS` forwards to an address,
//! `forward mesh ADDRESS` forwards through an outbound and an inbound side with mutual TLS in one process, `h2` after it for HTTP/2
//! between them. Each prints the address it listens on.

#[path = "../src/tests/build.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests, which use all of it")]
mod build;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base_tls::{CertificateAuthority, LeafProfile, Material, Roots, Rotating};
use http::{Request, Response};
use sidecar_http::{Body, Drain, Handler, Limits, ParseError, Reply, h1};
use sidecar_model::Snapshot;
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::listener::Direction;
use sidecar_proxy::{Node, NodeKind, Options, Proxy};
use sidecar_telemetry::{Metrics, Workload};
use tokio::runtime::{Builder, LocalOptions};

use build::{cluster, http_listener, manager, mesh_tls, mutual, route, routes, snapshot};

struct Backend;

impl Handler for Backend {
    async fn handle(&self, _: Request<Body>) -> Reply {
        static BODY: [u8; 1024] = [b'x'; 1024];
        Reply::new(Response::new(Body::full(&BODY[..])))
    }

    fn refused(&self, _: ParseError) {}
}

fn backend() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let drain = Drain::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let watch = drain.watch();
            tokio::task::spawn_local(async move {
                h1::serve(Box::new(stream), Default::default(), Rc::new(Limits::default()), watch, &Backend)
                    .await
            });
        }
    })
}

fn proxy(identity: Rotating, snapshot: Snapshot) -> Result<Proxy, Box<dyn std::error::Error>> {
    let node =
        Node::new(NodeKind::Sidecar, "sidecar~127.0.0.1~x.y~y.svc", Workload::default(), Vec::new(), "bench");
    let proxy = Proxy::start(Options {
        workers: 1,
        node,
        identity,
        metrics: Metrics::default(),
        inherited: Vec::new(),
    })?;
    proxy.apply(Arc::new(snapshot));
    Ok(proxy)
}

fn address(proxy: &Proxy, listener: &str) -> SocketAddr {
    loop {
        if let Some(address) = proxy.bound().get(listener).and_then(|all| all.first().copied()) {
            return address;
        }
        std::thread::yield_now();
    }
}

fn identity(authority: &CertificateAuthority) -> Result<Rotating, Box<dyn std::error::Error>> {
    let profile = LeafProfile {
        spiffe_id: Some("spiffe://cluster.local/ns/default/sa/a".parse()?),
        server: true,
        client: true,
        lifetime: Duration::from_secs(3600),
        ..LeafProfile::default()
    };
    let issued = authority.issue(&profile)?;
    let roots = Roots::from_pem(authority.certificate_pem())?;
    Ok(Rotating::new(Material::from_pem(&issued.chain_pem, &issued.key_pem, Some(roots))?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outbound = |cluster: &str| {
        http_listener("out", Direction::Outbound, manager(routes(vec![route(cluster)]), vec![]), None)
    };
    let running = match args[..] {
        ["backend"] => return backend(),
        ["plain", to] => {
            vec![proxy(Rotating::empty(), snapshot(vec![outbound("c")], vec![cluster("c", &[to.parse()?])]))?]
        }
        ["mesh", to, ref rest @ ..] => {
            let protocol = if rest == ["h2"] { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
            let authority = CertificateAuthority::generate("mesh", "bench", Duration::from_secs(3600))?;
            let routes_in = manager(routes(vec![route("local")]), vec![]);
            let inner = http_listener("in", Direction::Inbound, routes_in, Some(mesh_tls()));
            let server =
                proxy(identity(&authority)?, snapshot(vec![inner], vec![cluster("local", &[to.parse()?])]))?;
            let name = "spiffe://cluster.local/ns/default/sa/a";
            let upstream = mutual(cluster("c", &[address(&server, "in")]), name, protocol);
            let client = proxy(identity(&authority)?, snapshot(vec![outbound("c")], vec![upstream]))?;
            vec![client, server]
        }
        _ => return Err("usage: forward backend | plain ADDRESS | mesh ADDRESS [h2]".into()),
    };
    println!("{}", address(&running[0], "out"));
    loop {
        std::thread::park();
    }
}
