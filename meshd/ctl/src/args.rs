//! The words of the command line.

use crate::{
    output::Format,
    place::Place,
    up::Up,
    verbs::{
        apply::Apply,
        canary::Canary,
        delete::Delete,
        describe::Describe,
        fault,
        get::Get,
        image, proxy,
        stat::Stat,
        tap::{Tap, Why},
    },
};
use clap::{Parser, Subcommand};

/// A service mesh on its own Kubernetes-compatible cluster.
#[derive(Debug, Parser)]
#[command(
    name = "meshctl",
    version,
    about,
    after_help = "Examples:\n  meshctl up --demo                            a cluster, the mesh, an application with traffic\n  \
                  meshctl apply -f virtualservice.yaml         and wait until every proxy has it\n  \
                  meshctl canary reviews v3 --to 50            half of the traffic to version 3\n  \
                  meshctl fault abort ratings --status 503 --percent 10\n  meshctl down\n\n\
                  Exit status: 0 done, 1 failed, 64 wrong usage, 65 invalid input, 69 no cluster, 75 timed out"
)]
pub struct Args {
    /// Which cluster.
    #[command(flatten)]
    pub place: Place,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// How results are written.
#[derive(Debug, Clone, clap::Args)]
pub struct OutputOptions {
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Which namespace.
#[derive(Debug, Clone, clap::Args)]
pub struct NamespaceOptions {
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a cluster with the mesh; repeatable.
    Up(Up),
    /// Stop the cluster and remove everything, objects and volumes included.
    Down,
    /// Stop the cluster; `up` finds every object and volume again.
    Stop,
    /// Show what runs.
    Status(OutputOptions),
    /// Print the path of the kubeconfig file.
    Kubeconfig,
    /// Load and list container images.
    #[command(subcommand)]
    Image(image::Command),
    /// Create or change objects from files, and wait until every proxy has them.
    #[command(
        after_help = "Examples:\n  meshctl apply -f virtualservice.yaml\n  meshctl apply virtualservice.yaml destinationrule.yaml\n  cat vs.yaml | meshctl apply -f -"
    )]
    Apply(Apply),
    /// Show objects.
    #[command(
        after_help = "Examples:\n  meshctl get virtualservices\n  meshctl get vs reviews -o yaml\n  meshctl get pods -A"
    )]
    Get(Get),
    /// Delete objects by name or from files.
    Delete(Delete),
    /// Show an object with what the mesh makes of it.
    Describe(Describe),
    /// Show proxies: whether they are in sync, and their configuration.
    #[command(subcommand)]
    Proxy(proxy::Command),
    /// Show live traffic by workload: success, requests a second, latency, mutual TLS.
    Stat(Stat),
    /// Show requests of one proxy as they end, without secrets.
    #[command(
        after_help = "Examples:\n  meshctl tap deploy/productpage-v1 --path /reviews\n  meshctl tap deploy/reviews-v1 --failed -o json"
    )]
    Tap(Tap),
    /// Explain why a request failed: hop, cause, hint, from every proxy that it passed.
    Why(Why),
    /// Shift traffic between versions of a service.
    #[command(
        after_help = "Examples:\n  meshctl canary reviews v3 --to 10\n  meshctl canary reviews v3 --to 100"
    )]
    Canary(Canary),
    /// Inject delays and errors into requests to a service.
    #[command(subcommand)]
    Fault(fault::Command),
    /// Print the versions of client and server.
    Version(OutputOptions),
    /// Print a completion script.
    Completion {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}
