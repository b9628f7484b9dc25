//! The workers as one thing: started, reconfigured, drained and stopped from the control side.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use base_tls::Rotating;
use parking_lot::Mutex;
use sidecar_model::{Endpoints, Snapshot};
use sidecar_telemetry::Metrics;
use sidecar_telemetry::log::LogWriter;
use tokio::sync::watch;

use crate::config::{Config, Kept};
use crate::dns::Resolved;
use crate::overload::Level;
use crate::shared::{Node, Shared};
use crate::worker;

/// What the data path needs to begin.
#[derive(Debug)]
pub struct Options {
    /// Worker threads; at least 1.
    pub workers: usize,
    /// Who we are.
    pub node: Node,
    /// The workload's certificate, which may come later.
    pub identity: Rotating,
    /// Where metrics are kept.
    pub metrics: Metrics,
    /// Sockets of a process before this one that listen already. While there are any, nothing is accepted before [`Proxy::open`].
    pub inherited: Vec<(SocketAddr, OwnedFd)>,
}

/// What workers are told, besides the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) version: u64,
    pub(crate) draining: bool,
    /// Listeners are open.
    pub(crate) open: bool,
    pub(crate) overload: Level,
    pub(crate) stop: bool,
}

/// Addresses that listeners are bound to, by listener name.
pub type Bound = HashMap<Arc<str>, Vec<SocketAddr>>;

/// Listening sockets of the process before this one, by address.
pub(crate) type Inherited = HashMap<SocketAddr, Vec<OwnedFd>>;

/// The running data path. Dropping it stops the workers and closes every connection.
#[derive(Debug)]
pub struct Proxy {
    control: Arc<Control>,
    workers: Vec<JoinHandle<()>>,
    bound: Arc<Mutex<Bound>>,
}

/// What changes the configuration in force.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    inputs: Mutex<Inputs>,
    commands: watch::Sender<Command>,
}

/// What the configuration is built from, besides the snapshot.
#[derive(Debug, Default)]
struct Inputs {
    kept: Kept,
    resolved: Resolved,
}

impl Control {
    /// Builds the configuration from `snapshot`, or from the one in force, and puts it into force.
    fn build(&self, snapshot: Option<Arc<Snapshot>>) {
        let inputs = &mut *self.inputs.lock();
        let previous = self.shared.config.load();
        let snapshot = snapshot.unwrap_or_else(|| Arc::clone(&previous.snapshot));
        inputs.resolved.retain(|name, _| snapshot.clusters.contains_key(name));
        let Inputs { kept, resolved } = &mut *inputs;
        let (identity, now_ms) = (&self.shared.identity, self.shared.now_ms());
        let next = Config::build(snapshot, &previous, identity, kept, resolved, now_ms);
        let version = next.version;
        self.shared.config.store(Arc::new(next));
        inputs.kept.sweep();
        self.commands.send_modify(|command| command.version = version);
    }

    /// Builds again after names were resolved.
    pub(crate) fn reapply(&self) {
        self.build(None);
    }

    /// Takes over the endpoints behind a cluster's names; whether they are others than before.
    pub(crate) fn resolved(&self, cluster: &Arc<str>, endpoints: Endpoints) -> bool {
        let resolved = &mut self.inputs.lock().resolved;
        if resolved.get(cluster).is_some_and(|known| **known == endpoints) {
            return false;
        }
        resolved.insert(Arc::clone(cluster), Arc::new(endpoints));
        true
    }
}

impl Proxy {
    /// Starts the workers, without any listener.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(options: Options) -> io::Result<Self> {
        let log = LogWriter::start()?;
        let shared = Arc::new(Shared::new(options.node, options.identity, options.metrics, log));
        let open = options.inherited.is_empty();
        let (commands, _) = watch::channel(Command { open, ..Command::default() });
        let control = Arc::new(Control { shared, inputs: Mutex::default(), commands });
        let bound = Arc::new(Mutex::new(Bound::new()));
        let mut workers = Vec::new();
        let count = options.workers.max(1);
        let mut inherited: Vec<Inherited> = std::iter::repeat_with(Inherited::default).take(count).collect();
        for (nth, (address, socket)) in options.inherited.into_iter().enumerate() {
            // Each socket has a queue of its own, so each must have somebody who accepts from it.
            inherited[nth % count].entry(address).or_default().push(socket);
        }
        for (index, inherited) in inherited.into_iter().enumerate() {
            let (shared, commands, bound) =
                (Arc::clone(&control.shared), control.commands.subscribe(), Arc::clone(&bound));
            // The first worker also resolves names.
            let names = (index == 0).then(|| Arc::clone(&control));
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let run = move || worker::run(shared, commands, bound, names, inherited);
            workers.push(thread.spawn(run)?);
        }
        Ok(Self { control, workers, bound })
    }

    /// Puts a snapshot into force. New connections and requests see it at once; open ones are not closed.
    pub fn apply(&self, snapshot: Arc<Snapshot>) {
        self.control.build(Some(snapshot));
    }

    /// Asks every connection to end after what it is doing: idle ones close, responses say `connection: close`, HTTP/2 says GOAWAY.
    pub fn drain(&self) {
        self.control.commands.send_modify(|command| command.draining = true);
    }

    /// Takes over how much memory is used, in thousandths of the limit; what is given up for it from now on.
    pub fn pressure(&self, thousandths: u16) -> Level {
        let overload = &self.control.shared.overload;
        if let Some(level) = overload.measured(thousandths) {
            tracing::warn!(?level, percent = thousandths / 10, "Memory pressure");
            self.control.commands.send_modify(|command| command.overload = level);
        }
        overload.level()
    }

    /// Begins to accept connections, on sockets of the process before this one too.
    pub fn open(&self) {
        self.control.commands.send_modify(|command| command.open = true);
    }

    /// Accepts no connection any more: another process does, on the same sockets.
    pub fn close(&self) {
        self.control.commands.send_modify(|command| command.open = false);
    }

    /// Connections of clients that are open.
    pub fn open_connections(&self) -> i64 {
        self.control.shared.stats.downstream_cx_active.load(Relaxed)
    }

    /// Those among them that carry bytes or an upgraded protocol: no drain ends them.
    pub fn open_tunnels(&self) -> i64 {
        self.control.shared.stats.downstream_tunnels_active.load(Relaxed)
    }

    /// Addresses that are listened on.
    pub fn bound(&self) -> Bound {
        self.bound.lock().clone()
    }

    /// What the workers share, for the admin port.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.control.shared
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.control.commands.send_modify(|command| command.stop = true);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("A worker ended by a panic");
            }
        }
    }
}
