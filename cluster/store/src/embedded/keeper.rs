//! The keeper: the thread that compacts by age, writes checkpoints, and lets idle watches hear of progress.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use super::{Options, Shared, log::Log, recover, snapshot, writer::Command};
use crate::model::KeyValue;

/// Where the writer leaves work for the keeper.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    order: Option<(u64, Vec<KeyValue>)>,
    busy: bool,
    stopped: bool,
}

// === impl Keeper ===

impl Keeper {
    /// Whether a checkpoint can be ordered.
    pub(super) fn idle(&self) -> bool {
        let state = self.state.lock();
        !state.busy && !state.stopped && state.order.is_none()
    }

    /// Orders a checkpoint; false when the store is closing.
    pub(super) fn order(&self, revision: u64, pairs: Vec<KeyValue>) -> bool {
        let mut state = self.state.lock();
        if state.stopped {
            return false;
        }
        state.order = Some((revision, pairs));
        self.changed.notify_all();
        true
    }

    /// Lets the keeper finish what it is at and end.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits for an order, for at most `timeout`. `None` when the store is closing.
    fn wait(&self, timeout: Duration) -> Option<Option<(u64, Vec<KeyValue>)>> {
        let mut state = self.state.lock();
        if !state.stopped && state.order.is_none() {
            self.changed.wait_for(&mut state, timeout);
        }
        if state.stopped {
            return None;
        }
        let order = state.order.take();
        state.busy = order.is_some();
        Some(order)
    }

    fn done(&self) {
        self.state.lock().busy = false;
    }
}

/// Keeps a store until it is closed.
pub(super) fn run(shared: &Shared, commands: &mpsc::WeakSender<Command>, options: &Options) {
    let step = (options.history / 10).min(options.progress).max(Duration::from_millis(10));
    let mut ages = VecDeque::new();
    let mut progress_at = Instant::now() + options.progress;
    while let Some(order) = shared.keeper.wait(step) {
        if let Some((revision, pairs)) = order {
            checkpoint(shared, revision, &pairs);
            shared.keeper.done();
        }
        let now = Instant::now();
        if now >= progress_at {
            progress_at = now + options.progress;
            shared.watches.progress();
        }
        if let Some(revision) = due(shared, options, &mut ages, now) {
            let Some(commands) = commands.upgrade() else { break };
            let (reply, _) = tokio::sync::oneshot::channel();
            // When the queue is full the next round will do.
            let _ = commands.try_send(Command::Compact { revision, reply });
        }
    }
}

/// Up to which revision the history is too old or too large.
fn due(shared: &Shared, options: &Options, ages: &mut VecDeque<(Instant, u64)>, now: Instant) -> Option<u64> {
    let (revision, compacted, history, bytes, middle) = {
        let tree = shared.tree.read();
        (tree.revision(), tree.compacted(), tree.history(), tree.history_bytes(), tree.middle_of_history())
    };
    if ages.back().is_none_or(|(_, newest)| *newest < revision) {
        ages.push_back((now, revision));
    }
    let mut due = None;
    while ages.front().is_some_and(|(at, _)| now.duration_since(*at) >= options.history) {
        due = ages.pop_front().map(|(_, revision)| revision);
    }
    if bytes > options.history_bytes_max {
        due = due.max(middle);
    }
    due.filter(|revision| *revision > compacted && history > 0)
}

fn checkpoint(shared: &Shared, revision: u64, pairs: &[KeyValue]) {
    match snapshot::write(&shared.dir, revision, pairs) {
        Ok(bytes) => {
            shared.checkpoints.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(revision, bytes, keys = pairs.len(), "Wrote a checkpoint");
            remove_replaced(shared, revision);
        }
        Err(error) => tracing::warn!(%error, revision, "Cannot write a checkpoint; the log files stay"),
    }
}

/// Removes the logs and checkpoints that the checkpoint at `revision` makes superfluous.
fn remove_replaced(shared: &Shared, revision: u64) {
    let (log, checkpoint) = (Log::name(revision), snapshot::name(revision));
    let Ok(entries) = std::fs::read_dir(&shared.dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let old_log = name.starts_with("log-") && name < log && !name.ends_with(".tmp");
        let old_checkpoint = name.starts_with("checkpoint-") && name < checkpoint && !name.ends_with(".tmp");
        if old_log || old_checkpoint {
            recover::remove(&entry.path());
        }
    }
}
