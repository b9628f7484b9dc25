//! From an accepted socket to the filter chain that serves it: original destination, first bytes, TLS, connection rules.

mod chains;
mod hello;
mod proxy_protocol;
mod sniff;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base_tls::{PeerCertificate, TlsStream};
use base_types::error::ErrorChain;
use bytes::BytesMut;
use sidecar_http::{BoxIo, Prefixed};
use sidecar_model::NetworkFilter;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::config::{ChainPlan, ChainTls, ListenerPlan};
use crate::rbac::{self, Peer};
use crate::worker::{Counted, Worker};
use crate::{http, tcp};

pub(crate) use sniff::{Sniffed, is_http2};

/// A TLS handshake may take this long, unless the chain says otherwise.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// During a drain, a connection's first bytes must come within this time.
const DRAINING_FIRST: Duration = Duration::from_secs(1);
/// How often an open connection of bytes is held against the configuration.
pub(crate) const RECHECK: Duration = Duration::from_secs(5);

/// A client's connection, as everything after its acceptance sees it.
#[derive(Debug)]
pub(crate) struct Downstream {
    pub(crate) id: u64,
    pub(crate) worker: Rc<Worker>,
    /// Where the client wanted to go.
    pub(crate) local: SocketAddr,
    /// Where it comes from, as a PROXY protocol header says if there was one.
    pub(crate) peer: SocketAddr,
    /// Whose socket it is.
    pub(crate) direct: SocketAddr,
    pub(crate) listener: Arc<ListenerPlan>,
    pub(crate) tls: Option<DownstreamTls>,
    /// The server name of a client hello that was seen, whether or not TLS ended here.
    pub(crate) server_name: Box<str>,
    /// What the first bytes said.
    sniffed: Sniffed,
}

/// What a client's TLS handshake settled.
#[derive(Debug)]
pub(crate) struct DownstreamTls {
    pub(crate) peer: Option<Arc<PeerCertificate>>,
    pub(crate) principal: Arc<str>,
    pub(crate) alpn: Option<Box<[u8]>>,
    pub(crate) version: &'static str,
}

impl Downstream {
    /// The client's proven identity; empty: none.
    pub(crate) fn principal(&self) -> Arc<str> {
        match &self.tls {
            Some(tls) => Arc::clone(&tls.principal),
            None => sidecar_telemetry::labels::no_principal(),
        }
    }

    /// The chain that a connection like this one gets from `plan`, if it can go on under it as it is. `http2` is what an HTTP connection
    /// speaks; bytes go on as bytes only.
    pub(crate) fn chain_in<'a>(
        &self,
        plan: &'a ListenerPlan,
        http2: Option<bool>,
    ) -> Option<&'a Arc<ChainPlan>> {
        let mut sniffed = self.sniffed.clone();
        // What was not looked at in the beginning is known by now.
        sniffed.tls |= self.tls.is_some();
        if sniffed.server_name.is_none() {
            sniffed.server_name = Some(self.server_name.clone()).filter(|name| !name.is_empty());
        }
        match (&self.tls, http2) {
            (Some(tls), _) => {
                let alpn = tls.alpn.as_deref().and_then(|alpn| std::str::from_utf8(alpn).ok());
                sniffed.protocols.extend(alpn.map(Into::into));
                if tls.peer.is_some() && http2.is_some() {
                    // A peer of the mesh is one whatever it offered: the handshake keeps the inner protocol only.
                    sniffed.protocols.extend(["istio-h2", "istio-http/1.1"].map(Into::into));
                }
            }
            (None, Some(true)) => sniffed.protocols.push("h2c".into()),
            (None, Some(false)) => sniffed.protocols.push("http/1.1".into()),
            (None, None) => {}
        }
        let facts =
            chains::Facts { local: self.local, peer: self.peer, direct: self.direct, sniffed: &sniffed };
        let chain = chains::choose(plan, &facts)?;
        let same_sort = chain.http.is_some() == http2.is_some();
        (chain.tls.is_some() == self.tls.is_some() && same_sort).then_some(chain)
    }

    /// Whether the configuration, if it is another than the one of version `seen`, takes no connection like this one any more: its
    /// listener has no chain for it, or authorization refuses it. A listener that is gone closes nothing.
    pub(crate) fn is_orphaned(&self, seen: &mut u64, http2: Option<bool>) -> bool {
        let shared = &self.worker.shared;
        let config = shared.config.load();
        if config.version == *seen {
            return false;
        }
        *seen = config.version;
        let Some(listener) = config.listeners.get(&self.listener.listener.name) else { return false };
        let chain = self.chain_in(listener, http2);
        let orphaned = chain.is_none_or(|chain| denied(self, chain).is_some());
        if orphaned {
            shared.stats.downstream_cx_orphaned.fetch_add(1, Relaxed);
            tracing::debug!(local = %self.local, peer = %self.peer, "Connection ends: the configuration takes it no more");
        }
        orphaned
    }

    /// Waits until the configuration takes no upgraded HTTP/1.1 connection like this one any more.
    pub(crate) async fn orphaned(&self) {
        let mut seen = self.worker.shared.config.load().version;
        let mut tick = tokio::time::interval(RECHECK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.reset();
        loop {
            tick.tick().await;
            if self.is_orphaned(&mut seen, Some(false)) {
                return;
            }
        }
    }

    pub(crate) fn is_mutual(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.peer.is_some())
    }
}

