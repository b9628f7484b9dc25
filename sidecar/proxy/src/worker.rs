//! One worker: a thread, its runtime, its sockets, pools and counters.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sidecar_http::Drain;
use sidecar_telemetry::peer::PeerCache;
use sidecar_telemetry::registry;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};

use crate::config::ListenerPlan;
use crate::http::Exporters;
use crate::overload::Level;
use crate::pool::Pools;
use crate::proxy::{Bound, Command, Control, Inherited};
use crate::shared::Shared;
use crate::stats::{HttpStats, Known};
use crate::{dns, health, listen};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// Principals remembered by one worker.
const PRINCIPALS_MAX: usize = 4096;

/// State of one worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: registry::Worker,
    pub(crate) peers: PeerCache,
    pub(crate) pools: Pools,
    pub(crate) drain: Drain,
    rng: RefCell<StdRng>,
    principals: RefCell<HashMap<Box<str>, Arc<str>>>,
    identity: RefCell<(usize, Arc<str>)>,
    pub(crate) faults: Cell<u32>,
    /// Bytes of request bodies that are kept for another attempt.
    pub(crate) kept: Cell<usize>,
    http: Known,
    pub(crate) exporters: Exporters,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            metrics: shared.metrics.worker(),
            shared,
            peers: PeerCache::default(),
            pools: Pools::default(),
            drain: Drain::default(),
            rng: RefCell::new(StdRng::from_os_rng()),
            principals: RefCell::default(),
            identity: RefCell::new((0, sidecar_telemetry::labels::no_principal())),
            faults: Cell::new(0),
            kept: Cell::new(0),
            http: Known::default(),
            exporters: Exporters::default(),
        }
    }

    /// A random number.
    pub(crate) fn random(&self) -> u64 {
        self.rng.borrow_mut().random()
    }

    /// Runs `work` with the worker's random numbers. `work` must not ask the worker for more.
    pub(crate) fn with_rng<T>(&self, work: impl FnOnce(&mut StdRng) -> T) -> T {
        work(&mut self.rng.borrow_mut())
    }

    /// Counters of the connection managers with this prefix.
    pub(crate) fn http_stats(&self, prefix: &Arc<str>) -> HttpStats {
        self.http.get(prefix, &self.shared.stats.http)
    }

    /// The shared text of a principal: equal ones are the same, so that metric keys compare by address.
    pub(crate) fn principal(&self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return sidecar_telemetry::labels::no_principal();
        }
        let mut known = self.principals.borrow_mut();
        if let Some(principal) = known.get(text) {
            return Arc::clone(principal);
        }
        if known.len() >= PRINCIPALS_MAX {
            known.clear();
        }
        let principal: Arc<str> = text.into();
        known.insert(text.into(), Arc::clone(&principal));
        principal
    }

    /// Our own principal.
    pub(crate) fn own_principal(&self) -> Arc<str> {
        let Some(material) = self.shared.identity.current() else {
            return sidecar_telemetry::labels::no_principal();
        };
        let address = Arc::as_ptr(&material) as usize;
        if self.identity.borrow().0 != address {
            let text = material.spiffe_id().map(|id| self.principal(id.as_str()));
            *self.identity.borrow_mut() =
                (address, text.unwrap_or_else(sidecar_telemetry::labels::no_principal));
        }
        Arc::clone(&self.identity.borrow().1)
    }
}

/// Runs a worker until it is told to stop.
pub(crate) fn run(
    shared: Arc<Shared>,
    commands: watch::Receiver<Command>,
    bound: Arc<Mutex<Bound>>,
    names: Option<Arc<Control>>,
    inherited: Inherited,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "A worker's runtime cannot be made");
            return;
        }
    };
    runtime.block_on(async {
        let worker = Rc::new(Worker::new(shared));
        if let Some(control) = names {
            spawn_local(dns::run(control, commands.clone()));
            spawn_local(health::run(Rc::clone(&worker), commands.clone()));
        }
        supervise(worker, commands, bound, inherited).await;
    });
}

