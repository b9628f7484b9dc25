//! Kills a writing process again and again: no acknowledged write may be lost, no revision used twice.
//!
//! The test starts itself as `kill write DIR`. That process writes from many tasks at once and prints each acknowledged write; the parent kills it
//! with SIGKILL at an arbitrary moment, reads what was acknowledged, opens the store and compares.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cluster_store::{Embedded, Op, Options, Precondition, Store};

const ROUNDS: u32 = 60;
const TASKS: usize = 16;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("write") => write(Path::new(&arguments[2])),
        // What `cargo nextest` asks.
        Some("--list") => {
            if !arguments.iter().any(|argument| argument == "--ignored") {
                println!("kill_loop: test");
            }
        }
        _ => kill_loop(),
    }
}

/// Checkpoints are so frequent that many kills hit one.
fn options() -> Options {
    Options { checkpoint_bytes: 64 << 10, history: Duration::from_millis(200), ..Options::default() }
}

fn write(dir: &Path) {
    let store = Embedded::open(dir, options()).expect("the store opens");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> =
            (0..TASKS).map(|task| tokio::spawn(write_for_ever(Arc::clone(&store), task))).collect();
        for task in tasks {
            task.await.expect("a writer goes on until it is killed");
        }
    });
}

/// Counts one key up by compare-and-set, and now and then adds or removes another.
async fn write_for_ever(store: Arc<Embedded>, task: usize) {
    let counter = format!("counter/{task}");
    let (mut count, mut revision) = match store.get(&counter).0 {
        Some(kv) => {
            (String::from_utf8_lossy(&kv.value).trim_end_matches('x').parse().unwrap(), kv.mod_revision)
        }
        None => (0_u64, 0),
    };
    loop {
        count += 1;
        let value = format!("{count}{}", "x".repeat((count * 37 % 500) as usize));
        let pre = if revision == 0 { Precondition::Absent } else { Precondition::ModRevision(revision) };
        let written =
            store.write(&counter, pre, Op::Put(Bytes::from(value))).await.expect("a counter has one writer");
        revision = written.revision;
        acknowledge(revision, &counter, count);
        let other = format!("other/{task}/{}", count % 10);
        if count.is_multiple_of(20) && store.get(&other).0.is_some() {
            let written = store.write(&other, Precondition::None, Op::Delete).await.expect("it is there");
            acknowledge(written.revision, &other, 0);
        } else if count.is_multiple_of(3) {
            let value = Bytes::from(count.to_string());
            let written =
                store.write(&other, Precondition::None, Op::Put(value)).await.expect("a put succeeds");
            acknowledge(written.revision, &other, count);
        }
    }
}

/// One line in one system call, so that a kill cuts between lines.
fn acknowledge(revision: u64, key: &str, count: u64) {
    let line = format!("{revision} {key} {count}\n");
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}

fn kill_loop() {
    let dir = tempfile::tempdir().unwrap();
    // Of each key, the newest acknowledged revision and count; 0 is a delete.
    let mut known: HashMap<String, (u64, u64)> = HashMap::new();
    let mut revisions: BTreeMap<u64, String> = BTreeMap::new();
    let (mut reached, mut acknowledged, mut checkpoints) = (0, 0, 0);
    let started = Instant::now();
    for round in 0..ROUNDS {
        let lines = run_and_kill(dir.path(), Duration::from_micros(u64::from(round) * 7919 % 90_000));
        acknowledged += lines.len();
        for line in &lines {
            let mut parts = line.split(' ');
            let mut next = || parts.next().expect("a whole line");
            let (revision, key, count) =
                (next().parse().unwrap(), next().to_owned(), next().parse().unwrap());
            assert!(
                revision > reached,
                "round {round}: revision {revision} was used before the kill at {reached}"
            );
            let twice = revisions.insert(revision, key.clone());
            assert_eq!(twice, None, "round {round}: revision {revision} was used twice");
            let newest = known.entry(key).or_default();
            if revision > newest.0 {
                *newest = (revision, count);
            }
        }
        let store =
            Embedded::open(dir.path(), options()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        for (key, (revision, count)) in &known {
            check(&*store, round, key, *revision, *count);
        }
        reached = store.revision();
        let newest = revisions.last_key_value().map_or(0, |(revision, _)| *revision);
        assert!(reached >= newest, "round {round}: revision fell from {newest} to {reached}");
        checkpoints += usize::from(store.compacted() > 0);
    }
    assert!(acknowledged > 1000 && checkpoints > 0, "the load was too small: {acknowledged} writes");
    let seconds = started.elapsed().as_secs_f32();
    println!("{ROUNDS} kills, {acknowledged} acknowledged writes, none lost, {seconds:.1} s");
}

/// What was acknowledged is there, or something newer, which the writer did not live to print.
fn check(store: &dyn Store, round: u32, key: &str, revision: u64, count: u64) {
    match store.get(key).0 {
        Some(kv) => {
            let found: u64 = String::from_utf8_lossy(&kv.value).trim_end_matches('x').parse().unwrap();
            let same = kv.mod_revision == revision && found == count;
            assert!(
                same || kv.mod_revision > revision,
                "round {round}: {key} was {count} at {revision}, is {found} at {}",
                kv.mod_revision
            );
            assert!(same || key.starts_with("other/") || found > count, "round {round}: {key} went back");
        }
        // Only the other keys are ever deleted, and a lost put looks like a delete that was not printed: there can be one.
        None => assert!(
            count == 0 || (key.starts_with("other/") && store.revision() > revision),
            "round {round}: {key} is lost, it was {count} at {revision}"
        ),
    }
}

/// Starts a writer, kills it `after` its first acknowledgement, and answers all its lines.
fn run_and_kill(dir: &Path, after: Duration) -> Vec<String> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .arg("write")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test can start itself");
    let mut lines = Vec::new();
    let mut out = BufReader::new(writer.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    let mut kill_at = None;
    while out.read_line(&mut line).unwrap() > 0 {
        assert!(line.ends_with('\n'), "lines are written whole");
        lines.push(line.trim_end().to_owned());
        line.clear();
        let kill_at = *kill_at.get_or_insert_with(|| Instant::now() + after);
        if Instant::now() >= kill_at {
            // It may have been killed in an earlier turn; the rest of its lines are still in the pipe.
            let _ = writer.kill();
        }
    }
    let _ = writer.wait();
    lines
}
