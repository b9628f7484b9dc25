//! The cluster's parts: what they share, and how each is started.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base_runtime::{CancellationToken, TaskGroup};
use base_tls::Rotating;
use base_types::ErrorChain;
use cluster_containers::{Runtime, RuntimeConfig};
use cluster_network::{DNS_ADDRESS, Fabric, NodeNet, PodNetwork, ServiceCatalog};
use cluster_store::Embedded;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::Ending;
use crate::KUBERNETES_VERSION;
use crate::cli::{self, Publish};
use crate::kubeconfig;
use crate::pki::{Pki, RENEW_AFTER};
use crate::publish;
use crate::status::Board;

const API_PORT: u16 = 6443;
/// Before a part that ended is started again.
const PART_RESTART: Duration = Duration::from_secs(1);
const DOMAIN: &str = "cluster.local";
/// Between two questions whether the API server answers yet.
const API_POLL: Duration = Duration::from_millis(5);

/// What the parts, the control socket and the end of the process share.
pub(crate) struct Shared {
    pub(crate) options: cli::Run,
    pub(crate) board: Board,
    pub(crate) pki: Pki,
    pub(crate) fabric: Fabric,
    pub(crate) store: Arc<Embedded>,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) catalog: Arc<ServiceCatalog>,
    /// Each node's containers and pod network.
    pub(crate) nodes: Vec<(NodeNet, Runtime, PodNetwork)>,
    pub(crate) ending: watch::Sender<Option<Ending>>,
    /// Those who act on the cluster; ended first.
    pub(crate) workers: TaskGroup,
    /// Those who serve; ended last.
    pub(crate) group: TaskGroup,
}

// === impl Shared ===

impl Shared {
    /// Opens each node's containers and pods. They may be running: this process is only the next to look after them.
    pub(crate) async fn open(
        options: &cli::Run,
        board: Board,
        pki: Pki,
        fabric: Fabric,
        store: Arc<Embedded>,
        kubeconfig: PathBuf,
        ending: watch::Sender<Option<Ending>>,
    ) -> Result<Arc<Self>> {
        let mut nodes = Vec::new();
        for node in fabric.nodes() {
            let config = runtime_config(options, &node.name)?;
            let runtime = Runtime::open(config)
                .await
                .with_context(|| format!("cannot open the containers of {}", node.name))?;
            nodes.push((node.clone(), runtime, PodNetwork::open(&fabric, &node.name)?));
        }
        Ok(Arc::new(Self {
            options: options.clone(),
            board,
            pki,
            fabric,
            store,
            kubeconfig,
            catalog: ServiceCatalog::new(),
            nodes,
            ending,
            workers: TaskGroup::new(CancellationToken::new()),
            group: TaskGroup::new(CancellationToken::new()),
        }))
    }

    /// An API client with a certificate of its own, over TLS inside the fabric.
    async fn client(&self, user: &str, group: Option<&str>) -> Result<Client> {
        let identity = self.pki.client(user, group)?;
        self.client_with(&identity).await
    }

    async fn client_with(&self, identity: &base_tls::Issued) -> Result<Client> {
        let server = format!("https://{}:{API_PORT}", self.fabric.address());
        let text = kubeconfig::text(self.fabric.name(), &server, self.pki.ca_pem(), identity);
        let parsed = kube::config::Kubeconfig::from_yaml(&text)?;
        let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await?;
        Ok(Client::try_from(config)?)
    }
}

/// The program that becomes each container's parent; it stands beside this one.
fn shim() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's file")?;
    let path = own.with_file_name("container-shim");
    anyhow::ensure!(path.is_file(), "{} is missing; it is built with this program", path.display());
    Ok(path)
}

/// Where a node's containers are kept.
pub(crate) fn runtime_config(options: &cli::Run, node: &str) -> Result<RuntimeConfig> {
    let place = &options.place;
    Ok(RuntimeConfig {
        data_dir: place.data_dir.clone(),
        run_dir: place.run_dir.clone(),
        cgroup_parent: format!("{}/{node}", crate::down::cgroup(&place.name)),
        shim: shim()?,
        shim_args: Vec::new(),
    })
}

/// Starts every part and then waits for one that cannot go on.
pub(super) async fn start(
    shared: &Arc<Shared>,
    api_listener: std::net::TcpListener,
    published: Vec<(Publish, std::net::TcpListener)>,
) -> Result<()> {
    let board = &shared.board;
    for part in ["api", "controllers", "scheduler", "services", "dns"] {
        board.expect(part, "starting");
    }
    for (node, ..) in &shared.nodes {
        board.expect(&node.name, "starting");
    }
    let mut api = start_api(shared, api_listener).await?;
    let admin = shared.client("system:admin", Some("system:masters")).await?;
    tokio::select! {
        ended = &mut api => return ended,
        () = api_answers(&admin) => board.ready("api"),
    }
    start_network(shared, published).await?;
    start_controllers(shared, &admin).await?;
    for (node, runtime, network) in &shared.nodes {
        start_node(shared, node, runtime, network).await?;
    }
    shared.workers.spawn("node-watch", follow_nodes(admin, board.clone()));
    api.await
}

