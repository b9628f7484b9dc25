//! One watch per kind. Objects are read as loose JSON, cut down to what the mesh needs by the state, and dropped.

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use policies_api::{Kind, names};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::state::{Meta, Object, Source, State};

/// Events taken in before a snapshot is published, at most.
pub(crate) const BATCH_MAX: usize = 4096;
/// Events that may wait for the owner task; a full queue slows the watches down.
const QUEUE: usize = 1024;

/// What a watch saw.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A list begins.
    Listing(Source),
    /// An object as it is now.
    Object(Source, Box<Object>),
    /// An object that is gone.
    Gone(Source, Meta),
    /// The list is complete: what it did not contain is gone.
    Listed(Source),
}

/// Starts every watch.
pub(crate) fn start(client: &kube::Client) -> (mpsc::Receiver<Seen>, Vec<JoinHandle<()>>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let core = [
        (Source::Namespace, "Namespace", "namespaces"),
        (Source::Node, "Node", "nodes"),
        (Source::Pod, "Pod", "pods"),
        (Source::Service, "Service", "services"),
    ];
    let mut all: Vec<(Source, ApiResource, Scope)> = core
        .into_iter()
        .map(|(source, kind, plural)| (source, resource("", "v1", kind, plural), Scope::Everything))
        .collect();
    all.push((
        Source::EndpointSlice,
        resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        Scope::Everything,
    ));
    all.push((
        Source::MeshConfig,
        resource("", "v1", "ConfigMap", "configmaps"),
        Scope::One(names::ROOT_NAMESPACE, names::MESH_CONFIG_MAP),
    ));
    all.push((Source::Secret, resource("", "v1", "Secret", "secrets"), Scope::Certificates));
    for kind in Kind::ALL {
        let version = kind.versions().first().copied().unwrap_or("v1");
        all.push((
            Source::Policy(kind),
            resource(kind.group(), version, kind.name(), kind.plural()),
            Scope::Everything,
        ));
    }
    let tasks = all.into_iter().map(|(source, resource, scope)| {
        let stream = stream(client, &resource, scope);
        tokio::spawn(forward(source, resource.plural, stream, sender.clone()))
    });
    (receiver, tasks.collect())
}

/// Feeds one event to the state.
pub(crate) fn apply(state: &mut State, seen: Seen) {
    match seen {
        Seen::Listing(source) => state.begin(source),
        Seen::Object(source, object) => state.apply(source, *object),
        Seen::Gone(source, meta) => state.delete(source, &meta),
        Seen::Listed(source) => state.complete(source),
    }
}

/// Which objects of a kind are wanted.
#[derive(Clone, Copy, Debug)]
enum Scope {
    Everything,
    /// Namespace and name.
    One(&'static str, &'static str),
    /// Secrets with certificates, in the root namespace, where gateways run. Others are never read.
    Certificates,
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

type Events = BoxStream<'static, Result<Event<DynamicObject>, watcher::Error>>;

fn stream(client: &kube::Client, resource: &ApiResource, scope: Scope) -> Events {
    let config = watcher::Config::default();
    let (api, config) = match scope {
        Scope::Everything => (Api::all_with(client.clone(), resource), config),
        Scope::One(namespace, name) => {
            let config = config.fields(&format!("metadata.name={name}"));
            (Api::namespaced_with(client.clone(), namespace, resource), config)
        }
        Scope::Certificates => {
            (Api::namespaced_with(client.clone(), names::ROOT_NAMESPACE, resource), config)
        }
    };
    watch(api, config).default_backoff().boxed()
}

async fn forward(source: Source, plural: String, mut stream: Events, sender: mpsc::Sender<Seen>) {
    let mut failing = false;
    while let Some(event) = stream.next().await {
        let seen = match event {
            Ok(Event::Init) => Seen::Listing(source),
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                Seen::Object(source, Box::new(loose(object)))
            }
            Ok(Event::Delete(object)) => Seen::Gone(source, meta(&object)),
            Ok(Event::InitDone) => Seen::Listed(source),
            Err(error) => {
                // The watch goes on with back-off; one line for each outage is enough.
                if !failing {
                    tracing::warn!(kind = plural, error = %base_types::ErrorChain(&error), "Cannot watch");
                }
                failing = true;
                continue;
            }
        };
        failing = false;
        if sender.send(seen).await.is_err() {
            return;
        }
    }
}

fn loose(object: DynamicObject) -> Object {
    Object { meta: meta(&object), data: object.data }
}

fn meta(object: &DynamicObject) -> Meta {
    let meta = &object.metadata;
    Meta {
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
        generation: meta.generation.unwrap_or_default(),
        resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
        created: meta.creation_timestamp.as_ref().map_or(0, |it| it.0.as_second()),
        deleted: meta.deletion_timestamp.as_ref().map(|it| timestamp(it.0)),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        owner: meta
            .owner_references
            .iter()
            .flatten()
            .find(|it| it.controller == Some(true))
            .map(|it| (it.kind.clone(), it.name.clone())),
    }
}

/// A time as the API writes it: whole seconds.
fn timestamp(time: jiff::Timestamp) -> std::sync::Arc<str> {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}
