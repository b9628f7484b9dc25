//! Tasks with names that end together, within a bound.

use std::{future::Future, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// A group of tasks that share one cancellation. Cheap to clone; a clone is the same group.
#[derive(Clone, Debug)]
pub struct TaskGroup {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl TaskGroup {
    /// A group that ends when `token` is cancelled.
    #[must_use]
    pub fn new(token: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), token }
    }

    /// Cancelled when the group is to end.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs `task` until it ends by itself or the group is cancelled, whichever is first.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        let run = async move {
            tokio::select! {
                () = task => tracing::debug!("Task ended"),
                () = token.cancelled() => {}
            }
        };
        self.tracker.spawn(run.instrument(tracing::info_span!("task", name)));
    }

    /// Runs `task` to its own end: it must watch [`TaskGroup::token`] itself.
    pub fn spawn_draining(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task.instrument(tracing::info_span!("task", name)));
    }

    /// Cancels the group and waits for its tasks, at most `within`. Returns how many are still running.
    pub async fn shutdown(&self, within: Duration) -> usize {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout(within, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "Tasks did not end in time");
        }
        self.tracker.len()
    }
}
