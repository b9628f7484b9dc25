//! The embedded store: a tree in memory, a log and checkpoints on disk, one writer.
//!
//! Life of a write: a bounded queue brings it to the writer thread, which takes all that is waiting as one batch, checks each precondition in
//! order, appends one frame to the log, calls `fdatasync` once, then applies the batch to the tree, tells the watches, and answers.
//! Nothing that is not on disk can be read. A second thread, the keeper, compacts history, writes checkpoints and removes files
//! they replace.

mod frame;
mod keeper;
mod log;
mod recover;
mod snapshot;
mod tree;
mod writer;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Store,
    error::StoreError,
    model::{KeyValue, Op, Page, Precondition, Written},
    watch::{Registry, Watch},
};
use keeper::Keeper;
use tree::Tree;
use writer::{Command, Writer};

/// How an embedded store behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long overwritten and deleted values stay readable at their revision.
    pub history: Duration,
    /// The history is shortened when its values take more than this many bytes.
    pub history_bytes_max: usize,
    /// How many live events may wait for one watcher before it is ended.
    pub watch_queue: usize,
    /// How often an idle watch hears of the newest revision.
    pub progress: Duration,
    /// How many writes may wait for the writer; more wait in their callers.
    pub write_queue: usize,
    /// The largest key and value together.
    pub entry_bytes_max: usize,
    /// A checkpoint is written when the log has grown by this many bytes, or by twice the live data if that is more.
    pub checkpoint_bytes: u64,
}

/// Figures of a running store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Live keys.
    pub keys: usize,
    /// Changes kept for watches and old revisions.
    pub history: usize,
    /// Open watches.
    pub watches: usize,
    /// Bytes in the current log file.
    pub log_bytes: u64,
    /// Batches written, each one `fdatasync`.
    pub batches: u64,
    /// Writes in them.
    pub writes: u64,
    /// Checkpoints written since the store was opened.
    pub checkpoints: u64,
}

/// The store in a directory of this machine.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    options: Options,
}

/// What the writer, the keeper and the readers share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    tree: RwLock<Tree>,
    watches: Registry,
    keeper: Keeper,
    log_bytes: AtomicU64,
    batches: AtomicU64,
    writes: AtomicU64,
    checkpoints: AtomicU64,
    /// Locks the directory.
    lock: File,
}

/// Makes a file's content durable; tests put faults here.
type Sync = Arc<dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync>;

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            history: Duration::from_secs(300),
            history_bytes_max: 64 << 20,
            watch_queue: 16_384,
            progress: Duration::from_secs(5),
            write_queue: 4096,
            entry_bytes_max: 8 << 20,
            checkpoint_bytes: 16 << 20,
        }
    }
}

// === impl Embedded ===

impl Embedded {
    /// Opens the store in `dir`, creating both if absent.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a file is damaged otherwise than by a crash in the middle of its last write,
    /// [`StoreError::InUse`] when another process has it open, [`StoreError::Io`] and [`StoreError::Full`].
    pub fn open(dir: &Path, options: Options) -> Result<Arc<Self>, StoreError> {
        Self::open_with(dir, options, Arc::new(File::sync_data))
    }

    fn open_with(dir: &Path, options: Options, sync: Sync) -> Result<Arc<Self>, StoreError> {
        let lock = recover::lock(dir)?;
        let recovered = recover::recover(dir, sync)?;
        let (commands, queue) = mpsc::channel(options.write_queue.max(1));
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            tree: RwLock::new(recovered.tree),
            watches: Registry::new(),
            keeper: Keeper::default(),
            log_bytes: AtomicU64::new(recovered.log.len()),
            batches: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            lock,
        });
        let writer = Writer::new(
            Arc::clone(&shared),
            recovered.log,
            recovered.checkpoint_bytes,
            options.checkpoint_bytes,
        );
        let keeper = {
            let (shared, commands, options) = (Arc::clone(&shared), commands.downgrade(), options.clone());
            spawn("store-keeper", dir, move || keeper::run(&shared, &commands, &options))?
        };
        let writer = spawn("store-writer", dir, move || writer.run(queue))?;
        Ok(Arc::new(Self {
            shared,
            commands: Mutex::new(Some(commands)),
            threads: Mutex::new(vec![writer, keeper]),
            options,
        }))
    }

    /// Finishes the writes that were handed over, ends all watches and releases the directory. Blocks for the last disk write.
    pub fn close(&self) {
        drop(self.commands.lock().take());
        self.shared.keeper.stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("A thread of the store panicked");
            }
        }
        self.shared.watches.close();
        // Said aloud: a child process that is just being started has a copy of the descriptor.
        if let Err(error) = self.shared.lock.unlock() {
            tracing::warn!(%error, "Cannot unlock the store's directory");
        }
    }

    /// Figures for metrics and tests.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (keys, history) = {
            let tree = self.shared.tree.read();
            (tree.live(), tree.history())
        };
        Stats {
            keys,
            history,
            watches: self.shared.watches.len(),
            log_bytes: self.shared.log_bytes.load(Ordering::Relaxed),
            batches: self.shared.batches.load(Ordering::Relaxed),
            writes: self.shared.writes.load(Ordering::Relaxed),
            checkpoints: self.shared.checkpoints.load(Ordering::Relaxed),
        }
    }

    fn command<T: Send + 'static>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let commands = self.commands.lock().clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let commands = commands.ok_or(StoreError::Closed)?;
            commands.send(make(reply)).await.map_err(|_| StoreError::Closed)?;
            drop(commands);
            answer.await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for Embedded {
    fn revision(&self) -> u64 {
        self.shared.tree.read().revision()
    }

    fn get(&self, key: &str) -> (Option<KeyValue>, u64) {
        let tree = self.shared.tree.read();
        (tree.get(key), tree.revision())
    }

    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at_revision: Option<u64>,
    ) -> Result<Page, StoreError> {
        self.shared.tree.read().list(prefix, start_after, limit, at_revision)
    }

    fn write(&self, key: &str, pre: Precondition, op: Op) -> BoxFuture<'static, Result<Written, StoreError>> {
        let bytes = key.len() + if let Op::Put(value) = &op { value.len() } else { 0 };
        let limit = self.options.entry_bytes_max;
        if bytes > limit {
            return Box::pin(std::future::ready(Err(StoreError::TooLarge { bytes, limit })));
        }
        let key = Arc::from(key);
        self.command(move |reply| Command::Write { key, pre, op, reply })
    }

    fn watch(&self, prefix: &str, after_revision: u64) -> Result<Watch, StoreError> {
        let tree = self.shared.tree.read();
        let history = tree.changes(prefix, after_revision)?;
        let (watch, queue) = Watch::new(prefix, tree.revision(), history, self.options.watch_queue);
        // Under the tree's lock: the writer cannot apply a batch that is neither in `history` nor told to this watch.
        self.shared.watches.add(queue)?;
        Ok(watch)
    }

    fn compact(&self, revision: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        self.command(move |reply| Command::Compact { revision, reply })
    }

    fn compacted(&self) -> u64 {
        self.shared.tree.read().compacted()
    }
}

fn spawn(name: &str, dir: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| StoreError::Io {
        action: "starting a thread for",
        file: dir.to_owned(),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