/// Serves one accepted connection to its end.
pub(crate) async fn connection(
    accepted: Counted,
    mut plan: Arc<ListenerPlan>,
    mut stream: TcpStream,
    direct: SocketAddr,
) {
    let worker = Rc::clone(accepted.worker());
    // Small writes are gathered here already; Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let Ok(mut local) = stream.local_addr() else { return };
    let mut peer = direct;
    let proxy_protocol = plan.listener.listener_filters.proxy_protocol;
    if plan.listener.listener_filters.original_dst || plan.listener.use_original_dst {
        local = original_destination(&stream).unwrap_or(local);
        if plan.listener.use_original_dst {
            let config = worker.shared.config.load();
            if let Some(found) = config.listener_for(local) {
                plan = Arc::clone(found);
            }
        }
    }
    let mut input = BytesMut::new();
    if let Some(rules) = proxy_protocol {
        let limit = plan.listener.listener_filters_timeout.unwrap_or(HANDSHAKE);
        let Ok(Some(ends)) = timeout(limit, proxy_protocol::read(&mut stream, &mut input, rules)).await
        else {
            worker.shared.stats.proxy_protocol_errors.fetch_add(1, Relaxed);
            tracing::debug!(listener = %plan.listener.name, %peer, "Connection without a proper PROXY protocol header");
            return;
        };
        if let Some(ends) = ends {
            (peer, local) = (ends.source, ends.destination);
        }
    }
    let first = unless_draining(&worker, sniff::first_bytes(stream, input, &plan)).await;
    let Some((stream, sniffed)) = first else { return };
    let facts = chains::Facts { local, peer, direct, sniffed: &sniffed };
    let Some(chain) = chains::choose(&plan, &facts).map(Arc::clone) else {
        worker.shared.stats.no_filter_chain_match.fetch_add(1, Relaxed);
        tracing::debug!(listener = %plan.listener.name, %local, %peer, "Connection matches no filter chain");
        return;
    };
    let mut downstream = Downstream {
        id: worker.shared.connection_id(),
        worker: Rc::clone(&worker),
        local,
        peer,
        direct,
        listener: plan,
        tls: None,
        server_name: sniffed.server_name.clone().unwrap_or_default(),
        sniffed,
    };
    match &chain.tls {
        None => {
            let (prefix, stream) = stream.into_parts();
            spawn_local(serve(accepted, downstream, chain, Box::new(stream), prefix));
        }
        Some(tls) => {
            let limit = chain.chain.transport_connect_timeout.unwrap_or(HANDSHAKE);
            match timeout(limit, tls.server.accept(stream)).await {
                Ok(Ok(stream)) if accepts(tls, stream.peer()) => {
                    downstream.tls = Some(settled(&worker, &stream));
                    if let Some(name) = stream.sni() {
                        downstream.server_name = name.into();
                    }
                    spawn_local(serve(accepted, downstream, chain, Box::new(stream), BytesMut::new()));
                }
                outcome => {
                    worker.shared.stats.tls_errors.fetch_add(1, Relaxed);
                    let error = match &outcome {
                        Err(_) => "timeout".to_owned(),
                        Ok(Err(error)) => ErrorChain(error).to_string(),
                        Ok(Ok(_)) => "the certificate has none of the names asked for".to_owned(),
                    };
                    tracing::debug!(%error, %peer, %local, "TLS handshake failed");
                }
            }
        }
    }
}

