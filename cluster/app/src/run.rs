//! `cluster run`: everything in one process, in the order in which each part needs the others.
//!
//! The machine's namespace is left for the fabric before the first thread starts, so nothing the process opens later can reach the
//! uplink. What people connect to on 127.0.0.1 is bound before that. Containers and their namespaces outlive the process: the next
//! `run` of the same name finds them.

mod parts;
mod pods;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster_network::{Fabric, FabricConfig, NetNs};
use cluster_store::{Embedded, Options};
use nix::sys::stat::{SFlag, fstat};
use serde_json::json;
use tokio::sync::watch;

use crate::cli::{self, Place, Publish};
use crate::control;
use crate::instance::{self, Instance};
use crate::kubeconfig;
use crate::machine;
use crate::pki::Pki;
use crate::status::Board;

pub(crate) use self::parts::Shared;

/// Tasks are asked to end, and given up after this long.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const INGRESS_NAMESPACE: &str = "mesh-system";
const INGRESS_SERVICE: &str = "istio-ingressgateway";

/// What happens to the pods when the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// They go on; the next `run` takes them up.
    KeepPods,
    /// They are asked to end; the next `run` starts them anew.
    StopPods,
}

// === impl Ending ===

impl Ending {
    /// Its word in the control socket's JSON.
    pub(crate) fn pods(self) -> &'static str {
        match self {
            Self::KeepPods => "keep",
            Self::StopPods => "stop",
        }
    }
}

/// What is prepared before the runtime starts.
struct Prepared {
    options: cli::Run,
    board: Board,
    pki: Pki,
    fabric: Fabric,
    api_listener: TcpListener,
    published: Vec<(Publish, TcpListener)>,
    kubeconfig: PathBuf,
}

/// Runs until a signal or the control socket says otherwise.
pub(crate) fn run(mut options: cli::Run) -> Result<()> {
    let start = Instant::now();
    base_runtime::log::init(&options.log, base_runtime::log::Format::Text)?;
    machine::check()?;
    options.place = absolute(options.place)?;
    let instance = Instance::acquire(&options.place, instance::ENDING_TIMEOUT)?;
    if is_log_deleted() {
        instance.delete().context("cannot delete the cluster's lock file")?;
        bail!("cluster `{}` was removed while it was starting", options.place.name);
    }
    let prepared = prepare(options, start)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let done = runtime.block_on(serve(prepared));
    // A thread that hangs in a system call must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(instance);
    done
}

/// Whoever starts us puts our log into the data directory first. From here on a `down` finds our lock; one that came between has deleted
/// that file, and is not to be undone.
fn is_log_deleted() -> bool {
    fstat(std::io::stderr())
        .is_ok_and(|log| SFlag::from_bits_truncate(log.st_mode).contains(SFlag::S_IFREG) && log.st_nlink == 0)
}

/// Paths as the containers' parents will use them, whatever directory those are in.
pub(crate) fn absolute(place: Place) -> Result<Place> {
    let full =
        |path: &Path| std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()));
    Ok(Place { data_dir: full(&place.data_dir)?, run_dir: full(&place.run_dir)?, name: place.name })
}

fn prepare(options: cli::Run, start: Instant) -> Result<Prepared> {
    let Place { name, data_dir, run_dir } = &options.place;
    machine::prepare_directories(data_dir, run_dir)?;
    instance::mark(data_dir, name, "--data-dir")?;
    instance::mark(run_dir, name, "--run-dir")?;
    machine::raise_file_limit();
    base_tls::install_default_provider();

    let host = NetNs::current().context("cannot open this machine's network namespace")?;
    let api_listener = machine::listen(&host, options.api_port, "--api-port")?;
    let mut published = Vec::new();
    for (publish, flag) in publishes(&options) {
        let listener = machine::listen(&host, publish.host_port, flag)?;
        published.push((publish, listener));
    }
    let config = FabricConfig { name: name.clone(), run_dir: run_dir.clone(), nodes: options.nodes };
    let fabric = Fabric::ensure(&config).context("cannot set up the cluster's network")?;
    fabric.enter()?;

    let pki = Pki::open(&data_dir.join("pki"))?;
    let kubeconfig = data_dir.join("kubeconfig");
    let server = format!("https://127.0.0.1:{}", options.api_port);
    let admin = pki.client("kubernetes-admin", Some("system:masters"))?;
    kubeconfig::write_private(&kubeconfig, kubeconfig::text(name, &server, pki.ca_pem(), &admin).as_bytes())
        .with_context(|| format!("cannot write {}", kubeconfig.display()))?;
    save_settings(&options)?;
    fs::write(run_dir.join("cluster.pid"), format!("{}\n", std::process::id()))
        .context("cannot write cluster.pid")?;
    let board = Board::new(start);
    Ok(Prepared { board, pki, fabric, api_listener, published, kubeconfig, options })
}

/// What the next `meshctl up` starts with unless it is told otherwise.
fn save_settings(options: &cli::Run) -> Result<()> {
    let path = options.place.data_dir.join("settings.json");
    let settings =
        json!({"nodes": options.nodes, "apiPort": options.api_port, "ingressPort": options.ingress_port});
    kubeconfig::write_private(&path, settings.to_string().as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn publishes(options: &cli::Run) -> Vec<(Publish, &'static str)> {
    let ingress = Publish {
        host_port: options.ingress_port,
        namespace: INGRESS_NAMESPACE.into(),
        service: INGRESS_SERVICE.into(),
        service_port: 80,
    };
    let others = options.publish.iter().map(|publish| (publish.clone(), "--publish"));
    std::iter::once((ingress, "--ingress-port")).chain(others).collect()
}

async fn serve(prepared: Prepared) -> Result<()> {
    let Prepared { options, board, pki, fabric, api_listener, published, kubeconfig } = prepared;
    let place = options.place.clone();
    let signals = base_runtime::shutdown_on_signals().context("cannot handle signals")?;
    let (ending, mut endings) = watch::channel(None);

    let store = open_store(&place.data_dir.join("store"))?;
    let shared = Shared::open(&options, board, pki, fabric, store, kubeconfig, ending).await?;
    let control = control::listen(&place.run_dir)?;
    shared.group.spawn("control", control::serve(control, shared.clone()));
    let run = parts::start(&shared, api_listener, published);

    let failed = tokio::select! {
        failed = run => failed.err(),
        () = signals.cancelled() => None,
        _ = endings.wait_for(Option::is_some) => None,
    };
    let ending = (*endings.borrow()).unwrap_or(Ending::KeepPods);
    tracing::info!(?ending, "Ending");
    end(&shared, ending).await;
    for file in ["cluster.pid", control::SOCKET] {
        let _gone_already = fs::remove_file(place.run_dir.join(file));
    }
    failed.map_or(Ok(()), Err)
}

/// Those who act first, then the pods if they are to stop, then the API server, then the store.
async fn end(shared: &Arc<Shared>, ending: Ending) {
    shared.workers.shutdown(END_TIMEOUT).await;
    if ending == Ending::StopPods {
        pods::stop(shared).await;
    }
    shared.group.shutdown(END_TIMEOUT).await;
    let store = shared.store.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
        tracing::error!(%error, "Store not closed");
    }
    if ending == Ending::StopPods
        && let Err(error) = Fabric::remove(shared.fabric.name(), shared.fabric.run_dir())
    {
        tracing::warn!(error = %base_types::ErrorChain(&error), "Namespaces not removed");
    }
}

fn open_store(directory: &Path) -> Result<Arc<Embedded>> {
    Embedded::open(directory, Options::default())
        .with_context(|| format!("cannot open the store in {}", directory.display()))
}
