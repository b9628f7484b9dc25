//! Who is ready, and since when: what `GET /status` says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

/// Readiness of the cluster's parts. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    start: Instant,
    parts: Arc<Mutex<BTreeMap<String, Part>>>,
    all_ready: watch::Sender<bool>,
}

/// One part of the cluster.
#[derive(Clone, Debug, Default, Serialize, PartialEq)]
pub(crate) struct Part {
    /// Whether it does its work now.
    pub(crate) ready: bool,
    /// Seconds from the start of the process until it was ready for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    /// What it waits for, or why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

// === impl Board ===

impl Board {
    /// `start` is when the process began.
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, parts: Arc::default(), all_ready: watch::Sender::new(false) }
    }

    /// A part that is expected; `message` says what it waits for.
    pub(crate) fn expect(&self, part: &str, message: &str) {
        self.set(part, false, message);
    }

    /// The part works. The first time is logged with its seconds.
    pub(crate) fn ready(&self, part: &str) {
        self.set(part, true, "");
    }

    /// The part does not work (any more).
    pub(crate) fn not_ready(&self, part: &str, message: &str) {
        self.set(part, false, message);
    }

    /// Every part, by name.
    pub(crate) fn parts(&self) -> BTreeMap<String, Part> {
        self.parts.lock().clone()
    }

    /// Whether every part works.
    pub(crate) fn is_ready(&self) -> bool {
        let parts = self.parts.lock();
        !parts.is_empty() && parts.values().all(|part| part.ready)
    }

    /// Seconds since the process began.
    pub(crate) fn seconds(&self) -> f64 {
        round(self.start.elapsed().as_secs_f64())
    }

    fn set(&self, name: &str, ready: bool, message: &str) {
        let mut parts = self.parts.lock();
        let part = parts.entry(name.to_owned()).or_default();
        let changed = part.ready != ready;
        part.ready = ready;
        message.clone_into(&mut part.message);
        if ready && part.seconds.is_none() {
            let seconds = self.seconds();
            part.seconds = Some(seconds);
            tracing::info!(part = name, seconds, "Ready");
        } else if changed && !ready {
            tracing::warn!(part = name, message, "Not ready");
        } else if changed {
            tracing::info!(part = name, "Ready again");
        }
        let all = parts.values().all(|part| part.ready);
        drop(parts);
        self.all_ready.send_if_modified(|before| std::mem::replace(before, all) != all);
    }
}

/// To milliseconds: nobody reads more.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_readiness_is_what_counts() {
        let board = Board::new(Instant::now());
        assert!(!board.is_ready());
        board.expect("api", "starting");
        board.expect("node1", "waiting for the API");
        board.ready("api");
        assert!(!board.is_ready());
        board.ready("node1");
        assert!(board.is_ready());
        let first = board.parts()["api"].seconds;
        board.not_ready("api", "connection refused");
        assert_eq!(board.parts()["api"].message, "connection refused");
        board.ready("api");
        assert_eq!((board.parts()["api"].seconds, board.parts()["api"].message.as_str()), (first, ""));
    }
}
