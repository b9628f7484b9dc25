//! Stopping every pod of the cluster when the cluster stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base_types::ErrorChain;
use cluster_containers::Runtime;
use cluster_network::PodNetwork;
use futures::{StreamExt, stream};

use super::Shared;

/// How long a container may take to end by itself. A cluster that stops is waited for by a person.
const GRACE: Duration = Duration::from_secs(5);
/// For one pod altogether, should the system not answer.
const POD_TIMEOUT: Duration = Duration::from_secs(15);
const AT_ONCE: usize = 64;
const SIGTERM: i32 = 15;

/// Asks all containers to end, kills those that do not, and removes sandboxes and pod networks. The objects stay.
pub(super) async fn stop(shared: &Arc<Shared>) {
    let start = Instant::now();
    let mut pods = Vec::new();
    for (_, runtime, network) in &shared.nodes {
        match runtime.list_sandboxes().await {
            Ok(sandboxes) => {
                pods.extend(
                    sandboxes.into_iter().map(|sandbox| (runtime.clone(), network.clone(), sandbox.spec.uid)),
                );
            }
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "Sandboxes not listed"),
        }
    }
    let count = pods.len();
    stream::iter(pods)
        .for_each_concurrent(AT_ONCE, |(runtime, network, uid)| async move {
            let stopped = tokio::time::timeout(POD_TIMEOUT, stop_pod(&runtime, &network, &uid)).await;
            if !matches!(stopped, Ok(Ok(()))) {
                tracing::warn!(pod.uid = uid, "Pod not stopped cleanly");
            }
        })
        .await;
    tracing::info!(pods = count, seconds = start.elapsed().as_secs_f64(), "Pods stopped");
}

async fn stop_pod(runtime: &Runtime, network: &PodNetwork, uid: &str) -> anyhow::Result<()> {
    let containers = runtime.list_containers().await;
    let own = containers.into_iter().filter(|container| container.pod_uid == uid);
    let stops = own.map(|container| async move {
        if let Err(error) = runtime.stop_container(&container.id, SIGTERM, GRACE).await {
            tracing::debug!(container = container.name, error = %ErrorChain(&error), "Container not stopped");
        }
    });
    futures::future::join_all(stops).await;
    runtime.remove_sandbox(uid).await?;
    network.teardown(uid).await?;
    Ok(())
}
