//! Flags, environment and the pod's files, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Map, Value};
use sidecar_proxy::{Node, NodeKind};

use crate::node;
use crate::probes::Probers;

/// Life asked for in certificate requests unless `SECRET_TTL` says otherwise (Istio's name and default).
const CERTIFICATE_TTL: Duration = Duration::from_secs(24 * 3600);

/// The mesh's data plane.
#[derive(Debug, Parser)]
#[command(name = "sidecar", version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

impl Args {
    /// What to ask of the admin port, instead of running a proxy.
    pub(crate) fn request(&self) -> Option<(SocketAddr, &str)> {
        match &self.command {
            Command::Request(ask) => Some((loopback(ask.admin_port), &ask.path)),
            _ => None,
        }
    }

    /// Where the proxy is that is to be upgraded, and to which binary, instead of running one.
    pub(crate) fn upgrade(&self) -> Option<(&Path, &str)> {
        match &self.command {
            Command::Upgrade(upgrade) => Some((&upgrade.state_dir, &upgrade.binary)),
            _ => None,
        }
    }

    /// For which proxy to wait, and what to start again with, instead of running one.
    pub(crate) fn wait(&self) -> Option<(&Path, &[OsString])> {
        match &self.command {
            Command::Wait(wait) => Some((&wait.state_dir, &wait.arguments)),
            _ => None,
        }
    }

    /// Which proxy to drain and how long to wait for it, instead of running one.
    pub(crate) fn drain(&self) -> Option<(SocketAddr, Duration)> {
        match &self.command {
            Command::Drain(drain) => {
                Some((loopback(drain.admin_port), Duration::from_secs(drain.wait_seconds)))
            }
            _ => None,
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy.
    Proxy(Box<ProxyArgs>),
    /// Asks the admin port of the proxy in this pod, and prints the answer.
    Request(RequestArgs),
    /// Replaces the process of the proxy by a new one, of another binary if one is given, without losing a connection.
    Upgrade(UpgradeArgs),
    /// Waits for the process that serves; what a container's first process is after an upgrade.
    #[command(hide = true)]
    Wait(WaitArgs),
    /// Drains the proxy in this pod, and waits until nothing is under way in it: the container's `preStop` hook.
    Drain(DrainArgs),
}

#[derive(Debug, Parser)]
struct UpgradeArgs {
    /// Path of the new binary in the container; without it, the same one again.
    #[arg(long, default_value = "")]
    binary: String,
    /// The proxy's own directory.
    #[arg(long, default_value = "/var/lib/istio/data")]
    state_dir: PathBuf,
}

#[derive(Debug, Parser)]
struct WaitArgs {
    #[arg(long)]
    state_dir: PathBuf,
    /// What to start again with.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, Parser)]
struct DrainArgs {
    /// Longest wait; what is then still under way is left to the application's own end.
    #[arg(long, default_value_t = 5)]
    wait_seconds: u64,
    /// Port of the admin interface, on loopback.
    #[arg(long, default_value_t = 15000)]
    admin_port: u16,
}

#[derive(Debug, Parser)]
struct RequestArgs {
    /// Only `GET`: nothing that is asked this way changes anything.
    #[arg(value_parser = ["GET"])]
    method: String,
    /// Path, such as `/config_dump`.
    path: String,
    /// Port of the admin interface, on loopback.
    #[arg(long, default_value_t = 15000)]
    admin_port: u16,
}

#[derive(Debug, Parser)]
struct ProxyArgs {
    /// Beside a workload, or as a gateway.
    #[arg(value_enum)]
    kind: Kind,
    /// Worker threads; 0: one a processor, at most two beside a workload.
    #[arg(long, default_value_t = 0)]
    concurrency: usize,
    /// Port of the admin interface, on loopback.
    #[arg(long, default_value_t = 15000)]
    admin_port: u16,
    /// Port of merged metrics and rewritten probes.
    #[arg(long, default_value_t = 15020)]
    status_port: u16,
    /// Port of readiness.
    #[arg(long, default_value_t = 15021)]
    health_port: u16,
    /// Port of the proxy's own metrics.
    #[arg(long, default_value_t = 15090)]
    metrics_port: u16,
    /// Roots of the control plane's certificate, PEM.
    #[arg(long, default_value = "/var/run/secrets/istio/root-cert.pem")]
    root_cert: PathBuf,
    /// The service account's token for the control plane.
    #[arg(long, default_value = "/var/run/secrets/tokens/istio-token")]
    token: PathBuf,
    /// Labels and annotations of the pod, by the downward API.
    #[arg(long, default_value = "/etc/istio/pod")]
    pod_info: PathBuf,
    /// Where the last good configuration is kept; should be in memory.
    #[arg(long, default_value = "/var/lib/istio/data")]
    state_dir: PathBuf,
    /// Bytes of memory that must not be exceeded; without it, the limit of the own cgroup.
    #[arg(long)]
    memory_limit: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Sidecar,
    Router,
}

/// Everything the process is told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) kind: NodeKind,
    pub(crate) concurrency: usize,
    pub(crate) log_level: String,
    pub(crate) admin_port: u16,
    pub(crate) status_port: u16,
    pub(crate) health_port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) pod: Pod,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) probers: Probers,
    pub(crate) scrape: Option<Scrape>,
    discovery_address: String,
    discovery_protocol: sidecar_xds::Protocol,
    trust_domain: String,
    root_cert: PathBuf,
    token: PathBuf,
    state_dir: Option<PathBuf>,
    certificate_ttl: Duration,
}

