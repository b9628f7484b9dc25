//! The node agent: it runs the pods that the API assigns to its node, reports their status, and serves logs, exec and metrics.
//!
//! One task per pod ([`worker`]) asks a pure function ([`plan`]) what to do next; containers belong to their own parents and outlive
//! this process. It talks to the API through the client it is given and knows nothing of the store behind it.

mod backoff;
mod checkpoint;
mod container;
mod env;
mod events;
mod field;
mod logs;
mod node;
mod objects;
mod plan;
mod pod;
mod pods;
mod probes;
mod registration;
mod resolv;
mod resources;
mod server;
mod state;
mod status;
mod status_writer;
mod stop;
mod volumes;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use base_tls::Rotating;
use cluster_containers::Runtime;
use cluster_network::{NetNs, PodNetwork};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Service, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::runtime::WatchStreamExt;
use kube::runtime::{reflector, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Port of the kubelet's own API (Kubernetes convention).
pub const PORT: u16 = 10250;

/// What a kubelet is told about its node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// The node's address, where its API listens.
    pub node_ip: IpAddr,
    /// Port of its API; [`PORT`] by convention, 0 lets the kernel choose (and is then not announced).
    pub port: u16,
    /// Addresses of the node's pods, as the Node object shows them.
    pub pod_cidr: String,
    /// Directory of this node alone: pods, logs.
    pub data_dir: PathBuf,
    /// Address of the cluster's DNS.
    pub cluster_dns: IpAddr,
    /// The cluster's domain, `cluster.local`.
    pub cluster_domain: String,
    /// Certificate of the kubelet's API, and the roots of those who may ask it: a client certificate under them is required.
    pub serving: Rotating,
    /// The node's containers.
    pub runtime: Runtime,
    /// The node's pod network.
    pub network: PodNetwork,
    /// The node's network namespace: the API listens and probes dial in it.
    pub node_netns: PathBuf,
    /// Labels of the Node object beyond the standard ones.
    pub labels: BTreeMap<String, String>,
    /// Taints of a newly registered Node object.
    pub taints: Vec<Taint>,
    /// Capacity that replaces what the machine has, by resource name.
    pub capacity: BTreeMap<String, Quantity>,
    /// Version shown as the kubelet's, `v1.34.0+…`.
    pub version: String,
}

/// Why a kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's directory cannot be made.
    #[error("cannot make the node's directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The node's namespace cannot be opened.
    #[error("cannot open the node's network namespace {path}")]
    Namespace {
        /// Where it should be.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kubelet's API cannot listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address wanted.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Runs one node until `shutdown`. Its pods go on without it, and a later run takes them up again.
///
/// # Errors
/// When the directory, the namespace or the listener is not to be had; never for an API server that does not answer yet.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|source| Error::Directory { path: config.data_dir.clone(), source })?;
    let namespace = NetNs::open(&config.node_netns)
        .map_err(|source| Error::Namespace { path: config.node_netns.clone(), source })?;
    let address = SocketAddr::new(config.node_ip, config.port);
    let listener = namespace.listen(address).await.map_err(|source| Error::Listen { address, source })?;

    let writer = reflector::store::Writer::<Service>::default();
    let services = writer.as_reader();
    let follow =
        reflector(writer, watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff());
    let follow = AbortOnDropHandle::new(tokio::spawn(follow.for_each(|_| std::future::ready(()))));

    let capacity = registration::capacity(&config.capacity, &config.data_dir);
    let memory_bytes = capacity.get("memory").and_then(resources::units).unwrap_or(0);
    let node = Arc::new(node::Node {
        name: config.node_name.clone(),
        ip: config.node_ip,
        data_dir: config.data_dir,
        dns: resolv::ClusterDns { server: config.cluster_dns, domain: config.cluster_domain },
        objects: objects::Objects::new(client.clone()),
        events: events::Events::start(client.clone(), &config.node_name),
        client,
        runtime: config.runtime,
        network: config.network,
        namespace,
        services: services.clone(),
        capacity,
        memory_bytes,
        pods: node::Pods::default(),
    });
    let identity = registration::Identity {
        labels: config.labels,
        taints: config.taints,
        pod_cidr: config.pod_cidr,
        version: config.version,
        port: config.port,
    };
    let pods = async {
        tokio::select! {
            // Services must be known before a container is given their addresses.
            _ = services.wait_until_ready() => {}
            () = shutdown.cancelled() => return,
        }
        pods::run(node.clone(), shutdown.clone()).await;
    };
    tokio::join!(
        registration::run(node.clone(), identity, shutdown.clone()),
        server::run(node.clone(), listener, config.serving, shutdown.clone()),
        pods,
    );
    drop(follow);
    Ok(())
}
