//! Measures the mesh from release binaries and prints one table: start, memory, pushes, and the data path beside a real Envoy.
//!
//! It expects a network namespace of its own with the loopback up; `run.sh` makes one.

mod backend;
mod cluster;
mod contender;
mod control;
mod load;
mod message;
mod proxies;
mod report;
mod resources;
mod summary;
mod system;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Measures the mesh; Markdown on standard output, progress on standard error.
#[derive(Debug, Parser)]
struct Args {
    /// Directory with release binaries of meshctl, cluster, meshd, sidecar and bookinfo.
    programs: PathBuf,
    /// An Envoy binary to measure beside ours.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// Measure a part only.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Fresh starts of the cluster.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Changes of weights that are applied.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Rounds of each proxy in each case.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How often a round is repeated when others use more than 5 % of the machine.
    #[arg(long, default_value_t = 2)]
    repeats: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Cluster,
    Proxies,
}

fn main() -> Result<()> {
    let args = Args::parse();
    base_tls::install_default_provider();
    let programs = args.programs.canonicalize().context("the directory of programs does not exist")?;
    print!("{}", report::surroundings(args.envoy.as_deref())?);
    if args.only != Some(Part::Proxies) {
        print!("{}", report::cluster(&cluster::measure(&programs, args.starts, args.changes)?));
    }
    if args.only != Some(Part::Cluster) {
        let plan = proxies::Plan {
            sidecar: programs.join("sidecar"),
            envoy: args.envoy,
            rounds: args.rounds,
            seconds: args.seconds,
            repeats: args.repeats,
        };
        print!("{}", report::proxies(&proxies::measure(&plan)?));
    }
    Ok(())
}