async fn supervise(
    worker: Rc<Worker>,
    mut commands: watch::Receiver<Command>,
    bound: Arc<Mutex<Bound>>,
    inherited: Inherited,
) {
    let (open, commands_of_sockets) = (HashMap::new(), commands.clone());
    let mut sockets =
        Sockets { worker: Rc::clone(&worker), open, bound, commands: commands_of_sockets, inherited };
    let mut sweep = tokio::time::interval(SWEEP);
    let mut overload = Level::Calm;
    loop {
        let command = *commands.borrow_and_update();
        if command.stop {
            return;
        }
        if command.draining && !worker.drain.draining() {
            worker.drain.start();
        }
        if command.overload != overload {
            overload = command.overload;
            worker.drain.shed(
                overload.idle_max(),
                overload < Level::DisableKeepalive,
                overload < Level::StopAccepting,
            );
            if overload >= Level::DisableKeepalive {
                worker.pools.close_idle();
            }
        }
        sockets.reconcile();
        loop {
            tokio::select! {
                changed = commands.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                _ = sweep.tick() => {
                    worker.pools.sweep(&worker.shared.config.load());
                    sockets.reconcile();
                }
            }
        }
    }
}

/// The worker's listening sockets.
struct Sockets {
    worker: Rc<Worker>,
    open: HashMap<(Arc<str>, SocketAddr), Vec<JoinHandle<()>>>,
    bound: Arc<Mutex<Bound>>,
    commands: watch::Receiver<Command>,
    inherited: Inherited,
}

impl Sockets {
    /// Opens what is configured and closes what no longer is. A socket that cannot be opened is tried again at the next call.
    fn reconcile(&mut self) {
        let config = self.worker.shared.config.load_full();
        let open = self.commands.borrow().open;
        self.open.retain(|(name, address), tasks| {
            let wanted = open
                && config.listeners.get(name).is_some_and(|plan| addresses(plan).any(|one| one == *address));
            if !wanted {
                tasks.iter().for_each(JoinHandle::abort);
                self.bound.lock().remove(name);
            }
            wanted
        });
        for (name, plan) in config.listeners.iter().filter(|_| open) {
            for address in addresses(plan) {
                let key = (Arc::clone(name), address);
                if self.open.contains_key(&key) {
                    continue;
                }
                match self.sockets(address) {
                    Ok(listeners) => {
                        let tasks = listeners.into_iter().map(|listener| self.begin(name, listener));
                        let tasks = tasks.collect();
                        self.open.insert(key, tasks);
                    }
                    Err(error) => {
                        tracing::warn!(%error, listener = %name, %address, "Listener cannot be opened")
                    }
                }
            }
        }
    }
}

impl Sockets {
    /// The sockets that the process before this one left for an address, or a new one.
    fn sockets(&mut self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        match self.inherited.remove(&address) {
            None => Ok(vec![bind(address)?]),
            Some(sockets) => sockets
                .into_iter()
                .map(|socket| TcpListener::from_std(std::net::TcpListener::from(socket)))
                .collect(),
        }
    }

    fn begin(&self, name: &Arc<str>, listener: TcpListener) -> JoinHandle<()> {
        if let Ok(local) = listener.local_addr() {
            self.bound.lock().entry(Arc::clone(name)).or_default().push(local);
        }
        let worker = Rc::clone(&self.worker);
        spawn_local(accept(worker, listener, Arc::clone(name), self.commands.clone()))
    }
}

fn addresses(plan: &ListenerPlan) -> impl Iterator<Item = SocketAddr> {
    let all = std::iter::once(&plan.listener.address).chain(&plan.listener.additional_addresses);
    all.filter(|_| plan.listener.bind_to_port).filter_map(sidecar_model::Address::socket)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    name: Arc<str>,
    mut commands: watch::Receiver<Command>,
) {
    loop {
        // Those who wait in the kernel's queue cost nothing here.
        if commands.wait_for(|command| command.overload < Level::StopAccepting).await.is_err() {
            return;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let config = worker.shared.config.load();
                let Some(plan) = config.listeners.get(&name) else { return };
                let accepted = Counted::new(&worker);
                spawn_local(listen::connection(accepted, Arc::clone(plan), stream, peer));
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come free instead of spinning.
                tracing::warn!(%error, listener = %name, "Accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A worker as a connection holds it; counts the connection while it is open.
pub(crate) struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: &Rc<Worker>) -> Self {
        let stats = &worker.shared.stats;
        stats.downstream_cx_total.fetch_add(1, Relaxed);
        stats.downstream_cx_active.fetch_add(1, Relaxed);
        Self(Rc::clone(worker))
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.shared.stats.downstream_cx_active.fetch_sub(1, Relaxed);
    }
}
