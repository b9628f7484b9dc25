//! GET with `watch=true`: a stream of events from the store, shaped for one client.
//!
//! Every client has a watch of its own in the store, whose queue shares the events; an event is spliced or shaped here, parsed only
//! when a selector, a table or a conversion needs it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster_store::{Event, EventKind, KeyValue, Message, StoreError, Watch};
use futures::stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{list::parse_revision, render::Shaper, selection::Selection};
use crate::{
    context::Context,
    error::{ApiError, ApiResult},
    kinds::Kind,
    metrics::OpenWatch,
    server::Reply,
};

/// How long a watch waits for a revision that does not exist yet (Kubernetes: 3 s).
const FUTURE_WAIT: Duration = Duration::from_secs(3);
/// How often bookmarks are sent (Kubernetes: about a minute).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// When a client names no timeout (Kubernetes: 30 to 60 minutes).
const TIMEOUT: Duration = Duration::from_secs(45 * 60);
/// About how many bytes of events go into one frame.
const FRAME_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Watcher {
    kind: Arc<Kind>,
    prefix: String,
    selection: Selection,
    shaper: Shaper,
    source: Watch,
    /// What is sent before live events.
    initial: VecDeque<KeyValue>,
    initial_revision: u64,
    /// The bookmark that ends the initial events is still to be sent.
    initial_end: bool,
    bookmarks: bool,
    bookmark_at: Instant,
    deadline: Instant,
    stop: tokio_util::sync::CancellationToken,
    done: bool,
    _counted: OpenWatch,
}

/// Where a watch begins.
#[derive(Debug, PartialEq, Eq)]
enum Begin {
    /// With the current state, then live.
    State { end_bookmark: bool },
    /// After a revision.
    After(u64),
}

/// Handles a watch.
///
/// # Errors
/// 400, 406, 422; an old revision is told inside the stream as Kubernetes does.
pub(crate) async fn watch(ctx: &Context, kind: Arc<Kind>) -> ApiResult<Reply> {
    let selection = Selection::read(ctx, &kind)?;
    let shaper = Shaper::new(ctx, &kind)?;
    let begin = beginning(ctx)?;
    let prefix = kind.prefix_in(&ctx.info.namespace);
    let store = &ctx.api.store;
    wait_for_revision(ctx, &begin).await?;
    let (initial, after) = match begin {
        Begin::State { .. } => {
            let page = store.list(&prefix, None, 0, None)?;
            (page.items.into(), page.revision)
        }
        Begin::After(revision) => (VecDeque::new(), revision),
    };
    let source = match store.watch(&prefix, after) {
        Ok(source) => source,
        Err(error) => return Ok(failed(error)),
    };
    let timeout = ctx.query.get("timeoutSeconds").and_then(|t| t.parse().ok()).filter(|t| *t > 0);
    let now = Instant::now();
    let watcher = Watcher {
        kind,
        prefix,
        selection,
        shaper,
        source,
        initial,
        initial_revision: after,
        initial_end: begin == Begin::State { end_bookmark: true },
        bookmarks: ctx.query.flag("allowWatchBookmarks"),
        bookmark_at: now + BOOKMARK_EVERY,
        deadline: now + timeout.map_or(TIMEOUT, Duration::from_secs),
        stop: ctx.api.shutdown.clone(),
        done: false,
        _counted: ctx.api.metrics.open_watch(),
    };
    let frames =
        stream::unfold(watcher, |mut watcher| async move { watcher.frame().await.map(|f| (f, watcher)) });
    Ok(Reply::stream("application/json", frames))
}

/// A stream of one error event.
fn failed(error: StoreError) -> Reply {
    let event = error_event(&ApiError::from(error));
    Reply::stream("application/json", stream::iter([event]))
}

fn error_event(error: &ApiError) -> Bytes {
    let mut line = json!({"type": "ERROR", "object": error.status()}).to_string();
    line.push('\n');
    Bytes::from(line)
}

