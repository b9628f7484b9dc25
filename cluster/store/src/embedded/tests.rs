//! Tests of the files and threads behind the embedded store.

mod damage;
mod faults;
mod power;

use std::{path::PathBuf, time::Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{Message, testsuite};

const DEADLINE: Duration = Duration::from_secs(20);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn put(store: &Embedded, key: &str, value: &str) -> u64 {
    block_on(testsuite::put(store, key, value)).revision
}

fn open(dir: &TempDir) -> Arc<Embedded> {
    Embedded::open(dir.path(), Options::default()).unwrap()
}

fn files(dir: &TempDir, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .collect();
    files.sort();
    files
}

/// Waits until a condition holds.
#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn passes_the_suite() {
    let dirs = std::cell::RefCell::new(Vec::new());
    testsuite::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        dirs.borrow_mut().push(dir);
        store
    });
}

#[test]
fn passes_the_suite_with_constant_checkpoints() {
    let dirs = std::cell::RefCell::new(Vec::new());
    testsuite::run(|| {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Embedded::open(dir.path(), Options { checkpoint_bytes: 1, ..Options::default() }).unwrap();
        dirs.borrow_mut().push(dir);
        store
    });
}

#[test]
fn opens_as_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    for n in 0..50 {
        put(&store, &format!("k{}", n % 7), &n.to_string());
    }
    block_on(store.write("k3", Precondition::None, Op::Delete)).unwrap();
    block_on(store.compact(20)).unwrap();
    let before = store.list("", None, 0, None).unwrap();
    let old = store.list("", None, 0, Some(30)).unwrap();
    store.close();
    assert_eq!(block_on(store.write("x", Precondition::None, Op::Delete)), Err(StoreError::Closed));
    assert_eq!(store.watch("", 51).err(), Some(StoreError::Closed));
    drop(store);
    for _ in 0..2 {
        let store = open(&dir);
        assert_eq!(store.list("", None, 0, None).unwrap(), before);
        assert_eq!(store.list("", None, 0, Some(30)).unwrap(), old, "history survives too");
        assert_eq!((store.compacted(), store.revision()), (20, 51));
    }
    assert_eq!(put(&open(&dir), "new", ""), 52);
}

#[test]
fn checkpoints_replace_logs() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { checkpoint_bytes: 2000, ..Options::default() };
    let store = Embedded::open(dir.path(), options.clone()).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut writes = 0;
    while writes < 300 || store.stats().checkpoints < 3 || !store.shared.keeper.idle() {
        put(&store, &format!("k{}", writes % 5), &format!("value {writes}"));
        writes += 1;
        assert!(Instant::now() < deadline, "no checkpoints");
    }
    let before = store.list("", None, 0, None).unwrap();
    drop(store);
    let bytes: u64 = files(&dir, "").iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < writes * 30, "{bytes} bytes are left of {writes} writes");
    assert_eq!(files(&dir, "checkpoint-").len(), 1);
    let store = Embedded::open(dir.path(), options).unwrap();
    assert_eq!(store.list("", None, 0, None).unwrap(), before);
    assert_eq!((put(&store, "k", ""), store.stats().keys), (writes + 1, 6));
    assert!(store.compacted() > 0, "what a checkpoint replaced is history");
    assert!(matches!(store.watch("", 1), Err(StoreError::Compacted { .. })));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let second = Embedded::open(dir.path(), Options::default()).unwrap_err();
    assert_eq!(second, StoreError::InUse { dir: dir.path().to_owned() });
    drop(store);
    open(&dir);
}

#[test]
fn slow_watchers_are_ended() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options { watch_queue: 8, ..Options::default() }).unwrap();
    for n in 0..20 {
        put(&store, "before", &n.to_string());
    }
    let mut slow = store.watch("", 0).unwrap();
    let mut fast = store.watch("", 20).unwrap();
    for n in 0..20 {
        put(&store, "a", &n.to_string());
        assert_eq!(block_on(testsuite::event(&mut fast)).kv.mod_revision, 21 + n);
    }
    assert!(matches!(block_on(slow.next()), Some(Err(StoreError::TooSlow { queued: 9 }))));
    assert_eq!(block_on(slow.next()), None);
    drop((slow, fast));
    put(&store, "a", "");
    assert_eq!(store.stats().watches, 0, "watches that are over are forgotten");
}

#[test]
fn closing_ends_watches() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut watch = store.watch("", 0).unwrap();
    assert_eq!(block_on(watch.next()), Some(Ok(Message::Progress(0))));
    store.close();
    assert_eq!(block_on(watch.next()), None);
}

#[test]
fn idle_watches_hear_of_progress() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { progress: Duration::from_millis(20), ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    let mut watch = store.watch("a/", 0).unwrap();
    assert_eq!(block_on(watch.next()), Some(Ok(Message::Progress(0))));
    put(&store, "b/1", "");
    let next = block_on(async { tokio::time::timeout(DEADLINE, watch.next()).await.unwrap() });
    assert_eq!(next, Some(Ok(Message::Progress(1))));
}

#[test]
fn old_history_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { history: Duration::from_millis(100), ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    for n in 0..100 {
        put(&store, "a", &n.to_string());
    }
    wait_for("compaction", || store.compacted() == 100);
    assert_eq!(store.stats().history, 0);
    assert_eq!(store.get("a").0.unwrap().value, "99");
}

#[test]
fn large_history_is_shortened() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { history_bytes_max: 100_000, progress: Duration::from_millis(10), ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    let value = "x".repeat(10_000);
    for _ in 0..50 {
        put(&store, "a", &value);
    }
    wait_for("compaction", || store.shared.tree.read().history_bytes() <= 100_000);
    assert!(store.compacted() > 0 && store.stats().history > 1);
}

#[test]
fn too_large_values_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options { entry_bytes_max: 10, ..Options::default() }).unwrap();
    let large = block_on(store.write("a", Precondition::None, Op::Put(Bytes::from_static(&[0; 10]))));
    assert_eq!(large, Err(StoreError::TooLarge { bytes: 11, limit: 10 }));
    put(&store, "a", "123456789");
}
