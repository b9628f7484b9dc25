//! The `sidecar` binary: wiring only.
//!
//! The control runtime (one thread) runs discovery, the certificate's renewal, admin and health ports; the data path runs on workers of its
//! own. The same binary is the sidecar of a pod and a gateway.

mod admin;
mod config;
mod fetch;
mod handover;
mod harden;
mod health;
mod life;
mod memory;
mod merge;
mod node;
mod ports;
mod probes;
mod resident;
mod waiter;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use base_runtime::{TaskGroup, shutdown_on_signals};
use base_types::ErrorChain;
use clap::Parser;
use sidecar_model::Snapshot;
use sidecar_proxy::{Options, Proxy};
use sidecar_telemetry::Metrics;

use config::{Args, Config};
use handover::Inherited;
use tokio::signal::unix::{SignalKind, signal};

/// How often a process that is to take over looks whether it can.
const HANDOVER_TICK: Duration = Duration::from_millis(10);
/// How often readiness is looked at while the proxy starts, to give the start's memory back.
const READY_LOOK: Duration = Duration::from_millis(50);
/// How long after readiness what the first requests alone needed is given back as well.
const TRIM_AFTER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidecar: {}", ErrorChain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    if let Some((address, path)) = args.request() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(fetch::print(address, path.to_owned()));
    }
    if let Some((address, most)) = args.drain() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(fetch::drain(address, most));
    }
    if let Some((directory, binary)) = args.upgrade() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(handover::ask(directory, binary));
    }
    if let Some((directory, arguments)) = args.wait() {
        base_runtime::log::init("info", base_runtime::log::Format::Text)?;
        harden::process().context("cannot forbid core dumps")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(waiter::run(directory, arguments));
    }
    let config = Config::new(args, &|name| std::env::var(name).ok())?;
    let log = base_runtime::log::init(&config.log_level, base_runtime::log::Format::Text)?;
    base_tls::install_default_provider();
    harden::process().context("cannot forbid core dumps")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inherited = std::env::var(handover::LISTENERS).ok();
    match runtime.block_on(run(config, log, inherited.as_deref()))? {
        End::Done => Ok(()),
        // This process was the container's first one: it must not end before the one that has taken over.
        End::Replaced { directory } if inherited.is_none() => Err(waiter::become_one(&directory)),
        End::Replaced { .. } => Ok(()),
    }
}

/// How a proxy's process ends.
enum End {
    /// It was told to.
    Done,
    /// Another process serves in its place.
    Replaced { directory: PathBuf },
}

/// Runs until a signal or the admin port ends it.
async fn run(config: Config, log: base_runtime::log::Filter, inherited: Option<&str>) -> anyhow::Result<End> {
    let mut upgrades = signal(SignalKind::user_defined2())?;
    let mut sockets = Inherited::read(inherited.unwrap_or_default())?;
    let own = ports::open(&config, &mut sockets)?;
    let shutdown = shutdown_on_signals()?;
    let tasks = TaskGroup::new(base_runtime::CancellationToken::new());
    let proxy: Arc<OnceLock<Arc<Proxy>>> = Arc::default();
    let applied = Arc::clone(&proxy);
    // The stream's task first runs when this one waits: the data path is there by then.
    let apply = move |snapshot: &Arc<Snapshot>| {
        if let Some(proxy) = applied.get() {
            proxy.apply(Arc::clone(snapshot));
        }
    };
    let control = sidecar_xds::start(config.discovery(), &tasks, apply);
    let options = Options {
        workers: config.concurrency,
        node: config.node(),
        identity: control.identity.clone(),
        metrics: Metrics::default(),
        inherited: sockets.rest(),
    };
    let data = Arc::new(Proxy::start(options).context("cannot start the workers")?);
    if proxy.set(Arc::clone(&data)).is_err() {
        anyhow::bail!("the data path was started twice");
    }
    let life = Arc::new(life::Life::new(Arc::clone(&data), Arc::clone(&control.status), config.kind));
    if inherited.is_some() {
        // The process before this one serves until this one can.
        while life.not_configured().is_some() {
            tokio::time::sleep(HANDOVER_TICK).await;
        }
    }
    data.open();
    ports::serve(own, &config, log, &life, &tasks);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = %config.node_id(), workers = config.concurrency, "Sidecar started");
    tasks.spawn("trim", trim(Arc::clone(&life)));
    if let Some(gauge) = memory::Gauge::find(config.memory_limit) {
        memory::watch(gauge, &data).context("cannot watch memory")?;
    }
    let Some(directory) = config.state_dir() else {
        life.until_ended(shutdown).await;
        tasks.shutdown(Duration::from_secs(1)).await;
        return Ok(End::Done);
    };
    if inherited.is_some() {
        while life.not_ready().is_some() {
            tokio::time::sleep(HANDOVER_TICK).await;
        }
    }
    handover::announce(&directory).context("cannot say which process serves")?;
    let end = loop {
        tokio::select! {
            () = life.until_ended(shutdown.clone()) => break End::Done,
            _ = upgrades.recv() => {}
        }
        match handover::start(&directory).await {
            Ok(successor) => {
                data.close();
                tasks.token().cancel();
                life.until_replaced(&successor, shutdown).await;
                break End::Replaced { directory };
            }
            Err(error) => tracing::error!(error = %format!("{error:#}"), "No upgrade; this process goes on"),
        }
    };
    tasks.shutdown(Duration::from_secs(1)).await;
    Ok(end)
}

/// Once the proxy is ready, what only its start needed goes back to the system.
async fn trim(life: Arc<life::Life>) {
    while life.not_ready().is_some() {
        tokio::time::sleep(READY_LOOK).await;
    }
    resident::release_code();
    tokio::time::sleep(TRIM_AFTER).await;
    resident::release_code();
    resident::release_heap();
}
