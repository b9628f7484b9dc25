//! Connections to endpoints: made, kept and handed out by one worker.

mod connect;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use base_tls::PeerCertificate;
use sidecar_http::h1::{ClientConnection, Returner};
use sidecar_http::{Limits, h2};
use sidecar_model::cluster::Thresholds;
use sidecar_model::tls::{SanKind, SanMatch};
use tokio::sync::oneshot;

use crate::config::{ClusterPlan, Config, TlsSlot};
use crate::usage::{Permit, Totals};
use crate::worker::Worker;

pub(crate) use connect::{ConnectError, connect, open, open_tcp};

/// Idle connections of one endpoint that are kept.
const IDLE_MAX: usize = 256;
/// How long an idle connection is kept when the cluster does not say.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Tcp,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) plan: Arc<ClusterPlan>,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<TlsSlot>>,
    /// The server name, when it depends on the request.
    pub(crate) server_name: Option<Box<str>>,
    /// What the endpoint's metadata says it is: a reused address never meets a connection to another pod.
    pub(crate) workload: Option<Box<str>>,
    /// The client that a PROXY header names, when the cluster wants one.
    pub(crate) client: Option<SocketAddr>,
    pub(crate) high_priority: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    cluster: Arc<str>,
    address: SocketAddr,
    tls: u64,
    protocol: Protocol,
    server_name: Option<Box<str>>,
    workload: Option<Box<str>>,
    client: Option<SocketAddr>,
}

/// What is known of an upstream connection.
#[derive(Debug)]
pub(crate) struct UpstreamInfo {
    pub(crate) local: Option<SocketAddr>,
    /// The peer's identity on a mutual TLS connection; empty: none.
    pub(crate) principal: Arc<str>,
    pub(crate) tls: bool,
    /// When it was made.
    pub(crate) born: Instant,
}

impl UpstreamInfo {
    /// Whether the connection is older than the cluster lets one get: nothing new is sent on it.
    fn is_too_old(&self, plan: &ClusterPlan) -> bool {
        plan.cluster.http.max_connection_duration.is_some_and(|most| self.born.elapsed() >= most)
    }
}

/// All pools of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    all: RefCell<HashMap<Key, Rc<Pool>>>,
}

/// Connections to one endpoint in one manner.
#[derive(Debug)]
pub(crate) struct Pool {
    plan: RefCell<Arc<ClusterPlan>>,
    live: Rc<Cell<u32>>,
    idle: RefCell<Vec<Idle>>,
    streams: RefCell<Vec<Multiplexed>>,
    connecting: Cell<bool>,
    waiters: RefCell<Vec<oneshot::Sender<()>>>,
    limits: Rc<Limits>,
}

struct Idle {
    connection: ClientConnection,
    info: Rc<UpstreamInfo>,
    returner: Rc<dyn Returner>,
    since: Instant,
}

impl Idle {
    /// Whether the server cannot be about to close the connection, going by what it has said: a request sent into that would be lost.
    fn is_fresh(&self) -> bool {
        let margin = |limit: Duration| (limit / 5).min(Duration::from_secs(1));
        self.connection.idle_limit().is_none_or(|limit| self.since.elapsed() < limit - margin(limit))
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Idle").field(&self.info).finish()
    }
}

#[derive(Debug, Clone)]
struct Multiplexed {
    client: h2::Client,
    info: Rc<UpstreamInfo>,
    since: Instant,
}

/// A connection ready for one request.
pub(crate) enum Ready {
    /// HTTP/1.1; `reused` says that a close may be under way already.
    Http1 { connection: ClientConnection, info: Rc<UpstreamInfo>, returner: Rc<dyn Returner>, reused: bool },
    /// HTTP/2.
    Http2 { client: h2::Client, info: Rc<UpstreamInfo>, reused: bool },
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum PoolError {
    /// Too many requests wait already.
    Overflow,
    /// None could be made.
    Connect(ConnectError),
}

impl Pools {
    /// A connection for a request to `target`.
    pub(crate) async fn get(
        &self,
        worker: &Worker,
        target: &Target,
        protocol: Protocol,
    ) -> Result<Ready, PoolError> {
        let pool = self.pool(target, protocol);
        match protocol {
            Protocol::Http2 => pool.http2(worker, target).await,
            Protocol::Http1 | Protocol::Tcp => pool.http1(worker, target).await,
        }
    }

    fn pool(&self, target: &Target, protocol: Protocol) -> Rc<Pool> {
        let key = Key {
            cluster: Arc::clone(&target.plan.cluster.name),
            address: target.address,
            tls: target.tls.as_ref().map_or(0, |slot| slot.id),
            protocol,
            server_name: target.server_name.clone(),
            workload: target.workload.clone(),
            client: target.client,
        };
        let mut all = self.all.borrow_mut();
        if let Some(pool) = all.get(&key) {
            if !Arc::ptr_eq(&pool.plan.borrow(), &target.plan) {
                *pool.plan.borrow_mut() = Arc::clone(&target.plan);
            }
            return Rc::clone(pool);
        }
        let pool = Rc::new(Pool {
            plan: RefCell::new(Arc::clone(&target.plan)),
            live: Rc::default(),
            idle: RefCell::default(),
            streams: RefCell::default(),
            connecting: Cell::new(false),
            waiters: RefCell::default(),
            limits: Rc::new(Limits::default()),
        });
        all.insert(key, Rc::clone(&pool));
        pool
    }

