//! The writer: the one thread that decides, orders, logs and applies writes.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Shared,
    frame::{self, Record},
    log::Log,
    tree::{Change, Tree},
};
use crate::{
    error::StoreError,
    model::{KeyValue, Op, Precondition, Written},
};

/// A batch is closed once it has this many writes …
const BATCH_WRITES: usize = 2048;
/// … or this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Changes forgotten under one hold of the tree's lock.
const COMPACT_STEP: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(super) enum Command {
    Write { key: Arc<str>, pre: Precondition, op: Op, reply: Reply<Written> },
    Compact { revision: u64, reply: Reply<()> },
}

/// The writer's own state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    buffer: Vec<u8>,
    /// The size of finished logs that the next checkpoint will replace.
    finished_bytes: u64,
    checkpoint_bytes: u64,
    /// Do not try a checkpoint again before the log has this size.
    retry_at: u64,
}

/// A batch that has been decided but not written.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    compact: Option<u64>,
    writes: Vec<(Result<Written, StoreError>, Reply<Written>)>,
    compactions: Vec<(Result<(), StoreError>, Reply<()>)>,
    /// What keys changed in this batch will hold.
    pending: HashMap<Arc<str>, Option<KeyValue>>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Log, logged_bytes: u64, checkpoint_bytes: u64) -> Self {
        let finished_bytes = logged_bytes.saturating_sub(log.len());
        Self { shared, log, buffer: Vec::new(), finished_bytes, checkpoint_bytes, retry_at: 0 }
    }

    /// Writes batches until all senders are gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut commands = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.bytes();
            commands.push(first);
            while commands.len() < BATCH_WRITES && bytes < BATCH_BYTES {
                let Ok(command) = queue.try_recv() else { break };
                bytes += command.bytes();
                commands.push(command);
            }
            self.commit(commands.drain(..));
            self.checkpoint_if_due();
        }
    }

    fn commit(&mut self, commands: impl Iterator<Item = Command>) {
        let mut batch = Batch::default();
        frame::begin(&mut self.buffer);
        {
            let tree = self.shared.tree.read();
            for command in commands {
                match command {
                    Command::Write { key, pre, op, reply } => {
                        let result = batch.decide(&tree, &key, pre, op, &mut self.buffer);
                        batch.writes.push((result, reply));
                    }
                    Command::Compact { revision, reply } => {
                        let result = batch.decide_compaction(&tree, revision, &mut self.buffer);
                        batch.compactions.push((result, reply));
                    }
                }
            }
        }
        let result = if self.buffer.len() > frame::FRAME {
            self.log.append(&mut self.buffer)
        } else {
            self.log.broken().cloned().map_or(Ok(()), Err)
        };
        if self.buffer.capacity() > BATCH_BYTES {
            self.buffer = Vec::new();
        }
        match result {
            Ok(()) => self.publish(batch),
            Err(error) => batch.fail(&error),
        }
    }

    /// Makes a durable batch visible, then answers.
    fn publish(&self, batch: Batch) {
        let Batch { changes, compact, writes, compactions, pending: _ } = batch;
        let shared = &self.shared;
        if !changes.is_empty() {
            shared.batches.fetch_add(1, Ordering::Relaxed);
            shared.writes.fetch_add(changes.len() as u64, Ordering::Relaxed);
            shared.log_bytes.store(self.log.len(), Ordering::Relaxed);
            let (events, revision) = {
                let mut tree = shared.tree.write();
                let events: Vec<_> = changes.into_iter().filter_map(|change| tree.apply(change)).collect();
                (events, tree.revision())
            };
            shared.watches.publish(&events, revision);
        }
        for (result, reply) in writes {
            // A caller that has gone away does not want the answer.
            let _ = reply.send(result);
        }
        if let Some(revision) = compact {
            while !shared.tree.write().compact(revision, COMPACT_STEP) {}
        }
        for (result, reply) in compactions {
            let _ = reply.send(result);
        }
    }

    /// When the log has grown enough: begins a new one and has the keeper write a checkpoint that replaces the old.
    fn checkpoint_if_due(&mut self) {
        let logged = self.finished_bytes + self.log.len();
        if logged < self.checkpoint_bytes || logged < self.retry_at || self.log.broken().is_some() {
            return;
        }
        let (revision, pairs) = {
            let tree = self.shared.tree.read();
            if logged < tree.live_bytes() * 2 || !self.shared.keeper.idle() {
                return;
            }
            (tree.revision(), tree.pairs())
        };
        let finished = self.log.len();
        if let Err(error) = self.log.rotate(revision) {
            tracing::warn!(%error, "Cannot begin a new log file; going on with the old one");
            self.retry_at = logged + self.checkpoint_bytes / 4;
            return;
        }
        self.finished_bytes += finished;
        if self.shared.keeper.order(revision, pairs) {
            // If the checkpoint fails the old logs stay; the next one will cover them too.
            self.finished_bytes = 0;
        }
    }
}

// === impl Command ===

impl Command {
    fn bytes(&self) -> usize {
        match self {
            Self::Write { key, op: Op::Put(value), .. } => key.len() + value.len(),
            Self::Write { key, .. } => key.len(),
            Self::Compact { .. } => 0,
        }
    }
}

// === impl Batch ===

impl Batch {
    fn decide(
        &mut self,
        tree: &Tree,
        key: &Arc<str>,
        pre: Precondition,
        op: Op,
        buffer: &mut Vec<u8>,
    ) -> Result<Written, StoreError> {
        let current = match self.pending.get(key) {
            Some(pending) => pending.clone(),
            None => tree.get(key),
        };
        let holds = match pre {
            Precondition::None => true,
            Precondition::Absent => current.is_none(),
            Precondition::ModRevision(revision) => {
                current.as_ref().is_some_and(|kv| kv.mod_revision == revision)
            }
        };
        if !holds {
            return Err(StoreError::Conflict { current });
        }
        let revision = tree.revision() + self.changes.len() as u64 + 1;
        let after = match op {
            Op::Delete if current.is_none() => return Err(StoreError::NotFound),
            Op::Delete => {
                frame::push(buffer, &Record::Delete { revision, key: Arc::clone(key) });
                None
            }
            Op::Put(value) => {
                let create_revision = current.as_ref().map_or(revision, |kv| kv.create_revision);
                let kv = KeyValue { key: Arc::clone(key), value, create_revision, mod_revision: revision };
                frame::push_put(buffer, &kv);
                Some(kv)
            }
        };
        let value = after.as_ref().map(|kv| kv.value.clone());
        self.changes.push(Change { revision, key: Arc::clone(key), value });
        self.pending.insert(Arc::clone(key), after);
        Ok(Written { revision, previous: current })
    }

    fn decide_compaction(
        &mut self,
        tree: &Tree,
        revision: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        // Only what can be read already can be compacted.
        if revision > tree.revision() {
            return Err(StoreError::Future { requested: revision, current: tree.revision() });
        }
        if revision > self.compact.unwrap_or(tree.compacted()) {
            frame::push(buffer, &Record::Compact { revision });
            self.compact = Some(revision);
        }
        Ok(())
    }

    /// Answers a batch that was not written. Refusals in it may rest on its own writes, so all get the same answer.
    fn fail(self, error: &StoreError) {
        for (_, reply) in self.writes {
            let _ = reply.send(Err(error.clone()));
        }
        for (_, reply) in self.compactions {
            let _ = reply.send(Err(error.clone()));
        }
    }
}
