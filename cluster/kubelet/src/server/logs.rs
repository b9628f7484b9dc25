//! `/containerLogs`: a container's log file as text, to its end or as long as the container runs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::follow::Growth;
use super::query::Query;
use super::{Answer, Api, Refusal};
use crate::logs::{Selection, tail_offset};
use crate::node::{Node, PodEntry};
use crate::pod;
use crate::state::Life;

/// Blocks of text on their way to a slow reader.
const BLOCKS_WAITING_MAX: usize = 8;
const BLOCK_BYTES: usize = 64 << 10;
/// A line longer than this is given up on: the shim splits lines far earlier.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How often a follower looks whether its container still runs, should it miss the news.
const LIVENESS_CHECK: Duration = Duration::from_secs(5);

/// What a reader asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    follow: bool,
    previous: bool,
    tail_lines: Option<u64>,
    selection: Selection,
}

/// The log of one instance.
struct Source {
    node: Arc<Node>,
    uid: String,
    container: String,
    attempt: u32,
    path: PathBuf,
}

/// Answers with the log of a container.
pub(super) fn stream(api: &Api, found: PodEntry, container: &str, query: &Query) -> Result<Answer, Refusal> {
    let wanted = Wanted::parse(query, Timestamp::now())?;
    let source = Source::find(&api.node, &found, container, wanted.previous)?;
    let file = File::open(&source.path).map_err(|error| {
        let message = format!("failed to open log file \"{}\": {error}", source.path.display());
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    let (blocks, waiting) = mpsc::channel(BLOCKS_WAITING_MAX);
    let shutdown = api.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = blocks.closed() => {}
            ended = pump(source, file, wanted, &blocks) => if let Err(error) = ended {
                tracing::debug!(%error, "Log stream ended");
            }
        }
    });
    let body = futures::stream::unfold(waiting, |mut waiting| async move {
        let block: Bytes = waiting.recv().await?;
        Some((Ok(Frame::data(block)), waiting))
    });
    let mut answer = Response::new(StreamBody::new(body).boxed());
    let kind = http::HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(answer)
}

/// Copies lines until the reader has had enough, or the file has ended and is not followed, or its container has ended.
async fn pump(
    source: Source,
    mut file: File,
    mut wanted: Wanted,
    blocks: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    // Watched before it is read: nothing written in between is missed.
    let mut growth = if wanted.follow { Some(Growth::watch(&source.path)?) } else { None };
    if let Some(lines) = wanted.tail_lines {
        let from = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(from))?;
    }
    let (mut pending, mut successor) = (Vec::new(), None);
    loop {
        let running = source.is_running();
        let (back, read, bytes) = read_block(file).await?;
        file = back;
        pending.extend_from_slice(&bytes[..read]);
        let mut out = Vec::new();
        let more = show_lines(&mut pending, &mut wanted.selection, &mut out);
        if !out.is_empty() && blocks.send(out.into()).await.is_err() || !more {
            return Ok(());
        }
        if read > 0 {
            continue;
        }
        // All of the file is shown. If it was rotated, it is read once more for what came before that, and then its successor.
        if let Some(next) = successor.take() {
            file = next;
            continue;
        }
        successor = source.successor(&file);
        if successor.is_some() {
            growth = if wanted.follow { Some(Growth::watch(&source.path)?) } else { None };
            continue;
        }
        match &mut growth {
            Some(growth) if running => tokio::select! {
                grown = growth.grown() => grown?,
                () = source.ended() => {}
            },
            _ => return Ok(()),
        }
    }
}

async fn read_block(mut file: File) -> io::Result<(File, usize, Vec<u8>)> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; BLOCK_BYTES];
        file.read(&mut bytes).map(|read| (file, read, bytes))
    });
    read.await.map_err(io::Error::other)?
}

/// Shows all whole lines of `pending` and keeps the rest; false once the reader has had enough.
fn show_lines(pending: &mut Vec<u8>, selection: &mut Selection, out: &mut Vec<u8>) -> bool {
    let mut at = 0;
    while let Some(length) = pending[at..].iter().position(|byte| *byte == b'\n') {
        if !selection.show(&pending[at..at + length], out) {
            return false;
        }
        at += length + 1;
    }
    pending.drain(..at);
    if pending.len() > LINE_BYTES_MAX {
        pending.clear();
    }
    true
}

// === impl Wanted ===

