//! Writes one pod's status to the API: the latest wins, and a status that is being replaced is never waited for.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::pod;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the end of a pod waits for its last status.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// The writer of one pod.
pub(crate) struct StatusWriter {
    latest: watch::Sender<(u64, Value)>,
    written: watch::Receiver<u64>,
    _task: AbortOnDropHandle<()>,
}

// === impl StatusWriter ===

impl StatusWriter {
    /// Starts with the status the API has.
    pub(crate) fn start(client: Client, pod: &Pod) -> Self {
        let known = serde_json::to_value(&pod.status).unwrap_or_default();
        let (latest, changes) = watch::channel((0, known));
        let (done, written) = watch::channel(0);
        let api = Api::namespaced(client, pod::namespace(pod));
        let task = run(api, pod::name(pod).to_owned(), pod::uid(pod).to_owned(), changes, done);
        Self { latest, written, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// Writes `status` unless it is the one written last.
    pub(crate) fn write(&self, status: &PodStatus) {
        let Ok(value) = serde_json::to_value(status) else { return };
        self.latest.send_if_modified(|(version, last)| {
            let changed = *last != value;
            if changed {
                *version += 1;
                *last = value;
            }
            changed
        });
    }

    /// Completes when everything is written, or could not be in time. The future is free of the writer.
    pub(crate) fn flushed(&self) -> impl Future<Output = ()> + Send + 'static {
        let wanted = self.latest.borrow().0;
        let mut written = self.written.clone();
        async move {
            let _late = tokio::time::timeout(FLUSH_MAX, written.wait_for(|version| *version >= wanted)).await;
        }
    }
}

async fn run(
    api: Api<Pod>,
    name: String,
    uid: String,
    mut changes: watch::Receiver<(u64, Value)>,
    done: watch::Sender<u64>,
) {
    while changes.changed().await.is_ok() {
        let mut wait = RETRY_MIN;
        loop {
            let (version, status) = changes.borrow_and_update().clone();
            // The UID makes sure that a namesake is never written to.
            let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
            match api.patch_status(&name, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409) => {}
                Err(error) => {
                    tracing::warn!(pod = name, error = %base_types::ErrorChain(&error), "Pod status not written");
                    let _newer = tokio::time::timeout(wait, changes.changed()).await;
                    wait = (wait * 2).min(RETRY_MAX);
                    continue;
                }
                Ok(_) => {}
            }
            done.send_replace(version);
            break;
        }
    }
}
