//! The scheduler: gives each pod a node.
//!
//! One task owns all state: watches change it, and after each change the waiting pods are placed one by one by pure functions; binding
//! requests run beside it. A pod is placed within the turn in which it is heard of.

mod affinity;
mod cluster;
mod driver;
mod filter;
mod pod;
mod queue;
mod report;
mod resources;
mod score;

use kube::Client;
use tokio_util::sync::CancellationToken;

/// Why the scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// A watch ended that should go on for ever.
    #[error("watch on {0} ended")]
    Ended(&'static str),
}

/// Schedules the pods whose `spec.schedulerName` is `default-scheduler`, until `shutdown` is cancelled. Only one process of a cluster
/// may do so at a time.
///
/// # Errors
/// [`SchedulerError::Ended`] when a part ends by itself, which is a fault.
pub async fn run(client: Client, shutdown: CancellationToken) -> Result<(), SchedulerError> {
    driver::run(client, shutdown).await
}