/// The pod this is a part of.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: Option<IpAddr>,
    pub(crate) service_account: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Where the application's own metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scrape {
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// A variable of the environment by name.
pub(crate) type Source<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads what is told, from flags, `env` and the pod's files.
    pub(crate) fn new(args: Args, env: Source<'_>) -> anyhow::Result<Self> {
        let Command::Proxy(args) = args.command else { anyhow::bail!("there is no proxy to configure") };
        let text = |name: &str| env(name).filter(|value| !value.is_empty());
        let kind = match args.kind {
            Kind::Sidecar => NodeKind::Sidecar,
            Kind::Router => NodeKind::Router,
        };
        let address = text("INSTANCE_IP")
            .map(|ip| ip.parse())
            .transpose()
            .context("`INSTANCE_IP` must be an address")?;
        let pod = Pod {
            name: text("POD_NAME").unwrap_or_else(|| "unknown".to_owned()),
            namespace: text("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned()),
            address,
            service_account: text("SERVICE_ACCOUNT").unwrap_or_else(|| "default".to_owned()),
            labels: pod_file(&args.pod_info.join("labels")),
            annotations: pod_file(&args.pod_info.join("annotations")),
        };
        let probers = match text("ISTIO_KUBE_APP_PROBERS") {
            Some(json) => serde_json::from_str(&json)
                .context("`ISTIO_KUBE_APP_PROBERS` must be Istio's JSON of probes")?,
            None => Probers::default(),
        };
        let certificate_ttl = text("SECRET_TTL")
            .map(|ttl| base_types::duration::parse(&ttl))
            .transpose()
            .context("`SECRET_TTL` must be a duration such as 24h")?
            .unwrap_or(CERTIFICATE_TTL);
        Ok(Self {
            concurrency: concurrency(args.concurrency, kind, text("ISTIO_CONCURRENCY")),
            log_level: text("LOG_LEVEL").unwrap_or_else(|| "info".to_owned()),
            admin_port: args.admin_port,
            status_port: args.status_port,
            health_port: args.health_port,
            metrics_port: args.metrics_port,
            memory_limit: args.memory_limit.filter(|limit| *limit > 0),
            metadata: node::metadata(&pod, env),
            probers,
            scrape: scrape(text("ISTIO_PROMETHEUS_ANNOTATIONS").as_deref()),
            discovery_address: text("DISCOVERY_ADDRESS")
                .unwrap_or_else(|| "meshd.mesh-system.svc:15012".to_owned()),
            // Istio's agent has the same switch.
            discovery_protocol: match text("ISTIO_DELTA_XDS").as_deref() {
                None | Some("true" | "1") => sidecar_xds::Protocol::Delta,
                Some("false" | "0") => sidecar_xds::Protocol::Whole,
                Some(_) => anyhow::bail!("`ISTIO_DELTA_XDS` must be `true` or `false`"),
            },
            trust_domain: text("TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".to_owned()),
            root_cert: args.root_cert,
            token: args.token,
            state_dir: Some(args.state_dir).filter(|dir| dir.is_dir()),
            certificate_ttl,
            kind,
            pod,
        })
    }

    /// Where the process keeps what the next one needs.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        self.state_dir.clone()
    }

    /// The identifier that the control plane knows this proxy by.
    pub(crate) fn node_id(&self) -> String {
        node::id(self.kind, &self.pod)
    }

    /// Who we are, to the data path.
    pub(crate) fn node(&self) -> Node {
        let addresses = self.pod.address.into_iter().collect();
        Node::new(
            self.kind,
            &self.node_id(),
            node::workload(&self.pod, &self.metadata),
            addresses,
            &self.pod.name,
        )
        .described(
            &self.service_cluster(),
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// What the producer of spans is called: the canonical service and its namespace.
    fn service_cluster(&self) -> String {
        format!("{}.{}", node::canonical_name(&self.pod, &self.metadata), self.pod.namespace)
    }

    /// What discovery needs to know.
    pub(crate) fn discovery(&self) -> sidecar_xds::Config {
        sidecar_xds::Config {
            discovery_address: self.discovery_address.clone(),
            protocol: self.discovery_protocol,
            root_cert: self.root_cert.clone(),
            token: self.token.clone(),
            node: sidecar_xds::Node {
                id: self.node_id(),
                cluster: self.service_cluster(),
                metadata: Value::Object(self.metadata.clone()),
                locality: sidecar_xds::Locality::default(),
            },
            state_dir: self.state_dir.clone(),
            trust_domain: self.trust_domain.clone(),
            namespace: self.pod.namespace.clone(),
            service_account: self.pod.service_account.clone(),
            certificate_ttl: self.certificate_ttl,
        }
    }
}

fn concurrency(flag: usize, kind: NodeKind, env: Option<String>) -> usize {
    let wanted = if flag > 0 { flag } else { env.and_then(|text| text.parse().ok()).unwrap_or(0) };
    if wanted > 0 {
        return wanted;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if kind == NodeKind::Sidecar { processors.min(2) } else { processors }
}

/// A file of the downward API: lines of `key="value"`, the value escaped as Go does. A file that is not there has no lines.
fn pod_file(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        // Go's quoting of printable text is JSON's.
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
        Some((key.to_owned(), value))
    };
    text.lines().filter_map(line).collect()
}

/// The application's metrics, as the injector found them in the pod's annotations.
fn scrape(json: Option<&str>) -> Option<Scrape> {
    let value: Value = serde_json::from_str(json?).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    if text("scrape") != Some("true") {
        return None;
    }
    Some(Scrape { port: text("port")?.parse().ok()?, path: text("path").unwrap_or("/metrics").to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(env: &[(&str, &str)], pod_info: &Path) -> anyhow::Result<Config> {
        let pod_info = pod_info.to_str().unwrap();
        let args = Args::try_parse_from(["sidecar", "proxy", "sidecar", "--pod-info", pod_info]).unwrap();
        let env: BTreeMap<String, String> =
            env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::new(args, &|name| env.get(name).cloned())
    }

    #[test]
    fn a_request_names_the_admin_port_and_a_path() {
        let ask = |words: &[&str]| Args::try_parse_from([&["sidecar", "request"], words].concat());
        let args = ask(&["GET", "/config_dump"]).unwrap();
        assert_eq!(args.request(), Some(("127.0.0.1:15000".parse().unwrap(), "/config_dump")));
        assert!(ask(&["POST", "/quitquitquit"]).is_err());
        let proxy = Args::try_parse_from(["sidecar", "proxy", "sidecar"]).unwrap();
        assert_eq!(proxy.request(), None);
    }

    #[test]
    fn the_environment_of_a_pod_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("labels"), "app=\"reviews\"\nversion=\"v1\"\n").unwrap();
        let probers =
            r#"{"/app-health/reviews/readyz":{"httpGet":{"path":"/health","port":9080},"timeoutSeconds":2}}"#;
        let config = config(
            &[
                ("POD_NAME", "reviews-v1-abc-x"),
                ("POD_NAMESPACE", "default"),
                ("INSTANCE_IP", "10.244.1.5"),
                ("SERVICE_ACCOUNT", "bookinfo-reviews"),
                ("ISTIO_META_WORKLOAD_NAME", "reviews-v1"),
                ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
                ("ISTIO_KUBE_APP_PROBERS", probers),
                ("ISTIO_PROMETHEUS_ANNOTATIONS", r#"{"scrape":"true","path":"/m","port":"9090"}"#),
            ],
            dir.path(),
        )
        .unwrap();
        assert_eq!(config.node_id(), "sidecar~10.244.1.5~reviews-v1-abc-x.default~default.svc.cluster.local");
        assert_eq!(config.scrape, Some(Scrape { port: 9090, path: "/m".into() }));
        let node = config.node();
        assert_eq!((&*node.workload.name, &*node.workload.canonical_name), ("reviews-v1", "reviews"));
        assert_eq!((&*node.workload.version, &*node.workload.cluster), ("v1", "Kubernetes"));
        let discovery = config.discovery();
        assert_eq!(discovery.node.metadata["LABELS"]["app"], "reviews");
        assert_eq!(discovery.node.metadata["NAMESPACE"], "default");
        assert_eq!(discovery.node.cluster, "reviews.default");
        assert_eq!(discovery.service_account, "bookinfo-reviews");
    }

    #[test]
    fn nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(config(&[("INSTANCE_IP", "x")], dir.path()).unwrap_err().to_string().contains("INSTANCE_IP"));
        assert!(config(&[("ISTIO_KUBE_APP_PROBERS", "{")], dir.path()).is_err());
        assert!(config(&[], dir.path()).is_ok());
    }
}
