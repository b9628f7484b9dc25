//! Measures the mesh from release binaries and prints one table: start, memory, pushes, and the data path beside a real Envoy.
//!
//! It expects a network namespace of its own with the loopback up; `run.sh` makes one.

mod backend;
mod cluster;
mod data_path;
mod entry;
mod footprint;
mod http2;
mod identity;
mod load;
mod message;
mod peers;
mod report;
mod resources;
mod summary;
mod system;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use peers::{Peer, Role, Running, Surroundings};
use std::path::PathBuf;
use std::time::Duration;

/// Core of generator and backend.
const LOAD_CORE: usize = 1;

/// Measures the mesh; Markdown on standard output, progress on standard error.
#[derive(Debug, Parser)]
struct Args {
    /// Directory with release binaries of meshctl, cluster, meshd, sidecar, bookinfo and peer.
    programs: PathBuf,
    /// An Envoy binary to measure beside ours.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// Measure a part only.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Of the data path, only cases with this in their title, such as `3:`.
    #[arg(long, default_value = "")]
    case: String,
    /// Only peers with these names, separated by commas; ours always takes part.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Short: one start, ten changes, two rounds of half a second.
    #[arg(long)]
    quick: bool,
    /// Fresh starts of the cluster, and of each proxy.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Changes of weights that are applied.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Rounds of each proxy in each case.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of each round.
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
    /// How many rounds are repeated, in all, when others use more than 5 % of the machine.
    #[arg(long, default_value_t = 60)]
    repeats: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Start, memory and changes of the whole product.
    Cluster,
    /// Start and memory of single proxies.
    Footprint,
    /// What proxies do with traffic.
    DataPath,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.starts, args.changes, args.rounds, args.milliseconds, args.repeats) = (1, 10, 2, 500, 0);
    }
    base_tls::install_default_provider();
    system::raise_descriptors()?;
    let programs = args.programs.canonicalize().context("the directory of programs does not exist")?;
    print!("{}", report::surroundings(args.envoy.as_deref())?);
    let wanted = |part| args.only.is_none_or(|only| only == part);
    if wanted(Part::Cluster) {
        print!("{}", report::cluster(&cluster::measure(&programs, args.starts, args.changes)?));
    }
    if !wanted(Part::Footprint) && !wanted(Part::DataPath) {
        return Ok(());
    }
    let (mut peers, absent) = Peer::all(&programs, args.envoy.as_deref());
    peers.retain(|it| it.is_ours() || args.peers.is_empty() || args.peers.iter().any(|name| name == it.name));
    let plan = data_path::Plan {
        rounds: args.rounds,
        time: Duration::from_millis(args.milliseconds),
        repeats: args.repeats,
        case: args.case.clone(),
    };
    print!("{}", report::peers(&peers, &absent, &plan));
    system::pin(LOAD_CORE)?;
    backend::start()?;
    let around = Surroundings::new(&peers)?;
    if wanted(Part::Footprint) {
        print!("{}", report::footprints(&footprint::measure(&peers, &around, args.starts)?));
    }
    if wanted(Part::DataPath) {
        let running = peers.iter().map(|peer| peer.start(&[Role::Outbound, Role::Inbound], &around));
        let running: Vec<Running> = running.collect::<Result<_>>()?;
        print!("{}", report::data_path(&data_path::measure(&plan, &running, &around)?));
    }
    Ok(())
}