    /// Closes idle connections that are too old, closed by the peer, or lead to what the configuration no longer has, and forgets
    /// pools without any.
    pub(crate) fn sweep(&self, config: &Config) {
        self.all.borrow_mut().retain(|key, pool| {
            let serves =
                config.clusters.get(&key.cluster).is_some_and(|plan| plan.serves(key.address, key.tls));
            pool.sweep(serves);
            // Somebody may hold the pool while it connects.
            pool.live.get() > 0 || Rc::strong_count(pool) > 1
        });
    }
}

impl Pools {
    /// Closes every connection that nobody uses.
    pub(crate) fn close_idle(&self) {
        for pool in self.all.borrow().values() {
            pool.idle.borrow_mut().clear();
            pool.streams.borrow_mut().retain(|one| one.client.active() > 0);
        }
    }
}

impl Pool {
    async fn http1(self: &Rc<Self>, worker: &Worker, target: &Target) -> Result<Ready, PoolError> {
        self.close_surplus(thresholds(target).max_connections);
        if let Some(ready) = self.take_idle() {
            return Ok(ready);
        }
        let usage = &target.plan.usage;
        let limits = thresholds(target);
        let permit = if let Some(permit) = self.permit(target) {
            permit
        } else {
            Totals::inc(&usage.totals.upstream_cx_overflow);
            let Some(_pending) = usage.pending(limits.max_pending_requests) else {
                Totals::inc(&usage.totals.upstream_rq_pending_overflow);
                return Err(PoolError::Overflow);
            };
            match self.wait(target).await {
                Waited::Ready(ready) => return Ok(ready),
                Waited::Permit(permit) => permit,
            }
        };
        let connected = Box::pin(open(worker, target, Protocol::Http1, permit, &self.live)).await;
        let connected = connected.map_err(PoolError::Connect)?;
        let info = Rc::new(connected.info);
        let home =
            |me: &Weak<Home>| Home { pool: Rc::downgrade(self), info: Rc::clone(&info), me: me.clone() };
        let returner: Rc<dyn Returner> = Rc::new_cyclic(home);
        let connection = ClientConnection::new(connected.io, Rc::clone(&self.limits));
        Ok(Ready::Http1 { connection, info, returner, reused: false })
    }

    /// Leave to make a connection: within the limit, or as this endpoint's first.
    fn permit(&self, target: &Target) -> Option<Permit> {
        let usage = &target.plan.usage;
        if let Some(permit) = usage.connection(thresholds(target).max_connections) {
            return Some(permit);
        }
        (self.live.get() == 0).then(|| usage.first_connection())
    }

    async fn wait(self: &Rc<Self>, target: &Target) -> Waited {
        let mut queue = target.plan.usage.queue();
        let waited = poll_fn(|cx| {
            // First be on the list, then look: a release in between is not missed.
            queue.register(cx.waker());
            if let Some(ready) = self.take_idle() {
                return Poll::Ready(Waited::Ready(ready));
            }
            match self.permit(target) {
                Some(permit) => Poll::Ready(Waited::Permit(permit)),
                None => Poll::Pending,
            }
        })
        .await;
        queue.serve();
        waited
    }

    /// A limit may have come down since connections were made: those that rest are closed until it holds. An endpoint keeps one.
    fn close_surplus(&self, max: u32) {
        let mut idle = self.idle.borrow_mut();
        let usage = Arc::clone(&self.plan.borrow().usage);
        while usage.connections() > max && self.live.get() > 1 && idle.pop().is_some() {}
    }

    fn take_idle(&self) -> Option<Ready> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop() {
            let too_old = last.info.is_too_old(&self.plan.borrow());
            if !too_old && last.is_fresh() && last.connection.is_usable() {
                return Some(Ready::Http1 {
                    connection: last.connection,
                    info: last.info,
                    returner: last.returner,
                    reused: true,
                });
            }
        }
        None
    }

