//! Caches that follow a prefix of the store: filled once, then changed as events arrive.

use std::sync::Arc;

use cluster_store::{EventKind, KeyValue, Message, StoreError, Watch};

use crate::{api::Api, config::Error};

/// What a follower is told.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// Forget everything; what exists follows.
    Reset,
    Put(&'a KeyValue),
    Delete(&'a KeyValue),
    /// All that is known has been told; a good moment to publish.
    Settled,
}

/// Tells `on_change` everything under `prefix` before returning, and every change afterwards.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn follow(
    api: &Arc<Api>,
    prefix: &'static str,
    mut on_change: impl FnMut(Change<'_>) + Send + 'static,
) -> Result<(), Error> {
    let mut revision = fill(api, prefix, &mut on_change)?;
    let mut watch = api.store.watch(prefix, revision)?;
    let api = Arc::clone(api);
    let shutdown = api.shutdown.clone();
    api.tasks.clone().spawn(shutdown.run_until_cancelled_owned(async move {
        loop {
            let Some(message) = watch.next().await else { return };
            if let Err(error) = take(message, &mut watch, &mut revision, &mut on_change) {
                tracing::warn!(%error, prefix, "A cache is filled again");
                let again = fill(&api, prefix, &mut on_change).and_then(|at| {
                    revision = at;
                    Ok(api.store.watch(prefix, at)?)
                });
                match again {
                    Ok(again) => watch = again,
                    Err(error) => return tracing::error!(%error, prefix, "A cache cannot be kept up to date"),
                }
            }
        }
    }));
    Ok(())
}

fn fill(api: &Api, prefix: &str, on_change: &mut impl FnMut(Change<'_>)) -> Result<u64, Error> {
    let page = api.store.list(prefix, None, 0, None)?;
    on_change(Change::Reset);
    for kv in &page.items {
        on_change(Change::Put(kv));
    }
    on_change(Change::Settled);
    Ok(page.revision)
}

/// Takes one message and all that wait behind it.
fn take(
    first: Result<Message, StoreError>,
    watch: &mut Watch,
    revision: &mut u64,
    on_change: &mut impl FnMut(Change<'_>),
) -> Result<(), StoreError> {
    let mut next = Some(first);
    let mut changed = false;
    while let Some(message) = next {
        match message? {
            Message::Event(event) => {
                *revision = event.kv.mod_revision;
                changed = true;
                match event.kind {
                    EventKind::Put => on_change(Change::Put(&event.kv)),
                    EventKind::Delete => on_change(Change::Delete(&event.kv)),
                }
            }
            Message::Progress(at) => *revision = at.max(*revision),
        }
        next = watch.try_next();
    }
    if changed {
        on_change(Change::Settled);
    }
    Ok(())
}
