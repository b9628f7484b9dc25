//! The `cluster` binary: a Kubernetes-compatible cluster of several nodes in one process, and the parent process of each container.

mod cli;
mod control;
mod down;
mod instance;
mod kubeconfig;
mod machine;
mod pki;
mod publish;
mod run;
mod status;

use std::process::ExitCode;

use base_types::ErrorChain;
use clap::Parser;

use cli::{Cli, Command};

/// What `/version` says: the API as of Kubernetes 1.33.
pub(crate) const KUBERNETES_VERSION: &str = concat!("v1.33.4+mesh.", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    // The container helper must run before anything has started a thread, so this comes before all else.
    if arguments.next().as_deref() == Some("shim") {
        cluster_containers::shim_main(arguments.collect());
    }
    let done = match Cli::parse().command {
        Command::Run(run) => run::run(run),
        Command::Down(place) => down::down(&place),
        Command::Shim => unreachable_shim(),
        Command::Version => {
            println!("cluster {} (Kubernetes API {KUBERNETES_VERSION})", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {}", ErrorChain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// `shim` was handled before the command line was parsed; only an option in front of it leads here.
fn unreachable_shim() -> anyhow::Result<()> {
    anyhow::bail!("`shim` takes no options before it; the container runtime starts it")
}
