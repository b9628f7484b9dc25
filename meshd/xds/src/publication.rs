//! Snapshots on their way to all streams, each with what changed since the one before.

use meshd_model::{Change, Snapshot};
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Publications that a slow stream may fall behind before it takes everything as changed.
const BACKLOG: usize = 64;

/// One published snapshot.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The snapshot; its `version` grows with each publication.
    pub snapshot: Arc<Snapshot>,
    /// What differs from the snapshot before.
    pub change: Arc<Change>,
}

/// Hands snapshots to streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    current: Arc<watch::Sender<Option<Publication>>>,
    stream: broadcast::Sender<Publication>,
}

/// One stream's view of publications.
#[derive(Debug)]
pub struct Subscription {
    stream: broadcast::Receiver<Publication>,
    current: watch::Receiver<Option<Publication>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { current: Arc::new(watch::Sender::new(None)), stream: broadcast::Sender::new(BACKLOG) }
    }
}

impl Publisher {
    /// Makes a snapshot the current one.
    pub fn publish(&self, publication: Publication) {
        self.current.send_replace(Some(publication.clone()));
        // No stream is connected: nobody to tell.
        drop(self.stream.send(publication));
    }

    /// The current publication; `None` before the first.
    #[must_use]
    pub fn current(&self) -> Option<Publication> {
        self.current.borrow().clone()
    }

    /// Wakes at each publication.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Publication>> {
        self.current.subscribe()
    }

    /// Follows publications from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription { stream: self.stream.subscribe(), current: self.current.subscribe() }
    }
}

impl Subscription {
    /// The current publication, as soon as there is one, with everything taken as changed.
    pub async fn first(&mut self) -> Option<Publication> {
        let current = self.current.wait_for(Option::is_some).await.ok()?.clone()?;
        Some(Publication { snapshot: current.snapshot, change: Arc::new(Change::everything()) })
    }

    /// The latest publication after the last one seen, with all changes in between merged. Cancel safe.
    pub async fn next(&mut self) -> Option<Publication> {
        let mut latest = match self.stream.recv().await {
            Ok(publication) => publication,
            Err(broadcast::error::RecvError::Lagged(_)) => self.everything()?,
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        loop {
            match self.stream.try_recv() {
                Ok(next) => {
                    let mut change = (*latest.change).clone();
                    change.merge(&next.change);
                    latest = Publication { snapshot: next.snapshot, change: Arc::new(change) };
                }
                Err(broadcast::error::TryRecvError::Lagged(_)) => latest = self.everything()?,
                Err(_) => return Some(latest),
            }
        }
    }

    fn everything(&self) -> Option<Publication> {
        let current = self.current.borrow().clone()?;
        Some(Publication { snapshot: current.snapshot, change: Arc::new(Change::everything()) })
    }
}
