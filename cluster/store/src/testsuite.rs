//! What every [`Store`] must do, as one function to run against an implementation.
//!
//! It is test code that other crates can call, so it asserts instead of answering errors.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Event, EventKind, KeyValue, Message, Op, Precondition, Store, StoreError, Watch, Written};

/// A wait that should be over at once gives up after this.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs all cases; `open` makes a new empty store each time it is called.
///
/// # Panics
/// When the store breaks its contract.
pub fn run(open: impl Fn() -> Arc<dyn Store>) {
    block_on(async {
        revisions(&*open()).await;
        preconditions(&*open()).await;
        lists(&*open()).await;
        old_revisions(&*open()).await;
        watches(&*open()).await;
        watch_bounds(&*open()).await;
        racing_watches(open()).await;
        counters(open()).await;
        against_a_model(&*open()).await;
    });
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Puts a value without precondition.
///
/// # Panics
/// When the write fails.
pub async fn put(store: &dyn Store, key: &str, value: &str) -> Written {
    store.write(key, Precondition::None, Op::Put(Bytes::copy_from_slice(value.as_bytes()))).await.unwrap()
}

async fn delete(store: &dyn Store, key: &str) -> Written {
    store.write(key, Precondition::None, Op::Delete).await.unwrap()
}

/// The next event of a watch, progress left out.
///
/// # Panics
/// When none comes, or an error.
pub async fn event(watch: &mut Watch) -> Event {
    loop {
        match tokio::time::timeout(DEADLINE, watch.next())
            .await
            .expect("an event is due")
            .expect("watch goes on")
        {
            Ok(Message::Event(event)) => return event,
            Ok(Message::Progress(_)) => {}
            Err(error) => panic!("watch failed: {error}"),
        }
    }
}

fn keys(items: &[KeyValue]) -> Vec<&str> {
    items.iter().map(|kv| &*kv.key).collect()
}

async fn revisions(store: &dyn Store) {
    assert_eq!((store.revision(), store.get("a").0), (0, None));
    let first = put(store, "a", "1").await;
    assert_eq!(first, Written { revision: 1, previous: None });
    let second = put(store, "a", "2").await;
    assert_eq!((second.revision, second.previous.unwrap().value), (2, Bytes::from("1")));
    let (kv, revision) = store.get("a");
    let kv = kv.unwrap();
    assert_eq!((revision, kv.create_revision, kv.mod_revision, &kv.value[..]), (2, 1, 2, &b"2"[..]));
    let gone = delete(store, "a").await;
    assert_eq!((gone.revision, gone.previous.unwrap().mod_revision), (3, 2));
    assert_eq!(store.get("a"), (None, 3));
    let missing = store.write("a", Precondition::None, Op::Delete).await;
    assert_eq!(missing, Err(StoreError::NotFound));
    assert_eq!(store.revision(), 3, "a refused write takes no revision");
    put(store, "a", "3").await;
    assert_eq!(store.get("a").0.unwrap().create_revision, 4, "a key that comes back is a new one");
}

async fn preconditions(store: &dyn Store) {
    let put = |pre| store.write("a", pre, Op::Put(Bytes::from_static(b"x")));
    assert_eq!(put(Precondition::ModRevision(1)).await, Err(StoreError::Conflict { current: None }));
    assert_eq!(put(Precondition::ModRevision(0)).await, Err(StoreError::Conflict { current: None }));
    assert_eq!(put(Precondition::Absent).await.unwrap().revision, 1);
    let current = store.get("a").0;
    assert_eq!(put(Precondition::Absent).await, Err(StoreError::Conflict { current: current.clone() }));
    assert_eq!(put(Precondition::ModRevision(1)).await.unwrap().revision, 2);
    let stale = put(Precondition::ModRevision(1)).await;
    assert!(matches!(stale, Err(StoreError::Conflict { current: Some(kv) }) if kv.mod_revision == 2));
    let stale = store.write("a", Precondition::ModRevision(1), Op::Delete).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    store.write("a", Precondition::ModRevision(2), Op::Delete).await.unwrap();
    // Of many that create the same key at once exactly one succeeds.
    let racing: Vec<_> = (0..50).map(|_| put(Precondition::Absent)).collect();
    let won = futures::future::join_all(racing).await.into_iter().filter(Result::is_ok).count();
    assert_eq!((won, store.revision()), (1, 4));
}

async fn lists(store: &dyn Store) {
    for key in ["b/2", "a/1", "b/1", "b", "b/3", "c", "b0"] {
        put(store, key, key).await;
    }
    let all = store.list("", None, 0, None).unwrap();
    assert_eq!(keys(&all.items), ["a/1", "b", "b/1", "b/2", "b/3", "b0", "c"]);
    assert_eq!((all.revision, all.remaining, all.more), (7, 0, false));
    let page = store.list("b/", None, 2, None).unwrap();
    assert_eq!((keys(&page.items), page.remaining, page.more), (vec!["b/1", "b/2"], 1, true));
    delete(store, "b/3").await;
    put(store, "b/25", "").await;
    let rest = store.list("b/", Some("b/2"), 2, Some(page.revision)).unwrap();
    assert_eq!((keys(&rest.items), rest.remaining, rest.more), (vec!["b/3"], 0, false));
    let now = store.list("b/", Some("b/2"), 0, None).unwrap();
    assert_eq!(keys(&now.items), ["b/25"]);
    assert!(store.list("x", None, 0, None).unwrap().items.is_empty());
    assert_eq!(
        keys(&store.list("b/", Some("a"), 1, None).unwrap().items),
        ["b/1"],
        "start before the prefix"
    );
    assert!(store.list("b/", Some("c"), 0, None).unwrap().items.is_empty(), "start after the prefix");
    assert_eq!(store.list("", None, 0, Some(99)), Err(StoreError::Future { requested: 99, current: 9 }));
}

async fn old_revisions(store: &dyn Store) {
    put(store, "a", "1").await;
    put(store, "a", "2").await;
    put(store, "b", "1").await;
    delete(store, "b").await;
    put(store, "a", "3").await;
    let at = |revision| store.list("", None, 0, Some(revision)).map(|page| page.items.len());
    assert_eq!([at(1), at(2), at(3), at(4)], [Ok(1), Ok(1), Ok(2), Ok(1)]);
    assert_eq!(at(0), Ok(0));
    assert_eq!(store.list("a", None, 0, Some(2)).unwrap().items[0].value, "2");
    store.compact(3).await.unwrap();
    assert_eq!((store.compacted(), store.revision()), (3, 5));
    assert_eq!(at(2), Err(StoreError::Compacted { oldest: 3 }));
    assert_eq!((at(3), at(4)), (Ok(2), Ok(1)));
    assert_eq!(store.list("a", None, 0, Some(3)).unwrap().items[0].value, "2");
    store.compact(1).await.unwrap();
    assert_eq!(store.compacted(), 3, "compaction never goes back");
    assert_eq!(store.compact(6).await, Err(StoreError::Future { requested: 6, current: 5 }));
    store.compact(5).await.unwrap();
    assert_eq!(at(5), Ok(1));
    assert_eq!((store.get("a").0.unwrap().value, store.get("b").0), (Bytes::from("3"), None));
    put(store, "b", "2").await;
    assert_eq!(store.get("b").0.unwrap().create_revision, 6);
}

async fn watches(store: &dyn Store) {
    put(store, "a/1", "1").await;
    put(store, "b/1", "1").await;
    put(store, "a/1", "2").await;
    let mut all = store.watch("a/", 0).unwrap();
    let mut later = store.watch("a/", 1).unwrap();
    let first = event(&mut all).await;
    assert_eq!((first.kind, first.kv.mod_revision, first.previous), (EventKind::Put, 1, None));
    let second = event(&mut all).await;
    assert_eq!((second.kv.mod_revision, second.previous.unwrap().value), (3, Bytes::from("1")));
    assert_eq!(event(&mut later).await.kv.mod_revision, 3);
    assert_eq!(later.next().await, Some(Ok(Message::Progress(3))), "history has been told");
    delete(store, "a/1").await;
    delete(store, "b/1").await;
    put(store, "a/2", "1").await;
    for watch in [&mut all, &mut later] {
        let gone = event(watch).await;
        assert_eq!((gone.kind, gone.kv.mod_revision, &gone.kv.value[..]), (EventKind::Delete, 4, &b"2"[..]));
        assert_eq!(gone.previous.unwrap().mod_revision, 3);
        let new = event(watch).await;
        assert_eq!((&*new.kv.key, new.kv.mod_revision, new.kv.create_revision), ("a/2", 6, 6));
        assert_eq!(watch.progress(), 6);
    }
}

async fn watch_bounds(store: &dyn Store) {
    for value in ["1", "2", "3"] {
        put(store, "a", value).await;
    }
    store.compact(2).await.unwrap();
    assert_eq!(store.watch("", 1).err(), Some(StoreError::Compacted { oldest: 2 }));
    assert_eq!(store.watch("", 4).err(), Some(StoreError::Future { requested: 4, current: 3 }));
    assert_eq!(event(&mut store.watch("", 2).unwrap()).await.kv.mod_revision, 3);
    let mut now = store.watch("", 3).unwrap();
    put(store, "a", "4").await;
    assert_eq!(event(&mut now).await.kv.mod_revision, 4);
}

/// Watches that begin while writes go on miss nothing, repeat nothing and keep the order.
async fn racing_watches(store: Arc<dyn Store>) {
    const WRITES: u64 = 400;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..WRITES / 4 {
                let keys = ["a/1", "a/2", "b/1", "b/2"];
                futures::future::join_all(
                    keys.map(|key| store.write(key, Precondition::None, Op::Put(Bytes::from(n.to_string())))),
                )
                .await;
            }
        })
    };
    let mut watches = Vec::new();
    while !writer.is_finished() {
        let from = store.revision();
        watches.push(("a/", from, store.watch("a/", from).unwrap()));
        watches.push(("", 0, store.watch("", 0).unwrap()));
        tokio::task::yield_now().await;
        if watches.len() > 200 {
            break;
        }
    }
    writer.await.unwrap();
    let expected: Vec<_> = {
        let mut all = store.watch("", 0).unwrap();
        let mut events = Vec::new();
        for _ in 0..WRITES {
            events.push(event(&mut all).await);
        }
        events
    };
    assert!(expected.iter().zip(1..).all(|(event, revision)| event.kv.mod_revision == revision));
    for (prefix, from, mut watch) in watches {
        let due =
            expected.iter().filter(|event| event.kv.mod_revision > from && event.kv.key.starts_with(prefix));
        for due in due {
            assert_eq!(&event(&mut watch).await, due);
        }
    }
}

