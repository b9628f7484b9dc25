//! The life of the process: when it is ready, how it drains, when it ends.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base_runtime::CancellationToken;
use sidecar_proxy::{NodeKind, Proxy};
use sidecar_xds::Status;

/// A gateway serves on for this long after it was told to end: endpoints that name it are still known to clients.
const GATEWAY_DRAIN_MIN: Duration = Duration::from_secs(5);
/// After this no connection is waited for any more (Istio's terminationDrainDuration beside a workload, less than the usual
/// termination grace of a pod at a gateway).
const SIDECAR_DRAIN_MAX: Duration = Duration::from_secs(5);
const GATEWAY_DRAIN_MAX: Duration = Duration::from_secs(25);
/// A process that was replaced keeps its connections for this long at most (Istio's drainDuration).
const REPLACED_DRAIN_MAX: Duration = Duration::from_secs(45);
/// How long a draining proxy says that it is busy while all it has is connections of bytes, which do not end by being asked to.
const BYTES_DRAIN: Duration = Duration::from_secs(1);
/// How often the open connections are counted while draining.
const DRAIN_TICK: Duration = Duration::from_millis(50);

/// The process as health and admin ports see it.
pub(crate) struct Life {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) status: Arc<Status>,
    pub(crate) begun: Instant,
    kind: NodeKind,
    drain_began: OnceLock<Instant>,
    /// The admin port was told to fail readiness.
    failed: AtomicBool,
    quit: CancellationToken,
}

impl Life {
    pub(crate) fn new(proxy: Arc<Proxy>, status: Arc<Status>, kind: NodeKind) -> Self {
        let (begun, quit) = (Instant::now(), CancellationToken::new());
        Self {
            proxy,
            status,
            begun,
            kind,
            drain_began: OnceLock::new(),
            failed: AtomicBool::new(false),
            quit,
        }
    }

    /// Why the proxy is not ready; none when it is.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.drain_began.get().is_some() {
            return Some("draining".to_owned());
        }
        if self.failed.load(Relaxed) {
            return Some("told to fail by the admin port".to_owned());
        }
        if let Some(why) = self.not_configured() {
            return Some(why);
        }
        let config = self.proxy.shared().config.load();
        let bound = self.proxy.bound();
        let closed = config.listeners.values().find(|plan| {
            plan.listener.bind_to_port
                && plan.listener.address.socket().is_some()
                && !bound.contains_key(&plan.listener.name)
        });
        closed.map(|plan| format!("listener {} is not open yet", plan.listener.name))
    }

    /// What the proxy still waits for before it can serve anything.
    pub(crate) fn not_configured(&self) -> Option<String> {
        let view = self.status.view();
        if !self.status.has_certificate() {
            let why =
                view.certificate_error.or(view.connect_error).unwrap_or_else(|| "asking for it".to_owned());
            return Some(format!("no certificate yet: {why}"));
        }
        if !self.status.is_configured() {
            let why = view.connect_error.unwrap_or_else(|| "waiting for clusters and listeners".to_owned());
            return Some(format!("no configuration yet: {why}"));
        }
        None
    }

    /// Drains while another process serves already; a signal to end is passed on to it.
    pub(crate) async fn until_replaced(&self, successor: &std::process::Child, shutdown: CancellationToken) {
        self.drain();
        let began = Instant::now();
        while self.proxy.open_connections() > 0 && began.elapsed() < REPLACED_DRAIN_MAX {
            tokio::select! {
                () = tokio::time::sleep(DRAIN_TICK) => {}
                () = shutdown.cancelled() => {
                    let process = i32::try_from(successor.id()).map(nix::unistd::Pid::from_raw);
                    // It may have ended by itself.
                    let _ = process.map(|it| nix::sys::signal::kill(it, nix::sys::signal::Signal::SIGTERM));
                    break;
                }
                () = self.quit.cancelled() => break,
            }
        }
        tracing::info!(connections = self.proxy.open_connections(), "Replaced");
    }

    /// Asks every connection to end after what it is doing.
    pub(crate) fn drain(&self) {
        if self.drain_began.set(Instant::now()).is_ok() {
            tracing::info!(connections = self.proxy.open_connections(), "Draining");
            self.proxy.drain();
        }
    }

    /// Whether it is not ready because it is going away, or was told to look so.
    pub(crate) fn is_leaving(&self) -> bool {
        self.drain_began.get().is_some() || self.failed.load(Relaxed)
    }

    /// Fails readiness from now on, or no longer does.
    pub(crate) fn fail_health(&self, fail: bool) {
        self.failed.store(fail, Relaxed);
    }

    /// Why a drain is not over yet; none when nothing is under way any more.
    pub(crate) fn not_drained(&self) -> Option<String> {
        let Some(began) = self.drain_began.get() else { return Some("not draining".to_owned()) };
        let (open, tunnels) = (self.proxy.open_connections(), self.proxy.open_tunnels());
        let busy = open > tunnels || (tunnels > 0 && began.elapsed() < BYTES_DRAIN);
        busy.then(|| format!("{open} connections, {tunnels} of them of bytes"))
    }

    /// Ends the process at once.
    pub(crate) fn quit(&self) {
        self.quit.cancel();
    }

    /// Waits until a signal or the admin port ends the process, and drains before.
    pub(crate) async fn until_ended(&self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.quit.cancelled() => return,
        }
        self.drain();
        let began = Instant::now();
        let (least, most) = match self.kind {
            NodeKind::Sidecar => (Duration::ZERO, SIDECAR_DRAIN_MAX),
            NodeKind::Router => (GATEWAY_DRAIN_MIN, GATEWAY_DRAIN_MAX),
        };
        while began.elapsed() < least || (self.proxy.open_connections() > 0 && began.elapsed() < most) {
            tokio::select! {
                () = tokio::time::sleep(DRAIN_TICK) => {}
                () = self.quit.cancelled() => return,
            }
        }
        tracing::info!(connections = self.proxy.open_connections(), "Drained");
    }
}