fn settled(worker: &Worker, stream: &TlsStream<Prefixed<TcpStream>>) -> DownstreamTls {
    let peer = stream.peer().cloned();
    let uri = peer.as_ref().and_then(|peer| peer.uris.first()).map_or("", |uri| uri);
    DownstreamTls {
        principal: worker.principal(uri),
        alpn: stream.alpn().map(Into::into),
        version: stream.version(),
        peer,
    }
}

/// Whether the client's certificate carries a name that the chain asks for.
fn accepts(tls: &ChainTls, peer: Option<&Arc<PeerCertificate>>) -> bool {
    tls.names.is_empty() || peer.is_some_and(|peer| crate::pool::has_name(&tls.names, peer))
}

async fn serve(
    _accepted: Counted,
    downstream: Downstream,
    chain: Arc<ChainPlan>,
    io: BoxIo,
    prefix: BytesMut,
) {
    if let Some(policy) = denied(&downstream, &chain) {
        downstream.worker.shared.stats.rbac_denied.fetch_add(1, Relaxed);
        tracing::debug!(%policy, peer = %downstream.peer, "Connection denied by authorization");
        if let Some(plan) = &chain.tcp {
            tcp::denied(&downstream, plan, &policy);
        }
        return;
    }
    let mut places = Vec::new();
    for limit in &chain.connection_limits {
        match limit.take() {
            Some(place) => places.push(place),
            None => {
                downstream.worker.shared.stats.connection_limited.fetch_add(1, Relaxed);
                tracing::debug!(limit = %limit.limit.stat_prefix, peer = %downstream.peer, "Too many connections");
                // Kept for a while, so that the client does not come back at once.
                tokio::time::sleep(limit.limit.delay).await;
                return;
            }
        }
    }
    let tls = chain.tls.as_ref().filter(|tls| tls.revocable).map(|tls| tls.server.clone());
    let certificate = downstream.tls.as_ref().and_then(|tls| tls.peer.clone());
    let Some((server, certificate)) = tls.zip(certificate) else {
        return serve_chain(downstream, chain, io, prefix).await;
    };
    let peer = downstream.peer;
    tokio::select! {
        () = Box::pin(serve_chain(downstream, chain, io, prefix)) => {}
        () = Box::pin(server.revoked(&certificate)) => {
            tracing::debug!(%peer, "Connection ends: its certificate was revoked");
        }
    }
}

async fn serve_chain(downstream: Downstream, chain: Arc<ChainPlan>, io: BoxIo, prefix: BytesMut) {
    if chain.http.is_some() {
        http::serve(downstream, chain, io, prefix).await;
    } else if let Some(plan) = &chain.tcp {
        Box::pin(tcp::serve(&downstream, plan, io, prefix)).await;
    }
}

/// Waits for a connection's first bytes; during a drain, not for long: a client that has connected early must not hold it up.
pub(crate) async fn unless_draining<T>(worker: &Worker, first: impl Future<Output = Option<T>>) -> Option<T> {
    let drain = worker.drain.watch();
    let too_late = async {
        drain.started().await;
        tokio::time::sleep(DRAINING_FIRST).await;
    };
    tokio::select! {
        biased;
        found = first => found,
        () = too_late => None,
    }
}

/// The policy by which authorization refuses the connection as such.
fn denied(downstream: &Downstream, chain: &ChainPlan) -> Option<Arc<str>> {
    chain.chain.network_filters.iter().find_map(|filter| match filter {
        NetworkFilter::Rbac(rules) => match rbac::connection(&rules.rbac, &Peer::of(downstream)) {
            rbac::Verdict::Denied(policy) => Some(policy),
            rbac::Verdict::Allowed => None,
        },
        _ => None,
    })
}

/// Where a redirected connection was going to.
fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let found = socket.original_dst_v4().or_else(|_| socket.original_dst_v6()).ok()?;
    found.as_socket()
}
