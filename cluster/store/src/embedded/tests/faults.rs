//! What the store does when the disk is slow, fails, or is full.

use std::sync::atomic::AtomicBool;

use parking_lot::{Condvar, Mutex};

use super::*;

/// A disk whose sync waits at a gate.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

// === impl Gate ===

impl Gate {
    fn sync(self: &Arc<Self>) -> Sync {
        let gate = Arc::clone(self);
        Arc::new(move |file| {
            let mut state = gate.state.lock();
            state.1 += 1;
            gate.changed.notify_all();
            while !state.0 {
                gate.changed.wait(&mut state);
            }
            file.sync_data()
        })
    }

    fn wait_until_reached(&self, times: usize) {
        let mut state = self.state.lock();
        while state.1 < times {
            assert!(!self.changed.wait_for(&mut state, DEADLINE).timed_out(), "nothing was synced");
        }
    }

    fn open(&self) {
        self.state.lock().0 = true;
        self.changed.notify_all();
    }
}

#[test]
fn nothing_is_seen_or_acknowledged_before_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let store = Embedded::open_with(dir.path(), Options::default(), gate.sync()).unwrap();
    let mut watch = store.watch("", 0).unwrap();
    assert_eq!(watch.try_next(), Some(Ok(Message::Progress(0))));
    block_on(async {
        let writing = store.write("a", Precondition::None, Op::Put(Bytes::from_static(b"1")));
        let mut writing = tokio::spawn(writing);
        tokio::task::yield_now().await;
        let waiting = Arc::clone(&gate);
        tokio::task::spawn_blocking(move || waiting.wait_until_reached(1)).await.unwrap();
        // The writer is inside the sync now, with the frame written.
        assert_eq!((store.get("a"), store.revision()), ((None, 0), 0));
        assert_eq!(watch.try_next(), None);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut writing).await.is_err());
        gate.open();
        assert_eq!(writing.await.unwrap().unwrap().revision, 1);
        assert_eq!(store.revision(), 1);
        assert_eq!(testsuite::event(&mut watch).await.kv.mod_revision, 1);
    });
}

#[test]
fn writes_that_wait_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let store = Embedded::open_with(dir.path(), Options::default(), gate.sync()).unwrap();
    block_on(async {
        let write = |n: usize| store.write(&format!("k{n}"), Precondition::Absent, Op::Put(Bytes::new()));
        let first = tokio::spawn(write(0));
        tokio::task::yield_now().await;
        let waiting = Arc::clone(&gate);
        tokio::task::spawn_blocking(move || waiting.wait_until_reached(1)).await.unwrap();
        let rest: Vec<_> = (1..500).map(|n| tokio::spawn(write(n))).collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gate.open();
        first.await.unwrap().unwrap();
        for write in rest {
            write.await.unwrap().unwrap();
        }
    });
    assert_eq!((store.stats().writes, store.stats().batches), (500, 2));
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let sync: Sync = {
        let failing = Arc::clone(&failing);
        Arc::new(move |file| {
            if failing.swap(false, Ordering::SeqCst) {
                Err(io::Error::from_raw_os_error(5))
            } else {
                file.sync_data()
            }
        })
    };
    let store = Embedded::open_with(dir.path(), Options::default(), sync).unwrap();
    put(&store, "a", "1");
    let mut watch = store.watch("", 1).unwrap();
    failing.store(true, Ordering::SeqCst);
    let write = || block_on(store.write("a", Precondition::None, Op::Put(Bytes::from_static(b"2"))));
    // The disk fails once; a second sync would succeed without having written anything.
    for _ in 0..3 {
        assert!(matches!(write(), Err(StoreError::Io { action: "syncing", .. })));
    }
    assert!(matches!(block_on(store.compact(1)), Err(StoreError::Io { .. })));
    assert_eq!(store.get("a").0.unwrap().value, "1", "reads go on");
    assert_eq!(watch.try_next(), Some(Ok(Message::Progress(1))));
    assert_eq!(watch.try_next(), None);
    drop(store);
    let store = open(&dir);
    let value = store.get("a").0.unwrap().value;
    assert!(value == "1" || value == "2", "an unacknowledged write may or may not have happened");
    assert_eq!(put(&store, "a", "3"), store.revision());
}

/// A small file system in memory, gone when dropped.
struct Small(TempDir);

// === impl Small ===

impl Small {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(mount.status.success(), "this test mounts a small file system: run it as root; {mount:?}");
        Self(dir)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let small = Small::mount();
    let filler = small.0.path().join("filler");
    std::fs::write(&filler, vec![1; 100 << 10]).unwrap();
    let dir = small.0.path().join("store");
    let store = Embedded::open(&dir, Options { checkpoint_bytes: 40_000, ..Options::default() }).unwrap();
    let value = Bytes::from(vec![7; 3000]);
    let mut kept = Vec::new();
    let full = loop {
        let key = format!("k{}", kept.len());
        match block_on(store.write(&key, Precondition::Absent, Op::Put(value.clone()))) {
            Ok(written) => kept.push(written.revision),
            Err(error) => break error,
        }
        assert!(kept.len() < 200, "the disk never fills");
    };
    assert_eq!(full, StoreError::Full { dir: dir.clone() });
    assert_eq!(store.revision(), kept.len() as u64);
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(put(&store, "after", "x"), kept.len() as u64 + 1, "with room again it goes on");
    drop(store);
    let store = Embedded::open(&dir, Options::default()).unwrap();
    assert_eq!((store.stats().keys, store.revision()), (kept.len() + 1, kept.len() as u64 + 1));
    drop(store);
}
