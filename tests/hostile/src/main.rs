//! A sidecar's data path with the configuration of a test (`spec::Spec` as JSON, the only argument). Prints `NAME ADDRESS` for each
//! listener, then `ready`, and runs until it is killed or its standard input ends.

#[path = "../../../sidecar/proxy/src/tests/build.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared with the data path's own tests, which use all of it"
)]
mod build;

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base_tls::{CertificateAuthority, LeafProfile, Material, Roots, Rotating};
use sidecar_model::cluster::UpstreamProtocol;
use sidecar_model::hcm::ForwardClientCert;
use sidecar_model::listener::Direction;
use sidecar_model::{Listener, Snapshot};
use sidecar_proxy::{Node, NodeKind, Options, Proxy};
use sidecar_telemetry::{Metrics, Workload};
use tests_hostile::{ListenerSpec, Spec};

fn main() -> Result<()> {
    let text = std::env::args().nth(1).context("usage: sidecar-under-test SPEC")?;
    let spec: Spec = serde_json::from_str(&text)?;
    let identity = if spec.listeners.iter().any(|one| one.tls) { identity()? } else { Rotating::empty() };
    let node =
        Node::new(NodeKind::Sidecar, "sidecar~127.0.0.1~x.y~y.svc", Workload::default(), Vec::new(), "host");
    let workers = spec.workers.max(1);
    let proxy = Proxy::start(Options {
        workers,
        node,
        identity,
        metrics: Metrics::default(),
        inherited: Vec::new(),
    })?;
    proxy.apply(Arc::new(snapshot(&spec)));
    for listener in &spec.listeners {
        let address = loop {
            if let Some(address) =
                proxy.bound().get(listener.name.as_str()).and_then(|all| all.first().copied())
            {
                break address;
            }
            std::thread::yield_now();
        };
        println!("{} {address}", listener.name);
    }
    println!("ready");
    // The test that started us keeps the other end: when it ends, however it ends, so do we.
    let mut byte = [0; 1];
    while std::io::stdin().read(&mut byte)? > 0 {}
    Ok(())
}

fn snapshot(spec: &Spec) -> Snapshot {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let clusters = spec.listeners.iter().map(|one| {
        let mut cluster = build::cluster(&one.name, &[one.upstream.unwrap_or(nowhere)]);
        if one.upstream_http2 {
            cluster.http.protocol = UpstreamProtocol::Http2;
        }
        cluster
    });
    build::snapshot(spec.listeners.iter().map(listener).collect(), clusters.collect())
}

fn listener(spec: &ListenerSpec) -> Listener {
    let direction = if spec.inbound { Direction::Inbound } else { Direction::Outbound };
    let tls = spec.tls.then(build::mesh_tls);
    if spec.tcp {
        return build::listener(&spec.name, direction, vec![build::chain(build::tcp(&spec.name), tls)]);
    }
    let mut manager = build::manager(build::routes(vec![build::route(&spec.name)]), Vec::new());
    let some = |milliseconds: u64| (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
    manager.request_headers_timeout = some(spec.head_timeout_ms);
    manager.stream_idle_timeout = some(spec.stream_idle_timeout_ms);
    manager.idle_timeout = some(spec.idle_timeout_ms);
    manager.request_timeout = some(spec.request_timeout_ms);
    manager.generate_request_id = spec.request_ids;
    manager.use_remote_address = spec.edge;
    manager.skip_xff_append = !spec.edge;
    manager.preserve_external_request_id = !spec.edge;
    manager.xff_num_trusted_hops = spec.trusted_hops;
    manager.forward_client_cert = match spec.client_cert.as_str() {
        "forward_only" => ForwardClientCert::ForwardOnly,
        "always_forward_only" => ForwardClientCert::AlwaysForwardOnly,
        _ => ForwardClientCert::Sanitize,
    };
    build::http_listener(&spec.name, direction, manager, tls)
}

fn identity() -> Result<Rotating> {
    let authority = CertificateAuthority::generate("mesh", "hostile", Duration::from_secs(3600))?;
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
