//! What a crash leaves is repaired; what no crash explains is refused.

use super::*;
use crate::embedded::log::Log;

/// A store directory with a few writes, and the log's size after each.
fn written() -> (TempDir, PathBuf, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut sizes = vec![store.stats().log_bytes];
    for n in 0..6 {
        put(&store, &format!("key{n}"), &"v".repeat(n * 40));
        sizes.push(store.stats().log_bytes);
    }
    drop(store);
    let log = files(&dir, "log-").remove(0);
    assert_eq!(log.metadata().unwrap().len(), sizes[6]);
    (dir, log, sizes)
}

#[test]
fn a_torn_tail_is_cut_off() {
    let (dir, log, sizes) = written();
    let whole = std::fs::read(&log).unwrap();
    for length in sizes[0]..sizes[6] {
        std::fs::write(&log, &whole[..length as usize]).unwrap();
        let kept = sizes.iter().filter(|size| **size <= length).count() as u64 - 1;
        let store = open(&dir);
        assert_eq!(store.revision(), kept, "log of {length} bytes");
        assert_eq!(put(&store, "after", "x"), kept + 1);
        drop(store);
        assert_eq!(open(&dir).get("after").0.unwrap().mod_revision, kept + 1);
    }
}

#[test]
fn zeros_after_the_end_are_cut_off() {
    let (dir, log, sizes) = written();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.resize(bytes.len() + 5000, 0);
    std::fs::write(&log, &bytes).unwrap();
    assert_eq!(open(&dir).revision(), 6);
    assert_eq!(log.metadata().unwrap().len(), sizes[6]);
}

#[test]
fn a_sector_that_was_not_written_is_a_torn_tail() {
    let (dir, log, _) = written();
    let store = open(&dir);
    put(&store, "long", &"v".repeat(4000));
    drop(store);
    let mut bytes = std::fs::read(&log).unwrap();
    let hole = (bytes.len() - 1500) / 512 * 512;
    bytes[hole..hole + 512].fill(0);
    std::fs::write(&log, &bytes).unwrap();
    let store = open(&dir);
    assert_eq!((store.revision(), store.get("long").0), (6, None));
}

#[test]
fn a_hole_before_whole_frames_is_refused() {
    let (dir, log, _) = written();
    let store = open(&dir);
    put(&store, "long", &"v".repeat(4000));
    put(&store, "last", "");
    drop(store);
    let mut bytes = std::fs::read(&log).unwrap();
    let hole = (bytes.len() - 1500) / 512 * 512;
    bytes[hole..hole + 512].fill(0);
    std::fs::write(&log, &bytes).unwrap();
    assert!(matches!(Embedded::open(dir.path(), Options::default()), Err(StoreError::Corrupt { .. })));
}

#[test]
fn every_flipped_byte_is_found() {
    let (dir, log, sizes) = written();
    let whole = std::fs::read(&log).unwrap();
    // The last four bytes of the file header are not used.
    for at in (0..whole.len()).filter(|at| !(28..32).contains(at)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&log, &bytes).unwrap();
        let error = Embedded::open(dir.path(), Options::default()).unwrap_err();
        let StoreError::Corrupt { file, offset, .. } = &error else { panic!("byte {at}: {error}") };
        let frame = sizes.iter().rev().find(|size| **size <= at as u64).copied().unwrap_or(0);
        assert_eq!((file, *offset), (&log, frame), "byte {at}: {error}");
        assert_eq!(std::fs::read(&log).unwrap(), bytes, "a damaged file is not touched");
    }
    std::fs::write(&log, &whole).unwrap();
    assert_eq!(open(&dir).revision(), 6);
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { checkpoint_bytes: 1, ..Options::default() };
    let store = Embedded::open(dir.path(), options).unwrap();
    put(&store, "a", "1");
    wait_for("a checkpoint", || store.stats().checkpoints == 1 && store.shared.keeper.idle());
    drop(store);
    let checkpoint = files(&dir, "checkpoint-").remove(0);
    let whole = std::fs::read(&checkpoint).unwrap();
    for at in (0..whole.len()).filter(|at| !(28..32).contains(at)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&checkpoint, &bytes).unwrap();
        let error = Embedded::open(dir.path(), Options::default()).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { .. }), "byte {at}: {error}");
    }
    for length in 0..whole.len() {
        std::fs::write(&checkpoint, &whole[..length]).unwrap();
        assert!(Embedded::open(dir.path(), Options::default()).is_err(), "{length} bytes");
    }
    std::fs::write(&checkpoint, &whole).unwrap();
    assert_eq!(open(&dir).get("a").0.unwrap().value, "1");
}

#[test]
fn a_missing_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options { checkpoint_bytes: 1, ..Options::default() }).unwrap();
    put(&store, "a", "1");
    wait_for("a checkpoint", || store.stats().checkpoints == 1 && store.shared.keeper.idle());
    drop(store);
    for log in files(&dir, "log-") {
        std::fs::remove_file(log).unwrap();
    }
    let error = Embedded::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// A crash between any two steps of a checkpoint leaves a directory that opens.
#[test]
fn half_done_checkpoints_are_cleaned_up() {
    let (dir, _, _) = written();
    let pairs = open(&dir).list("", None, 0, None).unwrap().items;
    let check = |step: &str| {
        let store = open(&dir);
        assert_eq!(store.list("", None, 0, None).unwrap().items, pairs, "{step}");
        assert_eq!(store.revision(), 6, "{step}");
    };
    std::fs::write(dir.path().join(Log::name(6)).with_extension("tmp"), b"MESH").unwrap();
    check("log half created");
    let sync: Sync = Arc::new(File::sync_data);
    drop(Log::create(dir.path(), 6, sync).unwrap());
    check("log rotated");
    std::fs::write(dir.path().join(snapshot::name(6)).with_extension("tmp"), b"MESHKV01").unwrap();
    check("checkpoint half written");
    snapshot::write(dir.path(), 6, &pairs).unwrap();
    check("checkpoint written, old log still there");
    assert_eq!(files(&dir, "log-").len(), 1, "what the checkpoint replaced is gone");
    check("all done");
}

#[test]
fn a_rotation_that_did_not_come_to_pass_is_undone() {
    let (dir, _, _) = written();
    let sync: Sync = Arc::new(File::sync_data);
    drop(Log::create(dir.path(), 4, sync).unwrap());
    let store = open(&dir);
    assert_eq!((store.revision(), put(&store, "a", "")), (6, 7));
    drop(store);
    assert_eq!((open(&dir).revision(), files(&dir, "log-").len()), (7, 1));
}
