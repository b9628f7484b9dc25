//! The pods that wait for a place: ready ones by priority and age, failed ones after a pause, unplaceable ones until something changes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::pod::{Key, PodInfo};

/// The pause after a first failure; it doubles …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// An unplaceable pod is tried again after this, whatever happens.
const FORGOTTEN: Duration = Duration::from_secs(300);

type Rank = (Reverse<i32>, Option<Timestamp>, Key);

/// All waiting pods; each is in one place.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    ready: BTreeSet<Rank>,
    ranks: HashMap<Key, Rank>,
    /// Pods whose binding failed, by when they may be tried again.
    paused: BTreeMap<(Instant, Key), Rank>,
    /// Pods that fit nowhere, since when.
    unplaceable: HashMap<Key, (Instant, Rank)>,
    failures: HashMap<Key, u32>,
}

// === impl Queue ===

impl Queue {
    /// A pod waits; it is tried at once, wherever it was.
    pub(crate) fn add(&mut self, pod: &PodInfo) {
        self.take_out(&pod.key);
        let rank = (Reverse(pod.priority), pod.created, pod.key.clone());
        self.make_ready(rank);
    }

    /// A pod does not wait any more.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.take_out(key);
        self.failures.remove(key);
    }

    /// Whether a pod waits, in any way.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.ranks.contains_key(key)
            || self.unplaceable.contains_key(key)
            || self.paused.keys().any(|(_, paused)| paused == key)
    }

    /// The next pod to place.
    pub(crate) fn next(&mut self) -> Option<Key> {
        let (_, _, key) = self.ready.pop_first()?;
        self.ranks.remove(&key);
        Some(key)
    }

    /// A pod fits nowhere.
    pub(crate) fn unplaceable(&mut self, pod: &PodInfo, now: Instant) {
        let rank = (Reverse(pod.priority), pod.created, pod.key.clone());
        self.unplaceable.insert(pod.key.clone(), (now, rank));
    }

    /// Placing a pod failed for another reason.
    pub(crate) fn failed(&mut self, pod: &PodInfo, now: Instant) {
        let failures = self.failures.entry(pod.key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(8)).min(LAST_PAUSE);
        *failures += 1;
        let rank = (Reverse(pod.priority), pod.created, pod.key.clone());
        self.paused.insert((now + pause, pod.key.clone()), rank);
    }

    /// Something changed that may give room: the unplaceable pods are tried again.
    pub(crate) fn room(&mut self) {
        for (_, (_, rank)) in std::mem::take(&mut self.unplaceable) {
            self.make_ready(rank);
        }
    }

    /// Makes ready what has waited long enough.
    pub(crate) fn ripen(&mut self, now: Instant) {
        while let Some(entry) = self.paused.first_entry().filter(|entry| entry.key().0 <= now) {
            let rank = entry.remove();
            self.make_ready(rank);
        }
        let forgotten =
            self.unplaceable.iter().filter(|(_, (since, _))| now.duration_since(*since) >= FORGOTTEN);
        for key in forgotten.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            if let Some((_, rank)) = self.unplaceable.remove(&key) {
                self.make_ready(rank);
            }
        }
    }

    /// When [`Queue::ripen`] will have something to do.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        let paused = self.paused.keys().next().map(|(at, _)| *at);
        let forgotten = self.unplaceable.values().map(|(since, _)| *since + FORGOTTEN).min();
        paused.into_iter().chain(forgotten).min()
    }

    fn make_ready(&mut self, rank: Rank) {
        self.ranks.insert(rank.2.clone(), rank.clone());
        self.ready.insert(rank);
    }

    fn take_out(&mut self, key: &Key) {
        if let Some(rank) = self.ranks.remove(key) {
            self.ready.remove(&rank);
        }
        self.unplaceable.remove(key);
        self.paused.retain(|(_, paused), _| paused != key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::tests::pod;

    fn names(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.next()).map(|key| key.name).collect()
    }

    #[test]
    fn by_priority_then_age() {
        let mut queue = Queue::default();
        queue.add(&pod("young", json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}})));
        queue.add(&pod("old", json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}})));
        queue.add(&pod(
            "important",
            json!({"metadata": {"creationTimestamp": "2026-01-03T00:00:00Z"}, "spec": {"priority": 5}}),
        ));
        queue.add(&pod("old", json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}})));
        assert_eq!(names(&mut queue), ["important", "old", "young"]);
    }

    #[test]
    fn unplaceable_pods_wait_for_room() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let (a, b) = (pod("a", json!({})), pod("b", json!({})));
        queue.unplaceable(&a, now);
        queue.unplaceable(&b, now);
        assert!(queue.next().is_none() && queue.contains(&a.key));
        queue.remove(&b.key);
        queue.room();
        assert_eq!(names(&mut queue), ["a"]);
        queue.unplaceable(&a, now);
        assert_eq!(queue.next_time(), Some(now + FORGOTTEN));
        queue.ripen(now + FORGOTTEN);
        assert_eq!(names(&mut queue), ["a"]);
        assert!(!queue.contains(&a.key));
    }

    #[test]
    fn failed_pods_pause() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let a = pod("a", json!({}));
        for seconds in [1, 2, 4, 8, 10, 10] {
            queue.failed(&a, now);
            queue.room();
            assert_eq!(queue.next_time(), Some(now + Duration::from_secs(seconds)));
            queue.ripen(now + Duration::from_millis(seconds * 1000 - 1));
            assert!(queue.next().is_none() && queue.contains(&a.key));
            queue.ripen(now + Duration::from_secs(seconds));
            assert_eq!(names(&mut queue), ["a"]);
        }
        queue.remove(&a.key);
        queue.failed(&a, now);
        assert_eq!(queue.next_time(), Some(now + Duration::from_secs(1)));
    }
}
