//! HTTP of one client's connection: every request runs through filters, a route and attempts, and is reported when it ends.

mod attempt;
mod callout;
mod connect;
mod cors;
mod failure;
mod fault;
mod filters;
mod grpc;
mod grpc_web;
mod jwks;
mod mirror;
mod mutate;
mod normalize;
mod prepare;
mod record;
mod replay;
mod reply;
mod respond;
mod retry;
mod rewrite;
mod router;
mod timed;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::BytesMut;
use http::{HeaderValue, Request};
use sidecar_http::{Body, BoxIo, Handler, ParseError, Reply, buffer, h1, h2};
use sidecar_model::hcm::Codec;
use sidecar_telemetry::Workload;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use crate::config::{ChainPlan, Config, HcmPlan};
use crate::listen::{Downstream, is_http2};
use crate::stats::HttpStats;

use record::Record;

/// A client's HTTP connection.
pub(crate) struct Connection {
    pub(crate) down: Rc<Downstream>,
    chain: Arc<ChainPlan>,
    /// The connection manager as of a version of the configuration.
    plan: RefCell<(u64, Arc<HcmPlan>)>,
    /// No chain of the listener takes such a connection any more.
    orphaned: Cell<bool>,
    /// The peer that said last who it is: connections mostly carry one peer's requests.
    peer: RefCell<Option<(HeaderValue, Arc<Workload>)>>,
    /// What `x-forwarded-client-cert` says of the client, for our own principal.
    client_certificate: RefCell<Option<(Arc<str>, String)>>,
    /// Counters of the connection manager that the connection began with.
    stats: HttpStats,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.closed();
    }
}

/// Serves HTTP on a connection until it ends.
pub(crate) async fn serve(down: Downstream, chain: Arc<ChainPlan>, io: BoxIo, prefix: BytesMut) {
    let Some(plan) = chain.http.clone() else { return };
    let worker = Rc::clone(&down.worker);
    let version = worker.shared.config.load().version;
    let limits = Rc::new(plan.limits.clone());
    let Some((io, prefix, http2)) = choose(&down, &plan, io, prefix).await else { return };
    let stats = worker.http_stats(&plan.hcm.stat_prefix);
    stats.opened();
    let connection = Connection {
        stats,
        down: Rc::new(down),
        chain,
        plan: RefCell::new((version, plan)),
        orphaned: Cell::new(false),
        peer: RefCell::default(),
        client_certificate: RefCell::default(),
    };
    let drain = worker.drain.watch();
    // Boxed apart: a connection shall not carry the size of the protocol it does not speak.
    let served = if http2 {
        Box::pin(h2::serve(io, prefix, limits, drain, Rc::new(connection))).await
    } else {
        Box::pin(h1::serve(io, prefix, limits, drain, &connection)).await
    };
    tracing::trace!(?served, "HTTP connection ended");
}

/// Which HTTP the client speaks: by configuration, ALPN, or its first bytes.
async fn choose(
    down: &Downstream,
    plan: &HcmPlan,
    mut io: BoxIo,
    mut prefix: BytesMut,
) -> Option<(BoxIo, BytesMut, bool)> {
    let alpn = down.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let known = match (plan.hcm.codec, alpn) {
        (Codec::Http1, _) => Some(false),
        (Codec::Http2, _) => Some(true),
        (Codec::Auto, Some(b"h2" | b"istio-h2")) => Some(true),
        (Codec::Auto, Some(b"http/1.1" | b"istio-http/1.1" | b"http/1.0")) => Some(false),
        (Codec::Auto, _) => None,
    };
    if let Some(http2) = known {
        return Some((io, prefix, http2));
    }
    let limit = plan.limits.idle_timeout;
    let sniff = poll_fn(|cx| {
        loop {
            if let Some(http2) = (!prefix.is_empty()).then(|| is_http2(&prefix)).flatten() {
                return Poll::Ready(Some(http2));
            }
            if prefix.capacity() == 0 {
                prefix = buffer::take();
            }
            match poll_read_buf(Pin::new(&mut io), cx, &mut prefix) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {
                    // A client that says nothing costs no buffer.
                    if prefix.is_empty() {
                        buffer::give(std::mem::take(&mut prefix));
                    }
                    return Poll::Pending;
                }
            }
        }
    });
    let http2 = timeout(limit, sniff).await.ok()??;
    Some((io, prefix, http2))
}

impl Handler for Connection {
    async fn handle(&self, request: Request<Body>) -> Reply {
        let shared = &self.down.worker.shared;
        self.stats.begun();
        let config = shared.config.load_full();
        let plan = self.plan(&config);
        let mut record = Record::new(self, &plan, &request);
        if self.orphaned.get() {
            // Policy as it is now would not have let this connection in: nothing more passes, and the client is told to go.
            let response =
                reply::failed(&failure::Failure::Denied(Arc::from("filter_chain_gone")), &mut record);
            let mut reply = router::Answer::from(response).into_reply(&plan, record);
            reply.close = true;
            return reply;
        }
        let (parts, body) = request.into_parts();
        router::run(self, &config, &plan, parts, body, &mut record).await.into_reply(&plan, record)
    }

    fn refused(&self, error: ParseError) {
        self.stats.begun();
        self.stats.protocol_error();
        tracing::debug!(%error, peer = %self.down.peer, "Message refused");
        let plan = Arc::clone(&self.plan.borrow().1);
        Record::refused(self, &plan, error);
    }
}

impl Connection {
    /// The connection manager as it is now: policies that were pushed hold for open connections too.
    fn plan(&self, config: &Config) -> Arc<HcmPlan> {
        let mut plan = self.plan.borrow_mut();
        if plan.0 != config.version {
            plan.0 = config.version;
            if let Some(listener) = config.listeners.get(&self.down.listener.listener.name) {
                // Under other rules the same conditions may lead to another sort of chain: bytes instead of requests.
                let tls = self.down.tls.is_some();
                let same = listener.successor(&self.chain.chain);
                let same = same.filter(|chain| chain.http.is_some() && chain.tls.is_some() == tls);
                let chain = same.or_else(|| self.down.chain_in(listener));
                let http = chain.and_then(|chain| chain.http.clone());
                self.orphaned.set(http.is_none());
                if http.is_none() {
                    let (local, peer) = (self.down.local, self.down.peer);
                    tracing::debug!(%local, %peer, tls, "Connection ends: no filter chain takes it any more");
                }
                plan.1 = http.unwrap_or_else(|| Arc::clone(&plan.1));
            }
        }
        Arc::clone(&plan.1)
    }

    /// The workload that a peer says it is.
    fn peer(&self, header: &HeaderValue) -> Arc<Workload> {
        let mut last = self.peer.borrow_mut();
        if let Some((known, workload)) = &*last
            && known == header
        {
            return Arc::clone(workload);
        }
        let workload = self.down.worker.peers.get(header);
        let owned = HeaderValue::from_bytes(header.as_bytes()).ok();
        *last = owned.map(|header| (header, Arc::clone(&workload)));
        workload
    }
}
