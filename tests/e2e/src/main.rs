//! End-to-end tests: one real cluster with the mesh and the sample application, used as a person uses it.
//!
//! The cases run in order against the same cluster, made by `meshctl up --demo` and removed by `meshctl down`; words on the command
//! line choose cases by a part of their name. Run it in a network namespace of its own: `unshare --net e2e`.

mod cases;
mod load;
mod mesh;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mesh::Mesh;
use std::{path::PathBuf, process::ExitCode, time::Instant};

/// End-to-end tests of the mesh.
#[derive(Parser)]
struct Args {
    /// Folder with the built programs.
    #[arg(long)]
    programs: PathBuf,
    /// Name of the cluster.
    #[arg(long, default_value = "e2e")]
    name: String,
    /// A checkout of Istio: its samples of bookinfo are applied as they are.
    #[arg(long, value_name = "DIR")]
    istio_samples: Option<PathBuf>,
    /// Leave the cluster running at the end.
    #[arg(long)]
    keep: bool,
    /// Show the cases.
    #[arg(long)]
    list: bool,
    /// Parts of names of cases; all when there is none.
    cases: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<usize> {
    let wanted =
        |name: &str| args.cases.is_empty() || args.cases.iter().any(|part| name.contains(part.as_str()));
    let can = |case: &cases::Case| !case.needs_istio || args.istio_samples.is_some();
    let all: Vec<_> = cases::all().into_iter().filter(|case| wanted(case.name) && can(case)).collect();
    if args.list {
        all.iter().for_each(|case| println!("{}", case.name));
        return Ok(0);
    }
    ensure_isolated()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mesh = Mesh::new(&args.programs, &args.name, args.istio_samples.clone())?;
    mesh.down().context("removing what an earlier run left")?;
    let (mut failed, mut passed) = (Vec::new(), 0);
    for case in all {
        let started = Instant::now();
        let result = runtime.block_on((case.run)(&mesh));
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(said) => {
                passed += 1;
                println!(
                    "test {} ... ok ({seconds:.1}s{}{said})",
                    case.name,
                    if said.is_empty() { "" } else { "; " }
                );
            }
            Err(error) => {
                println!("test {} ... FAILED ({seconds:.1}s)\n    {error:#}", case.name);
                failed.push(case.name);
                if case.essential {
                    println!("    nothing else can run without it");
                    break;
                }
            }
        }
    }
    if !failed.is_empty() {
        mesh.explain();
    }
    if !args.keep {
        mesh.down()?;
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len()
    );
    Ok(failed.len())
}

/// A mistake in routing must not reach the machine's network: the namespace that this runs in has loopback and no way out.
fn ensure_isolated() -> Result<()> {
    let routes = std::fs::read_to_string("/proc/net/route")?;
    let default = routes.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    ensure!(
        !default,
        "this network namespace has a default route; run it as: unshare --net {}",
        std::env::args().next().unwrap_or_default()
    );
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    ensure!(up.success(), "cannot set lo up; run as root");
    Ok(())
}
