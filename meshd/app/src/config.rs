//! Flags and environment: the only place that reads them.

use clap::{Parser, Subcommand};
use policies_api::names;
use std::time::Duration;

/// The mesh's control plane.
#[derive(Parser)]
#[command(
    name = "meshd",
    version,
    about,
    after_help = "It talks to the Kubernetes API of its pod's service account, or of KUBECONFIG."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serves proxies and the API server's webhooks until it is told to stop.
    Serve(Config),
}

/// What can be set.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Config {
    /// Trust domain of identities.
    #[arg(long, env = "TRUST_DOMAIN", default_value = names::TRUST_DOMAIN)]
    pub(crate) trust_domain: String,
    /// Namespace of the control plane.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::ROOT_NAMESPACE)]
    pub(crate) namespace: String,
    /// Image of injected sidecars.
    #[arg(long, env = "SIDECAR_IMAGE", default_value = concat!("mesh.local/sidecar:", env!("CARGO_PKG_VERSION")))]
    pub(crate) sidecar_image: String,
    /// Name of the cluster in metrics.
    #[arg(long, env = "CLUSTER_ID", default_value = names::CLUSTER_ID)]
    pub(crate) cluster_id: String,
    /// Lifetime of workload certificates.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration)]
    pub(crate) certificate_ttl: Duration,
    /// Log level, such as `info` or `info,meshd_xds=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub(crate) log_level: String,
    /// Log level of injected sidecars.
    #[arg(long, env = "SIDECAR_LOG_LEVEL", default_value = "info")]
    pub(crate) sidecar_log_level: String,
    /// Threads.
    #[arg(long, env = "THREADS", default_value_t = 2, value_parser = threads)]
    pub(crate) threads: usize,
}

impl Config {
    /// Names under which proxies and the API server dial this process.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let service = format!("{}.{}", names::CONTROL_PLANE, self.namespace);
        vec![service.clone(), format!("{service}.svc"), format!("{service}.svc.{}", names::CLUSTER_DOMAIN)]
    }

    /// What injected sidecars are told.
    pub(crate) fn injection(&self) -> meshd_webhook::inject::Config {
        meshd_webhook::inject::Config {
            image: self.sidecar_image.clone(),
            trust_domain: self.trust_domain.clone(),
            cluster_id: self.cluster_id.clone(),
            discovery_address: format!(
                "{}.{}.svc:{}",
                names::CONTROL_PLANE,
                self.namespace,
                names::ports::DISCOVERY
            ),
            log_level: self.sidecar_log_level.clone(),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    base_types::duration::parse(text).map_err(|e| e.to_string())
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(|| "must be 1 to 64".into())
}
