//! What goes into a store and comes out of it, as plain data.

use std::sync::Arc;

use bytes::Bytes;

/// A key and its value as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key.
    pub key: Arc<str>,
    /// What was put.
    pub value: Bytes,
    /// The revision of the put that made the key appear.
    pub create_revision: u64,
    /// The revision of the last change.
    pub mod_revision: u64,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at this revision.
    ModRevision(u64),
}

/// A change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value.
    Put(Bytes),
    /// Removes the key.
    Delete,
}

/// What a successful write answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The revision of the write.
    pub revision: u64,
    /// What the key held before.
    pub previous: Option<KeyValue>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The pairs, in key order.
    pub items: Vec<KeyValue>,
    /// The revision they are of.
    pub revision: u64,
    /// How many matching keys follow the last one of `items`.
    pub remaining: u64,
    /// Whether any follow.
    pub more: bool,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was set.
    Put,
    /// It was removed.
    Delete,
}

/// A change as a watch tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The pair after a put; for a delete the last value, with the deleting revision as its `mod_revision`.
    pub kv: KeyValue,
    /// The pair before the change; absent when the key was created by it.
    pub previous: Option<KeyValue>,
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A change. Revisions never go down.
    Event(Event),
    /// Every matching change up to this revision has been yielded.
    Progress(u64),
}
