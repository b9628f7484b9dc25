//! The command line: the one place that reads flags and environment.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A Kubernetes-compatible cluster on this machine.
#[derive(Debug, Parser)]
#[command(name = "cluster", version, about, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the cluster until interrupted; its containers go on.
    Run(Run),
    /// Stop the cluster if it runs and delete everything of it: pods, namespaces, mounts, cgroups, files.
    Down(Place),
    /// Print the version.
    Version,
}

/// Which cluster, and where it keeps things.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Name: prefix of the cluster's namespaces and cgroups.
    #[arg(long, default_value = "mesh")]
    pub(crate) name: String,
    /// Where everything is that must survive a reboot.
    #[arg(long, default_value = "/var/lib/mesh")]
    pub(crate) data_dir: PathBuf,
    /// Where everything is that lives as long as the machine runs.
    #[arg(long, default_value = "/run/mesh")]
    pub(crate) run_dir: PathBuf,
}

/// How the cluster runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Number of nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) nodes: u8,
    /// Port of the API server on 127.0.0.1.
    #[arg(long, default_value_t = 6443)]
    pub(crate) api_port: u16,
    /// Port on 127.0.0.1 that leads to the ingress gateway.
    #[arg(long, default_value_t = 8080)]
    pub(crate) ingress_port: u16,
    /// Further ports on 127.0.0.1, each leading to a service: `PORT:NAMESPACE/SERVICE:PORT`. May be repeated.
    #[arg(long, value_name = "PORT:NAMESPACE/SERVICE:PORT")]
    pub(crate) publish: Vec<Publish>,
    /// Which log lines appear, as `info` or `info,cluster_kubelet=debug`.
    #[arg(long, env = "CLUSTER_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// A port of the machine that leads to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) host_port: u16,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) service_port: u16,
}

impl std::str::FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (host_port, target) = text.split_once(':')?;
            let (service, service_port) = target.rsplit_once(':')?;
            let (namespace, service) = service.split_once('/')?;
            let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
            (!namespace.is_empty() && !service.is_empty()).then_some(())?;
            Some(Self {
                host_port: port(host_port)?,
                namespace: namespace.into(),
                service: service.into(),
                service_port: port(service_port)?,
            })
        };
        parse().ok_or_else(|| "must be PORT:NAMESPACE/SERVICE:PORT, as 9000:default/web:80".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn published_ports() {
        let read: Publish = "9000:default/web:80".parse().unwrap();
        assert_eq!((read.host_port, read.service_port), (9000, 80));
        assert_eq!((read.namespace.as_str(), read.service.as_str()), ("default", "web"));
        for wrong in [
            "9000",
            "9000:web:80",
            "0:default/web:80",
            "9000:default/web",
            "x:default/web:80",
            "9000:/web:80",
        ] {
            assert!(wrong.parse::<Publish>().is_err(), "{wrong}");
        }
    }
}
