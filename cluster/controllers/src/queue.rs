//! A work queue of keys: each key is in it once, is worked on by one worker at a time, and comes back later the more often it fails.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    fmt::Debug,
    hash::Hash,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// The wait after the first failure; it doubles with each further one …
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// … up to this.
const LAST_DELAY: Duration = Duration::from_secs(30);

/// A queue of keys.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    /// What is in `ready`.
    waiting: HashSet<K>,
    /// What a worker has.
    working: HashSet<K>,
    /// What came again while a worker had it.
    again: HashSet<K>,
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    /// The keys of `later`, by its numbers, and of each key its earliest time.
    later_keys: HashMap<u64, K>,
    due: HashMap<K, Instant>,
    numbers: u64,
    failures: HashMap<K, u32>,
}

// === impl Queue ===

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashSet::new(),
            again: HashSet::new(),
            later: BinaryHeap::new(),
            later_keys: HashMap::new(),
            due: HashMap::new(),
            numbers: 0,
            failures: HashMap::new(),
        };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Debug> Queue<K> {
    /// Puts a key in, unless it is there.
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// Puts a key in after a while, unless it is due earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        let mut state = self.state.lock();
        let at = Instant::now() + delay;
        if state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.numbers += 1;
        let number = state.numbers;
        state.due.insert(key.clone(), at);
        state.later_keys.insert(number, key);
        state.later.push(Reverse((at, number)));
        drop(state);
        self.wake.notify_one();
    }

    /// Puts a key in that failed, after a wait that grows with each failure.
    pub fn add_failed(&self, key: K) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = FIRST_DELAY.saturating_mul(1 << (*failures).min(20)).min(LAST_DELAY);
        *failures += 1;
        drop(state);
        self.add_after(key, delay);
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// Waits for a key to work on; [`Queue::done`] must follow. Cancel-safe.
    pub async fn next(&self) -> K {
        loop {
            let woken = self.wake.notified();
            let earliest = {
                let mut state = self.state.lock();
                state.ripen();
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.later.peek().map(|Reverse((at, _))| *at)
            };
            match earliest {
                Some(at) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => woken.await,
            }
        }
    }

    /// The worker is done with a key; if it came again meanwhile it is put in again.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.again.remove(key) {
            state.add(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// How many keys are waiting to be worked on now.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K) {
        if self.working.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }

    /// Moves what is due to the ready ones.
    fn ripen(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, number))) = self.later.peek().copied() {
            if at > now {
                break;
            }
            self.later.pop();
            let Some(key) = self.later_keys.remove(&number) else { continue };
            // An entry that an earlier one has overtaken is not due any more.
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_worked_on_by_one() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!((queue.next().await, queue.len()), ("a", 1));
        queue.add("a");
        queue.add("a");
        assert_eq!((queue.next().await, queue.len()), ("b", 0));
        queue.done(&"a");
        assert_eq!((queue.next().await, queue.len()), ("a", 0));
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn failures_wait_longer_each_time() {
        let queue = Queue::default();
        for wait in [5, 10, 20, 40] {
            let start = Instant::now();
            queue.add_failed("a");
            assert_eq!(queue.next().await, "a");
            assert!(start.elapsed() >= Duration::from_millis(wait), "at least {wait} ms");
            queue.done(&"a");
        }
        queue.forget(&"a");
        assert_eq!(queue.state.lock().failures.get("a"), None);
        for _ in 0..100 {
            queue.add_failed("a");
        }
        let furthest = queue.state.lock().due["a"] - Instant::now();
        assert!(furthest <= FIRST_DELAY, "the earliest time counts");
    }

    #[tokio::test]
    async fn the_earliest_time_counts() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_millis(200));
        queue.add_after("a", Duration::from_millis(20));
        queue.add_after("a", Duration::from_millis(100));
        assert_eq!(queue.next().await, "a");
        assert!(start.elapsed() >= Duration::from_millis(20) && start.elapsed() < Duration::from_millis(100));
        queue.done(&"a");
        assert!(
            tokio::time::timeout(Duration::from_millis(400), queue.next()).await.is_err(),
            "overtaken times are void"
        );
    }

    #[tokio::test]
    async fn many_workers_get_everything_once() {
        let queue = std::sync::Arc::new(Queue::default());
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = std::sync::Arc::clone(&queue);
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while let Ok(key) = tokio::time::timeout(Duration::from_millis(300), queue.next()).await {
                        seen.push(key);
                        tokio::task::yield_now().await;
                        queue.done(&key);
                    }
                    seen
                })
            })
            .collect();
        for key in 0..500 {
            queue.add(key);
        }
        let mut seen = Vec::new();
        for worker in workers {
            seen.extend(worker.await.unwrap());
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
    }
}
