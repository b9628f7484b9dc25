//! The sample application: four small services that call each other, as one static binary.
//!
//! `productpage` calls `details` and `reviews`; `reviews` v2 and v3 call `ratings`. Service names, labels, port and API are those that
//! Istio's routing samples expect, so those files apply unchanged. `traffic` is a client that keeps a steady rate. `echo` is a service to
//! try policies on; `get` and `send` are clients for inside pods, where there is no other program.

mod client;
mod details;
mod echo;
mod get;
mod load;
mod page;
mod productpage;
mod ratings;
mod reviews;
mod traffic;

use anyhow::Context;
use base_runtime::http_server::{Handler, Listener, serve};
use base_types::ErrorChain;
use clap::{Parser, Subcommand};
use std::{net::SocketAddr, process::ExitCode, time::Duration};
use tokio::net::TcpListener;

/// The bookinfo sample: one service, or a client that calls it.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    role: Role,
    /// Address to serve on.
    #[arg(long, env = "LISTEN", default_value = "[::]:9080", global = true)]
    listen: SocketAddr,
    /// Domain added to the names of the other services.
    #[arg(long, env = "SERVICES_DOMAIN", default_value = "", global = true)]
    services_domain: String,
}

#[derive(Subcommand)]
enum Role {
    /// The page that shows a book with details and reviews.
    Productpage,
    /// Facts about the book.
    Details,
    /// Reviews: v1 has no stars, v2 black ones, v3 red ones.
    Reviews {
        /// Version of the service.
        #[arg(long, env = "SERVICE_VERSION", default_value = "v1")]
        service_version: String,
    },
    /// Stars.
    Ratings,
    /// Calls a URL at a steady rate, prints figures, and ends by itself.
    Traffic {
        /// What to call.
        #[arg(long)]
        url: http::Uri,
        /// Requests a second, at most 1,000.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rate: u32,
        /// Minutes until it ends.
        #[arg(long, default_value_t = 1440, value_parser = clap::value_parser!(u64).range(1..=10080))]
        minutes: u64,
    },
    /// Does as the path says and remembers requests: /status/CODE, /delay/MS, /flaky/N, /seen?path=P.
    Echo {
        /// Name of the pod, told in answers.
        #[arg(long, env = "POD_NAME", default_value = "")]
        pod: String,
        /// Answer everything with this status.
        #[arg(long)]
        fail: Option<http::StatusCode>,
        /// Address on which bytes come back as they are.
        #[arg(long)]
        tcp: Option<SocketAddr>,
    },
    /// Calls a URL and prints the answers as JSON.
    Get(get::Get),
    /// Calls at a steady rate in several protocols at once, and prints what failed as JSON.
    Load(load::Load),
    /// Sends a text over TCP and prints what comes back as JSON.
    Send {
        /// Host and port.
        address: String,
        /// The text; `\\r` and `\\n` are line ends.
        text: String,
        /// End when nothing comes for this many milliseconds.
        #[arg(long, default_value_t = 2_000)]
        silence: u64,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookinfo: {}", ErrorChain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    base_runtime::log::init("info", base_runtime::log::Format::Text)?;
    let shutdown = base_runtime::shutdown_on_signals()?;
    let host = |name: &str| match args.services_domain.as_str() {
        "" => format!("http://{name}:9080"),
        domain => format!("http://{name}.{domain}:9080"),
    };
    let handler: Handler = match args.role {
        Role::Productpage => productpage::handler(host("details"), host("reviews"), host("ratings")),
        Role::Details => details::handler(),
        Role::Reviews { service_version } => {
            reviews::handler(reviews::Stars::of_version(&service_version), host("ratings"))
        }
        Role::Ratings => ratings::handler(),
        Role::Traffic { url, rate, minutes } => {
            return traffic::run(url, rate, Duration::from_secs(60 * minutes), shutdown).await;
        }
        Role::Echo { pod, fail, tcp } => {
            return echo::run(echo::Echo::new(pod, fail), args.listen, tcp, shutdown).await;
        }
        Role::Get(what) => {
            get::get(what).await;
            return Ok(());
        }
        Role::Load(what) => {
            load::run(what).await;
            return Ok(());
        }
        Role::Send { address, text, silence } => {
            get::send(&address, &text, Duration::from_millis(silence)).await;
            return Ok(());
        }
    };
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    tracing::info!(listen = %args.listen, "Serving");
    serve(Listener::Tcp(listener), handler, shutdown).await;
    Ok(())
}
