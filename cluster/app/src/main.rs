//! The `cluster` binary: a Kubernetes-compatible cluster of several nodes in one process.

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
    let done = match Cli::parse().command {
        Command::Run(run) => run::run(run),
        Command::Down(place) => down::down(&place),
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
