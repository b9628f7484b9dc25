//! Kubernetes watches → snapshot: one task owns the state, readers get immutable snapshots with what changed.
//!
//! - [`state`]: objects in, snapshot out; pure;
//! - [`watch`]: one watch per kind, feeding the owner task.

pub mod state;
mod watch;

use std::sync::Arc;

use base_runtime::CancellationToken;
use meshd_model::{Change, Snapshot};

pub use state::{Object, State};

/// Why the index ended.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A watch ended although nobody asked for it.
    #[error("the watches ended")]
    Ended,
}

/// Watches everything the mesh depends on and hands every new snapshot to `publish`, the first one when all kinds are known.
///
/// Events that are ready together make one snapshot; nothing waits for more to come. Cancel safe: `shutdown` ends it.
///
/// # Errors
/// When the watches end by themselves. Failing requests are tried again with back-off and only logged.
pub async fn run(
    client: kube::Client,
    publish: impl Fn(Arc<Snapshot>, Change) + Send,
    shutdown: CancellationToken,
) -> Result<(), IndexError> {
    let (mut events, watchers) = watch::start(&client);
    let mut state = State::default();
    let ended = loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            event = events.recv() => event,
        };
        let Some(event) = event else { break Err(IndexError::Ended) };
        watch::apply(&mut state, event);
        for _ in 1..watch::BATCH_MAX {
            let Ok(event) = events.try_recv() else { break };
            watch::apply(&mut state, event);
        }
        if let Some((snapshot, change)) = state.publish() {
            publish(Arc::new(snapshot), change);
        }
    };
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    ended
}