fn beginning(ctx: &Context) -> ApiResult<Begin> {
    let revision = ctx.query.get("resourceVersion").map(parse_revision).transpose()?.unwrap_or(0);
    let matching = ctx.query.get("resourceVersionMatch");
    let initial = ctx.query.get("sendInitialEvents");
    match initial {
        None if matching.is_some() => Err(ApiError::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
             for watch unless sendInitialEvents is provided",
        )),
        None if revision == 0 => Ok(Begin::State { end_bookmark: false }),
        None => Ok(Begin::After(revision)),
        Some(_) if matching != Some("NotOlderThan") => Err(ApiError::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
             resourceVersionMatch to NotOlderThan",
        )),
        Some(_) if ctx.query.flag("sendInitialEvents") => {
            Ok(Begin::State { end_bookmark: ctx.query.flag("allowWatchBookmarks") })
        }
        Some(_) if revision == 0 => Ok(Begin::After(ctx.api.store.revision())),
        Some(_) => Ok(Begin::After(revision)),
    }
}

async fn wait_for_revision(ctx: &Context, begin: &Begin) -> ApiResult<()> {
    let wanted = match begin {
        Begin::After(revision) => *revision,
        Begin::State { .. } => ctx.query.get("resourceVersion").map(parse_revision).transpose()?.unwrap_or(0),
    };
    let deadline = Instant::now() + FUTURE_WAIT;
    while ctx.api.store.revision() < wanted {
        if Instant::now() >= deadline {
            return Err(ApiError::too_large_revision(wanted, ctx.api.store.revision()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

// === impl Watcher ===

impl Watcher {
    /// The next frame: as many events as are waiting, up to a size. `None` ends the stream.
    async fn frame(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::new();
        loop {
            if self.fill(&mut out).is_err() {
                self.done = true;
            }
            if !out.is_empty() {
                return Some(Bytes::from(out));
            }
            if self.done {
                return None;
            }
            tokio::select! {
                message = self.source.next() => match message {
                    Some(message) => self.take(message, &mut out),
                    None => self.done = true,
                },
                () = sleep_until(self.bookmark_at) => self.bookmark(&mut out),
                () = sleep_until(self.deadline) => {
                    self.bookmark(&mut out);
                    self.done = true;
                }
                () = self.stop.cancelled() => self.done = true,
            }
        }
    }

    /// Everything that can be sent without waiting.
    fn fill(&mut self, out: &mut Vec<u8>) -> Result<(), ()> {
        while let Some(kv) = self.initial.pop_front() {
            if self.selects(&kv) {
                self.event("ADDED", &kv, out);
            }
            if out.len() >= FRAME_BYTES {
                return Ok(());
            }
        }
        if self.initial_end {
            self.initial_end = false;
            self.shaper.bookmark(self.initial_revision, true, out);
        }
        while out.len() < FRAME_BYTES && !self.done {
            match self.source.try_next() {
                Some(Err(StoreError::Closed)) => return Err(()),
                Some(message) => self.take(message, out),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Result<Message, StoreError>, out: &mut Vec<u8>) {
        match message {
            Ok(Message::Event(event)) => self.change(&event, out),
            Ok(Message::Progress(_)) => {}
            Err(error) => {
                out.extend_from_slice(&error_event(&error.into()));
                self.done = true;
            }
        }
    }

    /// One change: what it means to this client depends on whether the object matched before and matches now.
    fn change(&mut self, event: &Event, out: &mut Vec<u8>) {
        if !event.kv.key.starts_with(&self.prefix) {
            return;
        }
        let before = event.previous.as_ref().is_some_and(|kv| self.selects(kv));
        let now = event.kind == EventKind::Put && self.selects(&event.kv);
        match (before, now) {
            (false, true) => self.event("ADDED", &event.kv, out),
            (true, true) => self.event("MODIFIED", &event.kv, out),
            (true, false) => {
                // The last state that matched, at the revision that ended it.
                let last = event.previous.as_ref().unwrap_or(&event.kv);
                let kv = KeyValue { mod_revision: event.kv.mod_revision, ..last.clone() };
                self.event("DELETED", &kv, out);
            }
            (false, false) => {}
        }
    }

    fn selects(&self, kv: &KeyValue) -> bool {
        self.selection.is_everything()
            || super::modify::read(&self.kind, kv)
                .is_ok_and(|object| self.selection.matches(&self.kind, &object))
    }

    fn event(&mut self, kind: &str, kv: &KeyValue, out: &mut Vec<u8>) {
        self.shaper.event(kind, kv, out);
    }

    fn bookmark(&mut self, out: &mut Vec<u8>) {
        self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
        if self.bookmarks {
            self.shaper.bookmark(self.source.progress(), false, out);
        }
    }
}

/// The object of a bookmark.
pub(crate) fn bookmark_object(kind: &Kind, revision: u64, initial_end: bool) -> Value {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
}