    async fn http2(self: &Rc<Self>, worker: &Worker, target: &Target) -> Result<Ready, PoolError> {
        loop {
            if let Some(Multiplexed { client, info, .. }) = self.least_busy(target) {
                let reused = client.exchanges() > 0;
                return Ok(Ready::Http2 { client, info, reused });
            }
            if !self.connecting.get() {
                break;
            }
            let usage = &target.plan.usage;
            let Some(_pending) = usage.pending(thresholds(target).max_pending_requests) else {
                Totals::inc(&usage.totals.upstream_rq_pending_overflow);
                return Err(PoolError::Overflow);
            };
            let (sender, receiver) = oneshot::channel();
            self.waiters.borrow_mut().push(sender);
            // Either the connection is there or making it failed: look again.
            let _ = receiver.await;
        }
        self.connecting.set(true);
        let _reset = Connecting(self);
        let permit = self.permit(target).unwrap_or_else(|| target.plan.usage.first_connection());
        let connected = Box::pin(open(worker, target, Protocol::Http2, permit, &self.live)).await;
        let connected = connected.map_err(PoolError::Connect)?;
        let client = Box::pin(h2::Client::connect(connected.io, &self.limits)).await.map_err(|error| {
            PoolError::Connect(ConnectError::Failed(base_types::error::ErrorChain(&error).to_string()))
        })?;
        let one = Multiplexed { client, info: Rc::new(connected.info), since: Instant::now() };
        self.streams.borrow_mut().push(one.clone());
        Ok(Ready::Http2 { client: one.client, info: one.info, reused: false })
    }

    fn least_busy(&self, target: &Target) -> Option<Multiplexed> {
        let http = &target.plan.cluster.http;
        let bound = http.http2.max_concurrent_streams.map_or(usize::MAX, |bound| bound as usize);
        let spent = |client: &h2::Client| {
            http.max_requests_per_connection.is_some_and(|max| client.exchanges() >= u64::from(max))
        };
        let mut streams = self.streams.borrow_mut();
        // Streams that are open keep a connection that is left out here until they end.
        streams.retain_mut(|one| {
            one.client.is_usable() && !spent(&one.client) && !one.info.is_too_old(&target.plan)
        });
        let free = streams.iter().filter(|one| one.client.active() < one.client.capacity().min(bound));
        free.min_by_key(|one| one.client.active()).cloned()
    }

    fn sweep(&self, serves: bool) {
        let plan = Arc::clone(&self.plan.borrow());
        let timeout = plan.cluster.http.idle_timeout.unwrap_or(IDLE_TIMEOUT);
        self.idle.borrow_mut().retain_mut(|one| {
            let lives = one.since.elapsed() < timeout && !one.info.is_too_old(&plan);
            serves && lives && one.is_fresh() && one.connection.is_usable()
        });
        self.streams.borrow_mut().retain_mut(|one| {
            if one.client.active() > 0 {
                one.since = Instant::now();
            }
            let rests = one.client.active() == 0;
            let lives = one.since.elapsed() < timeout && !one.info.is_too_old(&plan);
            (serves || !rests) && lives && one.client.is_usable()
        });
    }
}

enum Waited {
    Ready(Ready),
    Permit(Permit),
}

/// Ends the connecting of a pool, whatever became of it.
struct Connecting<'a>(&'a Pool);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        for waiter in self.0.waiters.borrow_mut().drain(..) {
            // A waiter that has gone away needs no waking.
            let _ = waiter.send(());
        }
    }
}

/// Brings a connection back to its pool.
struct Home {
    pool: Weak<Pool>,
    info: Rc<UpstreamInfo>,
    me: Weak<Home>,
}

impl Returner for Home {
    fn idle(&self, connection: ClientConnection) {
        let Some(pool) = self.pool.upgrade() else { return };
        let plan = Arc::clone(&pool.plan.borrow());
        let spent = plan
            .cluster
            .http
            .max_requests_per_connection
            .is_some_and(|max| connection.exchanges() >= u64::from(max))
            || self.info.is_too_old(&plan);
        let max = plan.cluster.circuit_breakers.default.max_connections;
        let surplus = plan.usage.connections() > max && pool.live.get() > 1;
        let mut idle = pool.idle.borrow_mut();
        if let (false, true, Some(returner)) = (spent || surplus, idle.len() < IDLE_MAX, self.me.upgrade()) {
            idle.push(Idle { connection, info: Rc::clone(&self.info), returner, since: Instant::now() });
        }
        drop(idle);
        plan.usage.released();
    }
}

pub(crate) fn thresholds(target: &Target) -> &Thresholds {
    let breakers = &target.plan.cluster.circuit_breakers;
    if target.high_priority { &breakers.high } else { &breakers.default }
}

/// Whether a certificate carries one of the names.
pub(crate) fn has_name(names: &[SanMatch], peer: &PeerCertificate) -> bool {
    names.iter().any(|name| {
        let uri = || peer.uris.iter().any(|text| name.matcher.is_match(text));
        let dns = || peer.dns_names.iter().any(|text| name.matcher.is_match(text));
        match name.kind {
            SanKind::Uri => uri(),
            SanKind::Dns => dns(),
            SanKind::Any => uri() || dns(),
            SanKind::Ip | SanKind::Email => false,
        }
    })
}

/// What an open connection holds until it is closed.
#[derive(Debug)]
pub(crate) struct Held {
    _permit: Permit,
    live: Rc<Cell<u32>>,
}

impl Held {
    pub(crate) fn new(permit: Permit, live: &Rc<Cell<u32>>) -> Self {
        live.set(live.get() + 1);
        Self { _permit: permit, live: Rc::clone(live) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
    }
}
