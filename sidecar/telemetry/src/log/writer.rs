//! The thread that writes log lines, so that a slow disk or pipe never holds a worker up.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sidecar_model::access_log::LogSink;

/// Lines that may wait; more are dropped and counted.
const QUEUE: usize = 8192;
/// Bytes gathered before a write.
const BATCH_BYTES: usize = 64 * 1024;

/// Hands lines to the writing thread. Cheap to clone; the thread ends when the last clone is gone.
#[derive(Debug, Clone)]
pub struct LogWriter {
    lines: SyncSender<(LogSink, String)>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || run(&queue))?;
        Ok(Self { lines, dropped: Arc::default() })
    }

    /// Queues a line, its newline included.
    pub fn write(&self, sink: &LogSink, line: String) {
        if self.lines.try_send((sink.clone(), line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn run(queue: &Receiver<(LogSink, String)>) {
    let mut files: HashMap<Arc<str>, File> = HashMap::new();
    while let Ok((mut sink, mut batch)) = queue.recv() {
        while let Ok((next, line)) = queue.try_recv() {
            if next != sink || batch.len() + line.len() > BATCH_BYTES {
                flush(&mut files, &sink, &batch);
                batch.clear();
                sink = next;
            }
            batch.push_str(&line);
        }
        flush(&mut files, &sink, &batch);
    }
}

fn flush(files: &mut HashMap<Arc<str>, File>, sink: &LogSink, batch: &str) {
    let written = match sink {
        LogSink::Stdout => io::stdout().write_all(batch.as_bytes()).and_then(|()| io::stdout().flush()),
        LogSink::Stderr => io::stderr().write_all(batch.as_bytes()),
        LogSink::File(path) => to_file(files, path, batch),
    };
    if let Err(error) = written {
        tracing::debug!(%error, "Access log cannot be written");
    }
}

fn to_file(files: &mut HashMap<Arc<str>, File>, path: &Arc<str>, batch: &str) -> io::Result<()> {
    let file = match files.get_mut(path) {
        Some(file) => file,
        None => {
            let file = OpenOptions::new().create(true).append(true).open(&**path)?;
            files.entry(Arc::clone(path)).or_insert(file)
        }
    };
    file.write_all(batch.as_bytes())
}
