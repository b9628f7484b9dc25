//! Acknowledgements become status: an object is *Programmed* once every connected proxy has a snapshot in force that contains it.

use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use meshd_model::{ChangeKind, ObjectId, Snapshot};
use meshd_xds::{Progress, Publication, Publisher, Tracker};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};

/// A proxy that has not acknowledged after this time is named in the status.
const LATE: Duration = Duration::from_secs(1);
/// Status writes at once.
const WRITES_MAX: usize = 16;
/// Laggards that are named; the rest are counted.
const NAMED_MAX: usize = 5;

/// An object on its way to the proxies.
#[derive(Debug)]
struct Pending {
    generation: i64,
    /// First snapshot that contains this generation.
    version: u64,
    since: Instant,
    invalid: Option<Arc<str>>,
    told_late: bool,
    /// It was there when this process started: its status may be right already.
    first: bool,
}

/// What was seen of publications.
#[derive(Debug, Default)]
struct Known {
    version: u64,
    generations: BTreeMap<ObjectId, i64>,
}

/// Follows publications and acknowledgements until the publisher is gone.
pub(crate) async fn run(client: Client, publisher: Publisher, tracker: Tracker) {
    let mut publications = publisher.watch();
    let mut acknowledgements = tracker.changes();
    let writes = Arc::new(Semaphore::new(WRITES_MAX));
    let mut pending: BTreeMap<ObjectId, Pending> = BTreeMap::new();
    let mut known = Known::default();
    loop {
        let late = pending.values().any(|p| !p.told_late);
        tokio::select! {
            changed = publications.changed() => if changed.is_err() { return },
            changed = acknowledgements.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LATE), if late => {}
        }
        if let Some(publication) = publications.borrow_and_update().clone() {
            note(&publication, &mut pending, &mut known);
        }
        acknowledgements.mark_unchanged();
        pending.retain(|id, object| {
            let progress = tracker.progress(object.version);
            let done = progress.laggards.is_empty();
            let late = !done && !object.told_late && object.since.elapsed() >= LATE;
            object.told_late |= late;
            if done || late {
                write(&client, &writes, id.clone(), status(object, &progress), object.first);
            }
            !done
        });
    }
}

/// Objects whose generation is new in this snapshot start to wait for it.
fn note(publication: &Publication, pending: &mut BTreeMap<ObjectId, Pending>, known: &mut Known) {
    let snapshot: &Snapshot = &publication.snapshot;
    let first = known.version == 0;
    // A watch channel keeps the last publication only: policies may have changed in one that was never seen.
    let missed = snapshot.version != known.version + 1;
    let policies = publication.change.keys.iter().any(|key| matches!(key.kind, ChangeKind::Policy(_)));
    known.version = snapshot.version;
    if !missed && !policies && !publication.change.everything {
        return;
    }
    let versions = &snapshot.policies.versions;
    for (id, version) in versions {
        if known.generations.get(id) == Some(&version.generation) {
            continue;
        }
        known.generations.insert(id.clone(), version.generation);
        let object = Pending {
            generation: version.generation,
            version: snapshot.version,
            since: Instant::now(),
            invalid: version.invalid.clone(),
            told_late: false,
            first,
        };
        pending.insert(id.clone(), object);
    }
    known.generations.retain(|id, _| versions.contains_key(id));
    pending.retain(|id, _| versions.contains_key(id));
}

fn status(object: &Pending, progress: &Progress) -> Value {
    let affected = progress.acked + progress.laggards.len();
    let count = format!("{}/{affected}", progress.acked);
    let (status, reason, message) = if let Some(why) = &object.invalid {
        ("False", "Invalid", format!("the object has no effect: {why}"))
    } else if !progress.laggards.is_empty() {
        let named: Vec<&str> = progress.laggards.iter().take(NAMED_MAX).map(|name| &**name).collect();
        (
            "False",
            "Pending",
            format!("{count}; waiting for {} proxies: {}", progress.laggards.len(), named.join(", ")),
        )
    } else if let Some((proxy, why)) = progress.rejected.first() {
        (
            "False",
            "Rejected",
            format!(
                "{count}; {} proxies refuse their configuration; {proxy}: {why}",
                progress.rejected.len()
            ),
        )
    } else {
        ("True", "Programmed", count)
    };
    json!({"status": {
        "observedGeneration": object.generation,
        "conditions": [{
            "type": "Programmed", "status": status, "reason": reason, "message": message,
            "observedGeneration": object.generation, "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }],
        "proxies": {"affected": affected, "acked": progress.acked, "rejected": progress.rejected.len()},
    }})
}

/// Writes in the background: the next acknowledgement must not wait for a disk.
fn write(client: &Client, writes: &Arc<Semaphore>, id: ObjectId, status: Value, look_first: bool) {
    let (client, writes) = (client.clone(), writes.clone());
    tokio::spawn(async move {
        let Ok(_slot) = writes.acquire().await else { return };
        let kind = id.kind;
        let resource = ApiResource {
            group: kind.group().into(),
            version: "v1".into(),
            api_version: format!("{}/v1", kind.group()),
            kind: kind.name().into(),
            plural: kind.plural().into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client, &id.namespace, &resource);
        if look_first
            && api
                .get_opt(&id.name)
                .await
                .ok()
                .flatten()
                .is_some_and(|object| is_so_already(&object.data, &status))
        {
            return;
        }
        match api.patch_status(&id.name, &PatchParams::default(), &Patch::Merge(&status)).await {
            Ok(_) => {}
            // It was deleted meanwhile.
            Err(kube::Error::Api(error)) if error.code == 404 => {}
            Err(error) => {
                tracing::warn!(object = ?id, error = %base_types::ErrorChain(&error), "Cannot write status")
            }
        }
    });
}

/// Whether the stored object says the same of the same generation.
fn is_so_already(data: &Value, status: &Value) -> bool {
    let (old, new) = (&data["status"], &status["status"]);
    let condition = |status: &Value| {
        [status["conditions"][0]["status"].clone(), status["conditions"][0]["reason"].clone()]
    };
    old["observedGeneration"] == new["observedGeneration"] && condition(old) == condition(new)
}
