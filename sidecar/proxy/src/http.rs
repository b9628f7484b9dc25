//! HTTP of one client's connection: every request runs through filters, a route and attempts, and is reported when it ends.

mod attempt;
mod callout;
mod connect;
mod cors;
mod export;
mod ext_authz;
mod failure;
mod fault;
mod filters;
mod gathered;
mod grpc;
mod grpc_web;
mod jwks;
mod mirror;
mod mutate;
mod normalize;
mod prepare;
mod rate_limit;
mod record;
mod replay;
mod reply;
mod respond;
mod retry;
mod rewrite;
mod router;
mod still;
mod stream;
mod timed;
mod trace;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderValue, Request};
use sidecar_http::{Body, BoxIo, Finish as _, Handler, Outcome, ParseError, Reply, Served, buffer, h1, h2};
use sidecar_model::hcm::Codec;
use sidecar_telemetry::Workload;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use crate::config::{ChainPlan, Config, HcmPlan};
use crate::listen::{Downstream, is_http2, unless_draining};
use crate::overload::Level;
use crate::stats::{Event, HttpStats};

pub(crate) use export::{Exported, Exporters};
use failure::Failure;
use record::Record;
use respond::Shape;
use stream::Clocks;

/// A client's HTTP connection.
pub(crate) struct Connection {
    pub(crate) down: Rc<Downstream>,
    http2: bool,
    /// The connection manager as of a version of the configuration.
    plan: RefCell<(u64, Arc<HcmPlan>)>,
    /// What a change of the configuration means to the connection.
    standing: Cell<Standing>,
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

/// What the configuration of the moment holds for a connection that was opened under another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A chain takes such a connection.
    Kept,
    /// Its listener is gone: it ends after what it is doing.
    Leaving,
    /// A connection like this one would not be let in any more, or not as HTTP: nothing more passes.
    Orphaned,
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
    let events = stats.clone();
    let connection = Connection {
        stats,
        down: Rc::new(down),
        http2,
        plan: RefCell::new((version, plan)),
        standing: Cell::new(Standing::Kept),
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
    match served {
        Served::Idle => events.event(Event::CxIdleTimeout),
        Served::MaxDuration => events.event(Event::CxMaxDuration),
        Served::MaxRequests => events.event(Event::CxMaxRequests),
        _ => {}
    }
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
    let limit = plan.limits.idle_timeout.unwrap_or(Duration::MAX);
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
    let http2 = unless_draining(&down.worker, async { timeout(limit, sniff).await.ok()? }).await?;
    Some((io, prefix, http2))
}

impl Handler for Connection {
    async fn handle(&self, request: Request<Body>) -> Reply {
        let shared = &self.down.worker.shared;
        self.stats.begun();
        let config = shared.config.load_full();
        let plan = self.plan(&config);
        let mut record = Record::new(self, &plan, &request);
        let (parts, mut body) = request.into_parts();
        let standing = self.standing.get();
        if standing == Standing::Orphaned {
            record.code = 0;
            record.details = "filter_chain_gone".into();
            record.finish(Outcome::default());
            return Reply::refused();
        }
        let level = shared.overload.level();
        if level == Level::StopAccepting {
            self.stats.event(Event::RqOverload);
            let mut answer = self.failed(&plan, &Failure::Overloaded, &mut record);
            answer.close = true;
            return answer.into_reply(record);
        }
        let mut answer = match Clocks::begin(&plan.hcm, level.stream_idle_max(), &mut body) {
            None => router::run(self, &config, &plan, None, parts, body, &mut record).await,
            Some(clocks) => {
                let work = router::run(self, &config, &plan, Some(&clocks), parts, body, &mut record);
                let worked = clocks.within(work).await;
                let answer = worked.unwrap_or_else(|failure| self.failed(&plan, &failure, &mut record));
                router::Answer { clocks: Some(clocks), ..answer }
            }
        };
        answer.close |= standing == Standing::Leaving;
        answer.into_reply(record)
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
    /// The connection manager as it is now: policies that were pushed hold for open connections too. A connection is matched anew by
    /// what is known of it, so that it is served as one that was opened now.
    fn plan(&self, config: &Config) -> Arc<HcmPlan> {
        let mut plan = self.plan.borrow_mut();
        if plan.0 != config.version {
            plan.0 = config.version;
            let listener = config.listeners.get(&self.down.listener.listener.name);
            let http =
                listener.and_then(|listener| self.down.chain_in(listener, Some(self.http2))?.http.clone());
            self.standing.set(match (listener, &http) {
                (None, _) => Standing::Leaving,
                (Some(_), Some(_)) => Standing::Kept,
                (Some(_), None) => Standing::Orphaned,
            });
            match http {
                Some(http) => plan.1 = http,
                None => tracing::debug!(
                    local = %self.down.local, peer = %self.down.peer, "Connection ends: no filter chain takes it any more"
                ),
            }
        }
        Arc::clone(&plan.1)
    }

    /// The answer to a request that a clock of its stream has ended.
    fn failed(&self, plan: &HcmPlan, failure: &Failure, record: &mut Record) -> router::Answer {
        if let Failure::Stream { why, .. } = failure {
            self.stats.event(match why {
                stream::Expired::Idle => Event::RqIdleTimeout,
                stream::Expired::Request => Event::RqTimeout,
                stream::Expired::Duration => Event::RqMaxDuration,
            });
        }
        let response = reply::failed(failure, record);
        Shape { connection: self, plan }.local(response, record, None).into()
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
