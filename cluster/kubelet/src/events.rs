//! Events about pods and the node, written to the API in the background; repeats raise the count of the event that is there.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::pod;

/// Events waiting to be written; more are dropped, for events are advice.
const WAITING_MAX: usize = 512;
/// Events whose repeats are counted instead of written anew.
const REMEMBERED_MAX: usize = 2048;

/// Whether an event is worth attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// Takes events without waiting. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<Happening>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Happening {
    object: Object,
    severity: Severity,
    reason: String,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Object {
    kind: &'static str,
    namespace: String,
    name: String,
    uid: String,
    field: Option<String>,
}

// === impl Events ===

impl Events {
    /// Starts the writer; it ends when the last clone is dropped.
    pub(crate) fn start(client: Client, node_name: &str) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let writer =
            Writer { client, host: node_name.to_owned(), seen: HashMap::new(), order: VecDeque::new() };
        tokio::spawn(writer.run(waiting));
        Self { queue }
    }

    /// Reports something about a pod.
    pub(crate) fn pod(&self, pod: &Pod, severity: Severity, reason: &str, message: String) {
        self.report(pod, None, severity, reason, message);
    }

    /// Reports something about one container of a pod.
    pub(crate) fn container(
        &self,
        pod: &Pod,
        container: &str,
        severity: Severity,
        reason: &str,
        message: String,
    ) {
        let list = match pod::container(pod, container) {
            Some((pod::Kind::App, _)) => "containers",
            _ => "initContainers",
        };
        self.report(pod, Some(format!("spec.{list}{{{container}}}")), severity, reason, message);
    }

    /// Reports something about the node itself.
    pub(crate) fn node(&self, name: &str, severity: Severity, reason: &str, message: String) {
        let object = Object {
            kind: "Node",
            namespace: String::new(),
            name: name.to_owned(),
            uid: name.to_owned(),
            field: None,
        };
        self.send(Happening { object, severity, reason: reason.to_owned(), message });
    }

    fn report(&self, pod: &Pod, field: Option<String>, severity: Severity, reason: &str, message: String) {
        let object = Object {
            kind: "Pod",
            namespace: pod::namespace(pod).to_owned(),
            name: pod::name(pod).to_owned(),
            uid: pod::uid(pod).to_owned(),
            field,
        };
        self.send(Happening { object, severity, reason: reason.to_owned(), message });
    }

    fn send(&self, happening: Happening) {
        if let Err(error) = self.queue.try_send(happening) {
            tracing::debug!(%error, "Event dropped");
        }
    }
}

struct Writer {
    client: Client,
    host: String,
    /// Name and count of the event object of each happening.
    seen: HashMap<Happening, (String, i32)>,
    order: VecDeque<Happening>,
}

// === impl Writer ===

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Happening>) {
        while let Some(happening) = waiting.recv().await {
            if let Err(error) = self.write(happening).await {
                tracing::debug!(%error, "Event not written");
            }
        }
    }

    async fn write(&mut self, happening: Happening) -> Result<(), kube::Error> {
        let now = Time(Timestamp::now());
        // Events of objects without a namespace live in `default`, as Kubernetes does it.
        let home = match happening.object.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), home);
        if let Some((name, count)) = self.seen.get_mut(&happening) {
            let patch = Patch::Merge(json!({"count": *count + 1, "lastTimestamp": now}));
            match api.patch(name, &PatchParams::default(), &patch).await {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // It has expired: write a new one below.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let name = format!("{}.{:016x}", happening.object.name, rand::random::<u64>());
        api.create(&PostParams::default(), &self.event(&happening, &name, home, now)).await?;
        if self.seen.insert(happening.clone(), (name, 1)).is_none() {
            self.order.push_back(happening);
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        Ok(())
    }

    fn event(&self, happening: &Happening, name: &str, home: &str, now: Time) -> Event {
        let object = &happening.object;
        Event {
            metadata: kube::api::ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(home.to_owned()),
                ..Default::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some(object.kind.to_owned()),
                namespace: (!object.namespace.is_empty()).then(|| object.namespace.clone()),
                name: Some(object.name.clone()),
                uid: Some(object.uid.clone()),
                field_path: object.field.clone(),
                resource_version: None,
            },
            type_: Some(match happening.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            reason: Some(happening.reason.clone()),
            message: Some(happening.message.clone()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}