/// The returned future ends only when the API server does.
async fn start_api(
    shared: &Arc<Shared>,
    api_listener: std::net::TcpListener,
) -> Result<BoxFuture<'static, Result<()>>> {
    let advertise = SocketAddr::from((shared.fabric.address(), API_PORT));
    let inside =
        TcpListener::bind(advertise).await.with_context(|| format!("cannot listen on {advertise}"))?;
    let pki = &shared.pki;
    let identity = Rotating::new(pki.api_server(shared.fabric.address())?);
    let kubelet_client = pki.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
    let kubelet_client_identity = Rotating::new(pki.material(&kubelet_client)?);
    let config = cluster_apiserver::Config {
        store: shared.store.clone(),
        listeners: vec![TcpListener::from_std(api_listener)?, inside],
        identity: identity.clone(),
        kubelet_client_identity: kubelet_client_identity.clone(),
        ca_pem: pki.ca_pem().to_owned(),
        service_account_key: pki.service_account_key().to_owned(),
        service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
        dialer: Arc::new(FabricDialer),
        advertise,
        version: KUBERNETES_VERSION.into(),
    };
    let renewing = shared.clone();
    shared.group.spawn("certificates", async move {
        loop {
            tokio::time::sleep(RENEW_AFTER).await;
            let pki = &renewing.pki;
            let renewed = pki.api_server(renewing.fabric.address()).and_then(|material| {
                identity.publish(material);
                let client = pki.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
                kubelet_client_identity.publish(pki.material(&client)?);
                Ok(())
            });
            if let Err(error) = renewed {
                tracing::error!(error = %ErrorChain(error.as_ref()), "Certificates not renewed");
            }
        }
    });
    let (ended, result) = oneshot::channel();
    let token = shared.group.token().clone();
    shared.group.spawn_draining("apiserver", async move {
        let _nobody_waits = ended.send(cluster_apiserver::run(config, token).await);
    });
    let ended = async move {
        match result.await {
            Ok(Ok(())) => Err(anyhow!("the API server ended")),
            Ok(Err(error)) => Err(anyhow!(error).context("the API server cannot go on")),
            Err(_panicked) => Err(anyhow!("the API server panicked")),
        }
    };
    Ok(ended.boxed())
}

async fn api_answers(client: &Client) {
    while let Err(error) = client.apiserver_version().await {
        tracing::debug!(%error, "API server does not answer yet");
        tokio::time::sleep(API_POLL).await;
    }
}

/// Service rules and DNS of every node, from one pair of watches, and the published ports.
async fn start_network(shared: &Arc<Shared>, published: Vec<(Publish, std::net::TcpListener)>) -> Result<()> {
    let client = shared.client("system:kube-proxy", None).await?;
    let catalog = &shared.catalog;
    shared.workers.spawn("services", catalog.clone().follow(client));
    let (mut loaded, mut bound) = (Vec::new(), Vec::new());
    for (node, ..) in &shared.nodes {
        loaded.push(start_rules(shared, node));
        bound.push(start_dns(shared, node));
    }
    for (part, nodes) in [("services", loaded), ("dns", bound)] {
        let (board, catalog) = (shared.board.clone(), catalog.clone());
        shared.workers.spawn("network-ready", async move {
            catalog.synced().await;
            if futures::future::try_join_all(nodes).await.is_ok() {
                board.ready(part);
            }
        });
    }
    for (target, listener) in published {
        let listener = TcpListener::from_std(listener)?;
        shared.workers.spawn("publish", publish::forward(listener, target, catalog.clone()));
    }
    Ok(())
}

/// The receiver hears when the node's rules stand.
fn start_rules(shared: &Shared, node: &NodeNet) -> oneshot::Receiver<()> {
    let (node, catalog, board) = (node.clone(), shared.catalog.clone(), shared.board.clone());
    let (loaded, told) = oneshot::channel();
    let loaded = move || loaded.send(()).unwrap_or_default();
    shared.workers.spawn("service-rules", async move {
        if let Err(error) = cluster_network::run_service_proxy(node, catalog, loaded).await {
            board.not_ready("services", &ErrorChain(&error).to_string());
        }
    });
    told
}

