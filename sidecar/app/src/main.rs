//! The `sidecar` binary: wiring only.
//!
//! The control runtime (one thread) runs discovery, the certificate's renewal, admin and health ports; the data path runs on workers of its
//! own. The same binary is the sidecar of a pod and a gateway.

mod admin;
mod config;
mod fetch;
mod harden;
mod health;
mod life;
mod memory;
mod merge;
mod node;
mod ports;
mod probes;
mod resident;

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

/// How long after readiness the start's memory is given back.
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
    let config = Config::new(args, &|name| std::env::var(name).ok())?;
    let log = base_runtime::log::init(&config.log_level, base_runtime::log::Format::Text)?;
    base_tls::install_default_provider();
    harden::process().context("cannot forbid core dumps")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(config, log))
}

/// Runs until a signal or the admin port ends it.
async fn run(config: Config, log: base_runtime::log::Filter) -> anyhow::Result<()> {
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
    };
    let data = Arc::new(Proxy::start(options).context("cannot start the workers")?);
    if proxy.set(Arc::clone(&data)).is_err() {
        anyhow::bail!("the data path was started twice");
    }
    let life = Arc::new(life::Life::new(Arc::clone(&data), Arc::clone(&control.status), config.kind));
    ports::serve(&config, log, &life, &tasks).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = %config.node_id(), workers = config.concurrency, "Sidecar started");
    tasks.spawn("trim", trim(Arc::clone(&life)));
    if let Some(gauge) = memory::Gauge::find(config.memory_limit) {
        tasks.spawn("memory", memory::watch(gauge, Arc::clone(&data)));
    }
    life.until_ended(shutdown).await;
    tasks.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

/// Once the proxy is ready, what only its start needed goes back to the system.
async fn trim(life: Arc<life::Life>) {
    while life.not_ready().is_some() {
        tokio::time::sleep(TRIM_AFTER).await;
    }
    tokio::time::sleep(TRIM_AFTER).await;
    resident::release_code();
}
