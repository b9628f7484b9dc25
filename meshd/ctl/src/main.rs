//! `meshctl`: the one program that people start. One module a verb; it talks to the Kubernetes API and to the cluster's control socket.

mod args;
mod cluster_client;
mod control;
mod failure;
mod figures;
mod image;
mod install;
mod metrics;
mod output;
mod place;
mod preflight;
mod presence;
mod progress;
mod settings;
mod up;
mod verbs;

use args::{Args, Verb};
use clap::{CommandFactory, Parser};
use failure::{Exit, Outcome};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            drop(error.print());
            // Help and version are no failure; other words are a wrong usage.
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    base_tls::install_default_provider();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let done = runtime.block_on(run(args));
    // Work in the background that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn run(args: Args) -> Outcome {
    let place = &args.place;
    match args.verb {
        Verb::Up(up) => up::run(place, &up).await,
        Verb::Down => verbs::life::down(place).await,
        Verb::Stop => verbs::life::stop(place).await,
        Verb::Status(options) => verbs::status::run(place, options).await,
        Verb::Kubeconfig => verbs::life::kubeconfig(place),
        Verb::Image(command) => verbs::image::run(place, command).await,
        Verb::Apply(apply) => verbs::apply::run(place, apply).await,
        Verb::Get(get) => verbs::get::run(place, get).await,
        Verb::Delete(delete) => verbs::delete::run(place, delete).await,
        Verb::Describe(describe) => verbs::describe::run(place, describe).await,
        Verb::Tap(tap) => verbs::tap::tap(place, tap).await,
        Verb::Why(why) => verbs::tap::why(place, why).await,
        Verb::Proxy(command) => verbs::proxy::run(place, command).await,
        Verb::Stat(stat) => verbs::stat::run(place, stat).await,
        Verb::Canary(canary) => verbs::canary::run(place, canary).await,
        Verb::Fault(command) => verbs::fault::run(place, command).await,
        Verb::Version(options) => verbs::version::run(place, options).await,
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "meshctl", &mut std::io::stdout());
            Ok(())
        }
    }
}