/// The receiver hears when the node's DNS server listens.
fn start_dns(shared: &Shared, node: &NodeNet) -> oneshot::Receiver<()> {
    let (node, catalog, board) = (node.clone(), shared.catalog.clone(), shared.board.clone());
    let (bound, told) = oneshot::channel();
    let bound = move || bound.send(()).unwrap_or_default();
    shared.workers.spawn("dns", async move {
        if let Err(error) = cluster_network::run_dns(node, catalog, DOMAIN, bound).await {
            board.not_ready("dns", &ErrorChain(&error).to_string());
        }
    });
    told
}

/// Controllers and scheduler, each with an identity of its own.
async fn start_controllers(shared: &Arc<Shared>, admin: &Client) -> Result<()> {
    let controllers = shared.client("system:kube-controller-manager", None).await?;
    let config = cluster_controllers::Config::new(shared.pki.ca_pem().to_owned());
    let scheduler = shared.client("system:kube-scheduler", None).await?;
    let token = shared.workers.token().clone();
    keep_running(shared, "controllers", {
        let token = token.clone();
        move || {
            let (client, config, token) = (controllers.clone(), config.clone(), token.clone());
            async move { cluster_controllers::run(client, config, token).await.map_err(anyhow::Error::from) }
        }
    });
    keep_running(shared, "scheduler", move || {
        let (client, token) = (scheduler.clone(), token.clone());
        async move { cluster_scheduler::run(client, token).await.map_err(anyhow::Error::from) }
    });
    shared.board.ready("scheduler");
    // The first thing every pod needs of the controllers.
    let (accounts, board): (Api<ServiceAccount>, _) =
        (Api::default_namespaced(admin.clone()), shared.board.clone());
    shared.workers.spawn("controllers-ready", async move {
        while !matches!(accounts.get_opt("default").await, Ok(Some(_))) {
            tokio::time::sleep(API_POLL).await;
        }
        board.ready("controllers");
    });
    Ok(())
}

/// Runs a part until the process ends; should it end by itself, which is a fault, it is started again.
fn keep_running<F, Fut>(shared: &Shared, part: &'static str, start: F)
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (board, token) = (shared.board.clone(), shared.workers.token().clone());
    shared.workers.spawn_draining(part, async move {
        loop {
            let ended = start().await;
            if token.is_cancelled() {
                return;
            }
            let reason =
                ended.map_or_else(|error| ErrorChain(error.as_ref()).to_string(), |()| "ended".into());
            board.not_ready(part, &reason);
            tokio::select! {
                () = tokio::time::sleep(PART_RESTART) => board.ready(part),
                () = token.cancelled() => return,
            }
        }
    });
}

async fn start_node(
    shared: &Arc<Shared>,
    node: &NodeNet,
    runtime: &Runtime,
    network: &PodNetwork,
) -> Result<()> {
    let identity = shared.pki.node(&node.name, node.address)?;
    let client = shared.client_with(&identity).await?;
    let serving = Rotating::new(shared.pki.material(&identity)?);
    let config = cluster_kubelet::Config {
        node_name: node.name.clone(),
        node_ip: IpAddr::V4(node.address),
        port: cluster_kubelet::PORT,
        pod_cidr: node.pod_cidr.to_string(),
        data_dir: shared.options.place.data_dir.join("nodes").join(&node.name),
        cluster_dns: IpAddr::V4(DNS_ADDRESS),
        cluster_domain: DOMAIN.into(),
        serving,
        runtime: runtime.clone(),
        network: network.clone(),
        node_netns: node.net_ns.clone(),
        labels: Default::default(),
        taints: Vec::new(),
        capacity: Default::default(),
        version: KUBERNETES_VERSION.into(),
    };
    let (board, name) = (shared.board.clone(), node.name.clone());
    let token = shared.workers.token().clone();
    shared.workers.spawn_draining("kubelet", async move {
        if let Err(error) = cluster_kubelet::run(config, client, token).await {
            board.not_ready(&name, &ErrorChain(&error).to_string());
        }
    });
    Ok(())
}

/// A node is ready when its Node object says so.
async fn follow_nodes(client: Client, board: Board) {
    let nodes = watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff();
    let mut nodes = std::pin::pin!(nodes);
    while let Some(event) = nodes.next().await {
        let (Ok(Event::Apply(node)) | Ok(Event::InitApply(node))) = event else { continue };
        let Some(name) = node.metadata.name else { continue };
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == "Ready") else {
            continue;
        };
        match ready.status.as_str() {
            "True" => board.ready(&name),
            _ => board.not_ready(&name, &ready.message.unwrap_or_default()),
        }
    }
}

/// This process lives in the fabric, where pods and kubelets are an ordinary connection away.
struct FabricDialer;

impl cluster_apiserver::Dialer for FabricDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }
}
