//! The controllers of the cluster: loops that bring what is closer to what is wanted.
//!
//! One module a controller, each a pure function from caches and a key to a [`plan::Plan`]; one executor that carries plans out. Nothing
//! polls: watches wake keys, and a plan can ask to be looked at again at a certain time. The peer is any Kubernetes API server.

mod account;
mod cache;
mod deployment;
mod endpointslice;
mod events;
mod eviction;
mod executor;
mod garbage;
mod hub;
mod namespace;
mod node;
mod plan;
mod pod;
mod pod_gc;
mod queue;
mod replicaset;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use cache::Key;
use executor::{Executor, Reconcile};
use hub::Hub;
use queue::Queue;

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The certificate of the cluster's authority in PEM, which every namespace gets as ConfigMap `kube-root-ca.crt`.
    pub cluster_ca_pem: String,
    /// A node whose Lease is not renewed for so long is not ready; Kubernetes' default is 40 s.
    pub node_grace: Duration,
}

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    /// A task ended that should go on for ever.
    #[error("controller task {0} ended")]
    Ended(&'static str),
}

// === impl Config ===

impl Config {
    /// The defaults, with this authority.
    #[must_use]
    pub fn new(cluster_ca_pem: String) -> Self {
        Self { cluster_ca_pem, node_grace: Duration::from_secs(40) }
    }
}

/// Runs all controllers until `shutdown` is cancelled. Only one process of a cluster may do so at a time.
///
/// # Errors
/// [`ControllersError::Ended`] when a part ends by itself, which is a fault.
pub async fn run(
    client: Client,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), ControllersError> {
    let stop = shutdown.child_token();
    let hub = Arc::new(Hub::default());
    let (recorder, events) = events::recorder(client.clone(), stop.clone());
    let mut tasks: Vec<Task> = vec![("events", Box::pin(events))];
    tasks.extend(hub.feeds(&client, &stop).into_iter().map(|feed| ("watch", feed)));
    let executor = |source| Executor {
        client: client.clone(),
        hub: Arc::clone(&hub),
        recorder: recorder.clone(),
        source,
    };
    tasks.extend(workers(&config, executor, &stop));
    let inventory = Arc::new(garbage::Inventory::new(Arc::clone(&hub)));
    let collector = garbage::Collector::new(client.clone(), Arc::clone(&inventory));
    let namespaces = namespace::Namespaces { client: client.clone(), hub, inventory: Arc::clone(&inventory) };
    tasks.push(("inventory", Box::pin(inventory.run(client, stop.clone()))));
    tasks.push(("garbage-collector", Box::pin(collector.run(stop.clone()))));
    tasks.push(("namespace-controller", Box::pin(namespaces.run(stop.clone()))));
    run_all(tasks, shutdown, stop).await
}

type Task = (&'static str, BoxFuture<'static, ()>);

/// The workers of the controllers that make plans.
fn workers(
    config: &Config,
    executor: impl Fn(&'static str) -> Executor,
    stop: &CancellationToken,
) -> Vec<Task> {
    let work = |name: &'static str, queue: fn(&Hub) -> &Queue<Key>, reconcile: Reconcile| -> Task {
        (name, Box::pin(executor(name).work(queue, reconcile, stop.clone())))
    };
    let (ca, grace) = (config.cluster_ca_pem.clone(), config.node_grace);
    let now = Timestamp::now;
    vec![
        work(
            "deployment-controller",
            |hub| &hub.queues.deployments,
            Box::new(move |hub, key| deployment::reconcile(&hub.caches, key, now())),
        ),
        work(
            "replicaset-controller",
            |hub| &hub.queues.replica_sets,
            Box::new(move |hub, key| replicaset::reconcile(&hub.caches, key, now())),
        ),
        work(
            "endpoint-slice-controller",
            |hub| &hub.queues.endpoint_slices,
            Box::new(|hub, key| endpointslice::reconcile(&hub.caches, key)),
        ),
        work(
            "service-account-controller",
            |hub| &hub.queues.accounts,
            Box::new(move |hub, key| account::reconcile(&hub.caches, key, &ca)),
        ),
        work(
            "node-controller",
            |hub| &hub.queues.nodes,
            Box::new(move |hub, key| node::reconcile(&hub.caches, key, grace, Instant::now(), now())),
        ),
        work(
            "taint-eviction-controller",
            |hub| &hub.queues.evictions,
            Box::new(move |hub, key| eviction::reconcile(&hub.caches, key, now())),
        ),
        work(
            "pod-garbage-collector",
            |hub| &hub.queues.pods,
            Box::new(move |hub, key| pod_gc::reconcile(&hub.caches, key, now())),
        ),
    ]
}

/// Runs tasks until shutdown; if one ends before, all end.
async fn run_all(
    tasks: Vec<Task>,
    shutdown: CancellationToken,
    stop: CancellationToken,
) -> Result<(), ControllersError> {
    let guard = stop.clone().drop_guard();
    let mut running: FuturesUnordered<_> = tasks
        .into_iter()
        .map(|(name, task)| {
            let task = tokio::spawn(task);
            async move {
                if let Err(error) = task.await {
                    tracing::error!(task = name, %error, "A controller task failed");
                }
                name
            }
        })
        .collect();
    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = running.next() => ended,
    };
    drop(guard);
    while running.next().await.is_some() {}
    match ended {
        Some(name) if !shutdown.is_cancelled() => Err(ControllersError::Ended(name)),
        _ => Ok(()),
    }
}
