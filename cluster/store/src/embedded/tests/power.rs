//! Power cuts: what was not synced may be lost, in part or whole, sector by sector.
//!
//! The store runs on a disk that remembers what each sync made durable. A cut copies the directory as such a disk would be found: synced bytes as
//! they are, later ones kept, torn or zero by chance. The copy must open and hold every write acknowledged before the cut.

use std::{
    collections::HashMap,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use parking_lot::Mutex;

use super::*;

const SECTOR: usize = 512;

/// What is durable of the log files, by inode.
type Durable = Arc<Mutex<HashMap<u64, u64>>>;
/// The newest acknowledged revision of each key.
type Acknowledged = Arc<Mutex<HashMap<String, u64>>>;

fn disk(durable: &Durable, honest: bool) -> Sync {
    let durable = Arc::clone(durable);
    Arc::new(move |file| {
        file.sync_data()?;
        let metadata = file.metadata()?;
        if honest {
            durable.lock().insert(metadata.ino(), metadata.len());
        }
        Ok(())
    })
}

struct Random(u64);

// === impl Random ===

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Copies a directory as it is found after a cut. `None` if the keeper changed it meanwhile.
fn cut(from: &Path, to: &Path, durable: &HashMap<u64, u64>, random: &mut Random) -> Option<()> {
    let list = || {
        let mut names: Vec<_> =
            std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let names = list();
    for name in &names {
        let file = File::open(from.join(name)).ok()?;
        let metadata = file.metadata().ok()?;
        let mut bytes = vec![0; metadata.len() as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let is_log = name.to_string_lossy().starts_with("log-") && !name.to_string_lossy().ends_with(".tmp");
        if is_log {
            // A log that was never synced holds its header, which its creation made durable.
            let kept = durable
                .get(&metadata.ino())
                .map_or(frame::HEADER, |length| *length as usize)
                .min(bytes.len());
            let tail = bytes.len() - kept;
            match random.below(3) {
                0 => bytes.truncate(kept),
                1 => bytes.truncate(kept + random.below(tail + 1)),
                _ => {
                    let mut start = kept;
                    while start < bytes.len() {
                        let end = ((start / SECTOR + 1) * SECTOR).min(bytes.len());
                        if random.below(2) == 0 {
                            bytes[start..end].fill(0);
                        }
                        start = end;
                    }
                }
            }
        }
        std::fs::write(to.join(name), bytes).unwrap();
    }
    (names == list()).then_some(())
}

async fn write_for_ever(store: Arc<Embedded>, acknowledged: Acknowledged, task: usize) {
    for count in 0_usize.. {
        let key = format!("k{task}/{}", count % 5);
        let value = Bytes::from(vec![b'x'; count * 131 % 3000]);
        let Ok(written) = store.write(&key, Precondition::None, Op::Put(value)).await else { return };
        acknowledged.lock().insert(key, written.revision);
    }
}

/// Cuts the power again and again; answers the first loss.
fn cuts(count: usize, honest: bool) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let (durable, acknowledged) = (Durable::default(), Acknowledged::default());
    let options = Options { checkpoint_bytes: 200_000, ..Options::default() };
    let store = Embedded::open_with(dir.path(), options, disk(&durable, honest)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for task in 0..8 {
        runtime.spawn(write_for_ever(Arc::clone(&store), Arc::clone(&acknowledged), task));
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut done = 0;
    while done < count {
        let reached = store.stats().writes + random.below(50) as u64;
        wait_for("writes", || store.stats().writes >= reached);
        let found = tempfile::tempdir().unwrap();
        // While the disk's memory is held nothing more becomes durable, so nothing more is acknowledged.
        let (known, copied) = {
            let durable = durable.lock();
            let known = acknowledged.lock().clone();
            (known, cut(dir.path(), found.path(), &durable, &mut random))
        };
        if copied.is_none() {
            continue;
        }
        done += 1;
        let after = match Embedded::open(found.path(), Options::default()) {
            Ok(store) => store,
            Err(error) => return Some(format!("cut {done}: {error}")),
        };
        for (key, revision) in known {
            if after.get(&key).0.is_none_or(|kv| kv.mod_revision < revision) {
                return Some(format!("cut {done}: {key} at {revision} is lost"));
            }
        }
    }
    store.close();
    None
}

#[test]
fn power_cuts_lose_nothing_acknowledged() {
    assert_eq!(cuts(100, true), None);
}

#[test]
fn the_rig_finds_a_disk_that_lies() {
    assert!(cuts(100, false).is_some_and(|loss| loss.contains("is lost")));
}
