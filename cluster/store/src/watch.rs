//! Watches: a bounded queue for each watcher, filled by the writer, emptied by the watcher.
//!
//! The queue holds shared values, so a thousand watchers of one event cost a thousand pointers. A watcher that lets its queue fill is
//! ended with [`StoreError::TooSlow`]; it is never skipped over in silence.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    error::StoreError,
    model::{Event, Message},
};

/// The receiving end of a watch. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    queue: Arc<Queue>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    prefix: String,
    /// Events up to here came from history when the watch began.
    since: u64,
    /// How many live events may wait.
    bound: usize,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Event>,
    /// Everything up to here has been queued.
    seen: u64,
    /// The last progress that was yielded.
    told: u64,
    /// A progress message is due when the queue is empty.
    progress_due: bool,
    /// How many of `waiting` came from history; they do not count against the bound.
    replayed: usize,
    end: Option<StoreError>,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(
        prefix: &str,
        since: u64,
        history: VecDeque<Event>,
        bound: usize,
    ) -> (Self, Arc<Queue>) {
        let replayed = history.len();
        let state = State { waiting: history, seen: since, told: 0, progress_due: true, replayed, end: None };
        let queue = Arc::new(Queue {
            prefix: prefix.to_owned(),
            since,
            bound,
            state: Mutex::new(state),
            ready: Notify::new(),
        });
        (Self { queue: Arc::clone(&queue) }, queue)
    }

    /// The next message; `None` after an error was yielded or the store was closed. Cancel-safe.
    ///
    /// The first [`Message::Progress`] comes when history has been yielded; later ones every few seconds.
    ///
    /// # Errors
    /// [`StoreError::TooSlow`] when the queue was full: the watcher must list again.
    pub async fn next(&mut self) -> Option<Result<Message, StoreError>> {
        loop {
            match self.try_next() {
                Some(Err(StoreError::Closed)) => return None,
                Some(message) => return Some(message),
                None => self.queue.ready.notified().await,
            }
        }
    }

    /// The next message if one is waiting. [`StoreError::Closed`] says that none will come.
    pub fn try_next(&mut self) -> Option<Result<Message, StoreError>> {
        let mut state = self.queue.state.lock();
        if let Some(error) = &mut state.end {
            return Some(Err(std::mem::replace(error, StoreError::Closed)));
        }
        if let Some(event) = state.waiting.pop_front() {
            state.replayed = state.replayed.saturating_sub(1);
            return Some(Ok(Message::Event(event)));
        }
        if state.progress_due {
            state.progress_due = false;
            state.told = state.seen;
            return Some(Ok(Message::Progress(state.seen)));
        }
        None
    }

    /// The revision up to which everything has been yielded, as far as that is known now.
    #[must_use]
    pub fn progress(&self) -> u64 {
        let state = self.queue.state.lock();
        match state.waiting.front() {
            Some(event) => event.kv.mod_revision.saturating_sub(1),
            None => state.seen,
        }
    }
}

// === impl Queue ===

impl Queue {
    /// Whether the watcher is gone, so that nobody reads this queue.
    fn abandoned(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    fn end(&self, error: StoreError) {
        let mut state = self.state.lock();
        state.waiting.clear();
        if state.end.is_none() {
            state.end = Some(error);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Queues what matches of a batch; false when the watch is over.
    fn offer(self: &Arc<Self>, events: &[Event], revision: u64) -> bool {
        if self.abandoned() {
            return false;
        }
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        let mut matched = false;
        for event in events {
            if event.kv.mod_revision > self.since && event.kv.key.starts_with(self.prefix.as_str()) {
                state.waiting.push_back(event.clone());
                matched = true;
            }
        }
        state.seen = state.seen.max(revision);
        let queued = state.waiting.len() - state.replayed;
        drop(state);
        if queued > self.bound {
            self.end(StoreError::TooSlow { queued });
            return false;
        }
        if matched {
            self.ready.notify_one();
        }
        true
    }

    fn progress(&self) {
        let mut state = self.state.lock();
        if state.seen > state.told && !state.progress_due {
            state.progress_due = true;
            drop(state);
            self.ready.notify_one();
        }
    }
}

/// All watches of a store.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    queues: Mutex<Option<Vec<Arc<Queue>>>>,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new() -> Self {
        Self { queues: Mutex::new(Some(Vec::new())) }
    }

    /// Adds a watch; it must hold everything up to its `since` already.
    pub(crate) fn add(&self, queue: Arc<Queue>) -> Result<(), StoreError> {
        self.queues.lock().as_mut().ok_or(StoreError::Closed)?.push(queue);
        Ok(())
    }

    /// Tells a batch to all watches and forgets those that are over.
    pub(crate) fn publish(&self, events: &[Event], revision: u64) {
        if let Some(queues) = self.queues.lock().as_mut() {
            queues.retain(|queue| queue.offer(events, revision));
        }
    }

    /// Makes every watch that has not heard of the newest revision hear of it.
    pub(crate) fn progress(&self) {
        if let Some(queues) = self.queues.lock().as_mut() {
            queues.retain(|queue| !queue.abandoned());
            queues.iter().for_each(|queue| queue.progress());
        }
    }

    /// Ends all watches, for ever.
    pub(crate) fn close(&self) {
        for queue in self.queues.lock().take().unwrap_or_default() {
            queue.end(StoreError::Closed);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queues.lock().as_ref().map_or(0, Vec::len)
    }
}
