//! The durable, watchable key-value store under the API server.
//!
//! It owns one ordered key space with one revision counter, its history, its watches and its files. It knows nothing of Kubernetes:
//! keys are strings, values are bytes. [`Store`] is the contract, [`Embedded`] the implementation that keeps a log and checkpoints in a
//! directory, and [`testsuite`] what every implementation must pass.

mod embedded;
mod error;
mod model;
pub mod testsuite;
mod watch;

pub use embedded::{Embedded, Options, Stats};
pub use error::StoreError;
pub use model::{Event, EventKind, KeyValue, Message, Op, Page, Precondition, Written};
pub use watch::Watch;

use futures::future::BoxFuture;

/// An ordered, versioned, watchable map from string to bytes.
///
/// Every successful write takes the next revision of one counter. What a read shows is on disk already. All methods are safe to call
/// from any thread; none blocks on the disk, except that the returned futures resolve once it has answered.
pub trait Store: Send + Sync + 'static {
    /// The revision of the newest write that can be read.
    fn revision(&self) -> u64;

    /// The value of a key now, and the revision at which "now" is.
    fn get(&self, key: &str) -> (Option<KeyValue>, u64);

    /// The keys that begin with `prefix`, in order, after `start_after`, at most `limit` of them (0 means all), as they were at
    /// `at_revision` (now when absent).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::Future`] when that revision is out of reach.
    fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        at_revision: Option<u64>,
    ) -> Result<Page, StoreError>;

    /// Changes one key if `pre` holds. Resolves once the change is durable and visible.
    ///
    /// The write is handed over on the first poll; dropping the future later does not take it back.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the precondition does not hold, [`StoreError::NotFound`] when an absent key is deleted without
    /// precondition, [`StoreError::Full`], [`StoreError::Io`] (then no later write succeeds), [`StoreError::TooLarge`], [`StoreError::Closed`].
    fn write(&self, key: &str, pre: Precondition, op: Op) -> BoxFuture<'static, Result<Written, StoreError>>;

    /// Every change after `after_revision` to keys that begin with `prefix`: first what has happened already, then what happens.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::Future`] when that revision is out of reach, [`StoreError::Closed`].
    fn watch(&self, prefix: &str, after_revision: u64) -> Result<Watch, StoreError>;

    /// Forgets what was overwritten or deleted at or before `revision`. Never lowers [`Store::compacted`].
    ///
    /// # Errors
    /// [`StoreError::Future`] for a revision that does not exist yet, and what [`Store::write`] says of the disk.
    fn compact(&self, revision: u64) -> BoxFuture<'static, Result<(), StoreError>>;

    /// The oldest revision that can be listed, and after which a watch can begin.
    fn compacted(&self) -> u64;
}