/// Compare-and-set by many at once loses no update.
async fn counters(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 25;
    put(&*store, "n", "0").await;
    let tasks = (0..TASKS).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                loop {
                    let current = store.get("n").0.unwrap();
                    let next: u64 = std::str::from_utf8(&current.value).unwrap().parse::<u64>().unwrap() + 1;
                    let pre = Precondition::ModRevision(current.mod_revision);
                    match store.write("n", pre, Op::Put(Bytes::from(next.to_string()))).await {
                        Ok(written) => {
                            assert!(
                                store.revision() >= written.revision,
                                "what was acknowledged can be read"
                            );
                            break;
                        }
                        Err(StoreError::Conflict { .. }) => {}
                        Err(error) => panic!("write failed: {error}"),
                    }
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(store.get("n").0.unwrap().value, (TASKS * ROUNDS).to_string());
    assert_eq!(store.revision(), TASKS * ROUNDS + 1);
}

/// A long run of arbitrary writes, compared with a map at every revision.
async fn against_a_model(store: &dyn Store) {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut model: BTreeMap<String, KeyValue> = BTreeMap::new();
    let mut history = vec![model.clone()];
    for _ in 0..300 {
        let key = format!("k{}", next(12));
        let op = if next(3) == 0 { Op::Delete } else { Op::Put(Bytes::from(next(1000).to_string())) };
        let revision = history.len() as u64;
        match (store.write(&key, Precondition::None, op.clone()).await, op) {
            (Ok(written), op) => {
                assert_eq!((written.revision, written.previous.as_ref()), (revision, model.get(&key)));
                if let Op::Put(value) = op {
                    let create_revision = model.get(&key).map_or(revision, |kv| kv.create_revision);
                    let kv =
                        KeyValue { key: Arc::from(&*key), value, create_revision, mod_revision: revision };
                    model.insert(key, kv);
                } else {
                    model.remove(&key);
                }
                history.push(model.clone());
            }
            (Err(StoreError::NotFound), Op::Delete) => assert!(!model.contains_key(&key)),
            (Err(error), _) => panic!("write failed: {error}"),
        }
        if next(40) == 0 {
            store.compact(next(history.len() as u64)).await.unwrap();
        }
    }
    let compacted = store.compacted();
    for (revision, model) in (0_u64..).zip(&history) {
        match store.list("", None, 0, Some(revision)) {
            Ok(page) => assert!(page.items.iter().eq(model.values()), "list at {revision}"),
            Err(error) => {
                assert_eq!((error, revision < compacted), (StoreError::Compacted { oldest: compacted }, true))
            }
        }
    }
}