impl Wanted {
    fn parse(query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let bad = |key: &str| Refusal::new(StatusCode::BAD_REQUEST, format!("invalid value of {key}"));
        let number = |key: &str| -> Result<Option<u64>, Refusal> {
            query
                .first(key)
                .filter(|text| !text.is_empty())
                .map(|text| text.parse().map_err(|_| bad(key)))
                .transpose()
        };
        let ago = number("sinceSeconds")?
            .map(|seconds| i64::try_from(seconds).map_err(|_| bad("sinceSeconds")))
            .transpose()?
            .and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        let time = query.first("sinceTime").filter(|text| !text.is_empty());
        let time = time.map(|text| text.parse::<Timestamp>().map_err(|_| bad("sinceTime"))).transpose()?;
        let stream = match query.first("stream") {
            Some("Stdout") => Some("stdout".to_owned()),
            Some("Stderr") => Some("stderr".to_owned()),
            _ => None,
        };
        let selection =
            Selection::new(time.or(ago), query.flag(&["timestamps"]), number("limitBytes")?, stream);
        Ok(Self {
            follow: query.flag(&["follow"]),
            previous: query.flag(&["previous"]),
            tail_lines: number("tailLines")?,
            selection,
        })
    }
}

// === impl Source ===

impl Source {
    fn find(node: &Arc<Node>, found: &PodEntry, container: &str, previous: bool) -> Result<Self, Refusal> {
        let name = pod::name(&found.pod);
        if pod::container(&found.pod, container).is_none() {
            let message = format!("container {container} is not valid for pod {name}");
            return Err(Refusal::new(StatusCode::NOT_FOUND, message));
        }
        let seen = found.state.container(container);
        let refuse = |message: String| Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        let attempt = match (&seen.life, previous) {
            (Life::Running(_) | Life::Stopping(_) | Life::Exited(_), false) => seen.attempt,
            (Life::Waiting | Life::Starting, _) if seen.last.is_some() => seen.attempt,
            (_, true) => match seen.attempt.checked_sub(1) {
                Some(before) => before,
                None => {
                    let message =
                        format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
                    return refuse(message);
                }
            },
            _ => {
                let why =
                    seen.trouble.as_ref().map_or("ContainerCreating", |trouble| trouble.reason.as_str());
                let message =
                    format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}");
                return refuse(message);
            }
        };
        Ok(Self {
            path: node.log_path(&found.pod, container, attempt),
            uid: pod::uid(&found.pod).to_owned(),
            container: container.to_owned(),
            node: node.clone(),
            attempt,
        })
    }

    /// The file that took the place of `file` when the log was rotated.
    fn successor(&self, file: &File) -> Option<File> {
        let next = File::open(&self.path).ok()?;
        let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        (identity(&next)? != identity(file)?).then_some(next)
    }

    /// Whether this very instance still writes.
    fn is_running(&self) -> bool {
        self.node.pods.get(&self.uid).is_some_and(|entry| {
            let seen = entry.state.container(&self.container);
            seen.attempt == self.attempt && seen.running().is_some()
        })
    }

    /// Completes when the instance has ended, or after a while.
    async fn ended(&self) {
        let watched = async {
            loop {
                // Listens before it looks, so that no change falls between.
                let news = self.node.pods.changed();
                if !self.is_running() {
                    return;
                }
                news.await;
            }
        };
        // Late news do no harm: the caller looks again.
        let _late = tokio::time::timeout(LIVENESS_CHECK, watched).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let now: Timestamp = "2026-11-21T01:00:10Z".parse().unwrap();
        let wanted = |text: &str| Wanted::parse(&Query::parse(text), now);
        let all =
            wanted("follow=true&tailLines=5&sinceSeconds=10&timestamps=true&limitBytes=7&previous=false")
                .unwrap();
        assert!(all.follow && !all.previous && all.selection.timestamps);
        assert_eq!((all.tail_lines, all.selection.bytes_left), (Some(5), Some(7)));
        assert_eq!(all.selection.since, Some("2026-11-21T01:00:00Z".parse().unwrap()));
        for bad in
            ["tailLines=-1", "limitBytes=x", "sinceTime=yesterday", "sinceSeconds=99999999999999999999"]
        {
            assert_eq!(wanted(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn only_whole_lines_are_shown() {
        let mut pending = b"2026-11-21T01:00:00Z stdout F a\n2026-11-21T01:00:00Z std".to_vec();
        let mut out = Vec::new();
        assert!(show_lines(&mut pending, &mut Selection::default(), &mut out));
        assert_eq!(out, b"a\n");
        pending.extend_from_slice(b"out F b\n");
        assert!(show_lines(&mut pending, &mut Selection::default(), &mut out));
        assert_eq!((out.as_slice(), pending.is_empty()), (&b"a\nb\n"[..], true));
    }
}
