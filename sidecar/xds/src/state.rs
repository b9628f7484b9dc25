//! What is subscribed to, what was received, and what is answered: the delta protocol without its stream.
//!
//! Clusters and listeners are subscribed to as wildcards; endpoints, routes and secrets by the names that the snapshot refers to.
//! A resource that cannot be honoured is refused by name while the rest of its response takes effect and its last
//! good version stays. Everything survives the end of a stream: the next one begins with the versions that are held.

use policies_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use policies_xds::rpc;
use sidecar_model::secret::is_in_files;
use sidecar_model::snapshot::References;
use sidecar_model::{ResourceType, Snapshot, SnapshotBuilder};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;
/// Longest reason sent with a refusal.
const DETAIL_BYTES_MAX: usize = 4096;
/// Most refused resources remembered of a type.
const REJECTED_MAX: usize = 1000;

type Names = BTreeSet<Arc<str>>;

/// A resource as it was received and accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) version: Box<str>,
    /// Empty when messages are not kept.
    pub(crate) message: Box<[u8]>,
}

/// A resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) version: Box<str>,
    pub(crate) reason: Box<str>,
}

/// All that is known of one type.
#[derive(Debug, Default)]
pub(crate) struct TypeState {
    /// A request for it was sent on this stream.
    opened: bool,
    /// Names asked for on this stream; unused in wildcard types.
    subscribed: Arc<Names>,
    /// Names asked for that the server has said nothing about yet.
    awaited: Names,
    pub(crate) held: HashMap<Arc<str>, Held>,
    pub(crate) rejected: BTreeMap<Arc<str>, Rejection>,
    /// What the server calls the last response's version.
    pub(crate) version: String,
    /// At least one response was taken in.
    pub(crate) answered: bool,
}

/// Names that the snapshot refers to. They follow from clusters and listeners alone, so that they are found out again only when
/// one of those changes, not with every endpoint.
#[derive(Debug, Default)]
struct Wanted {
    by_type: BTreeMap<ResourceType, Arc<Names>>,
    /// Secrets that are read from files.
    in_files: Arc<Names>,
}

/// The state of all subscriptions.
#[derive(Debug)]
pub(crate) struct State {
    types: BTreeMap<ResourceType, TypeState>,
    snapshot: Arc<Snapshot>,
    wanted: Wanted,
    /// Messages are kept as they were received, for a file.
    keeps_messages: bool,
}

/// What became of a response.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The acknowledgement or refusal.
    pub(crate) reply: DeltaDiscoveryRequest,
    /// Its type, unless nobody knows it.
    pub(crate) kind: Option<ResourceType>,
    /// Resources refused in it.
    pub(crate) refused: usize,
}

pub(crate) fn is_wildcard(kind: ResourceType) -> bool {
    matches!(kind, ResourceType::Cluster | ResourceType::Listener)
}

// === impl State ===

impl State {
    pub(crate) fn new(keeps_messages: bool) -> Self {
        let types = ResourceType::ALL.into_iter().map(|kind| (kind, TypeState::default())).collect();
        Self { types, snapshot: Arc::default(), wanted: Wanted::default(), keeps_messages }
    }

    /// Everything accepted so far.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What is known of each type.
    pub(crate) fn types(&self) -> impl Iterator<Item = (ResourceType, &TypeState)> {
        self.types.iter().map(|(kind, state)| (*kind, state))
    }

    /// What is held of a type.
    pub(crate) fn held(&self, kind: ResourceType) -> Option<&HashMap<Arc<str>, Held>> {
        self.types.get(&kind).map(|state| &state.held)
    }

    /// Whether clusters and listeners have both come.
    pub(crate) fn is_configured(&self) -> bool {
        self.types.iter().filter(|(kind, _)| is_wildcard(**kind)).all(|(_, state)| state.answered)
    }

    /// Secrets that the snapshot names by files.
    pub(crate) fn file_secrets(&self) -> &Arc<Names> {
        &self.wanted.in_files
    }

    /// Takes in resources that an earlier process held. Returns how many are still good.
    pub(crate) fn restore(&mut self, saved: impl Iterator<Item = (ResourceType, Arc<str>, Held)>) -> usize {
        let mut builder = SnapshotBuilder::new(&self.snapshot);
        let mut count = 0;
        for (kind, name, held) in saved {
            if builder.upsert(kind, &name, &held.message).is_ok() {
                self.types.entry(kind).or_default().held.insert(name, held);
                count += 1;
            }
        }
        self.replace(builder);
        count
    }

    /// Takes over a new snapshot, if it is one.
    fn replace(&mut self, builder: SnapshotBuilder) {
        if !builder.is_changed() {
            return;
        }
        let before = std::mem::replace(&mut self.snapshot, builder.build());
        let after = &self.snapshot;
        if !Arc::ptr_eq(&before.clusters, &after.clusters)
            || !Arc::ptr_eq(&before.listeners, &after.listeners)
        {
            self.wanted.update(after);
        }
    }

    /// A new stream: the first request of every type that there is something to ask of.
    pub(crate) fn open(&mut self) -> Vec<DeltaDiscoveryRequest> {
        for state in self.types.values_mut() {
            state.opened = false;
            state.subscribed = Arc::default();
            state.awaited.clear();
        }
        let mut requests = Vec::new();
        for kind in ResourceType::ALL {
            if is_wildcard(kind) {
                let state = self.types.entry(kind).or_default();
                state.opened = true;
                requests.push(DeltaDiscoveryRequest {
                    type_url: kind.type_url().to_owned(),
                    initial_resource_versions: versions(state, |_| true),
                    ..Default::default()
                });
            } else {
                requests.extend(self.subscription(kind));
            }
        }
        requests
    }

    /// Changes of subscriptions that the snapshot now asks for. What is no longer referred to is let go of.
    pub(crate) fn subscriptions(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let named = ResourceType::ALL.into_iter().filter(|kind| !is_wildcard(*kind));
        named.filter_map(|kind| self.subscription(kind)).collect()
    }

    fn subscription(&mut self, kind: ResourceType) -> Option<DeltaDiscoveryRequest> {
        let wanted = self.wanted.of(kind);
        let state = self.types.entry(kind).or_default();
        if Arc::ptr_eq(&wanted, &state.subscribed) {
            return None;
        }
        let new: Vec<_> = wanted.difference(&state.subscribed).cloned().collect();
        let gone: Vec<_> = state.subscribed.difference(&wanted).cloned().collect();
        let first = !state.opened;
        let initial_resource_versions =
            if first { versions(state, |name| wanted.contains(name)) } else { HashMap::new() };
        state.subscribed = wanted;
        if new.is_empty() && gone.is_empty() {
            return None;
        }
        state.opened = true;
        state.awaited.extend(new.iter().filter(|name| !state.held.contains_key(*name)).cloned());
        // What left may be wanted again soon, but then it is asked for anew.
        let unasked = state.held.keys().filter(|name| first && !state.subscribed.contains(*name));
        let left: Vec<_> = gone.iter().chain(unasked).cloned().collect();
        let mut builder = SnapshotBuilder::new(&self.snapshot);
        for name in &left {
            state.awaited.remove(name);
            state.rejected.remove(name);
            state.held.remove(name);
            builder.remove(kind, name);
        }
        self.replace(builder);
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: new.iter().map(ToString::to_string).collect(),
            resource_names_unsubscribe: gone.iter().map(ToString::to_string).collect(),
            initial_resource_versions,
            ..Default::default()
        })
    }

    /// Takes in a response: the snapshot changes, and the reply is ready.
    pub(crate) fn apply(&mut self, response: DeltaDiscoveryResponse) -> Outcome {
        let Some(kind) = ResourceType::from_type_url(&response.type_url) else {
            let reason = format!("there is no subscription to type `{}`", response.type_url);
            return Outcome { reply: reply(&response, &[reason]), kind: None, refused: 0 };
        };
        let wanted = self.wanted.of(kind);
        let is_wanted = |name: &str| is_wildcard(kind) || wanted.contains(name);
        let keeps_messages = self.keeps_messages;
        let state = self.types.entry(kind).or_default();
        let mut builder = SnapshotBuilder::new(&self.snapshot);
        let removed_names = response.removed_resource_names.iter().map(|name| &name.name);
        for name in response.removed_resources.iter().chain(removed_names) {
            builder.remove(kind, name);
            state.held.remove(name.as_str());
            state.rejected.remove(name.as_str());
            state.awaited.remove(name.as_str());
        }
        let mut reasons = Vec::new();
        for resource in &response.resources {
            if !is_wanted(&resource.name) {
                // It was let go of while it was on its way.
                continue;
            }
            if let Err(reason) = state.take(&mut builder, kind, resource, keeps_messages) {
                reasons.push(reason);
            }
        }
        state.version.clone_from(&response.system_version_info);
        state.answered = true;
        self.replace(builder);
        Outcome { reply: reply(&response, &reasons), kind: Some(kind), refused: reasons.len() }
    }

    /// Names asked for that the server has said nothing about yet.
    pub(crate) fn awaited(&self) -> BTreeSet<(ResourceType, Arc<str>)> {
        let of_type = |(kind, state): (&ResourceType, &TypeState)| {
            let kind = *kind;
            state.awaited.iter().map(move |name| (kind, name.clone())).collect::<Vec<_>>()
        };
        self.types.iter().flat_map(of_type).collect()
    }
}

// === impl Wanted ===

impl Wanted {
    fn of(&self, kind: ResourceType) -> Arc<Names> {
        self.by_type.get(&kind).cloned().unwrap_or_default()
    }

    fn update(&mut self, snapshot: &Snapshot) {
        let References { endpoints, routes, secrets } = snapshot.references();
        let (in_files, secrets) = secrets.into_iter().partition(|name| is_in_files(name));
        let named = [
            (ResourceType::Endpoints, endpoints),
            (ResourceType::Route, routes),
            (ResourceType::Secret, secrets),
        ];
        for (kind, names) in named {
            let before = self.by_type.entry(kind).or_default();
            // The same names stay the same set, which is how it is seen that there is nothing to do.
            if **before != names {
                *before = Arc::new(names);
            }
        }
        self.in_files = Arc::new(in_files);
    }
}

// === impl TypeState ===

impl TypeState {
    /// Takes in one resource, or says why not.
    fn take(
        &mut self,
        builder: &mut SnapshotBuilder,
        kind: ResourceType,
        resource: &Resource,
        keeps_message: bool,
    ) -> Result<(), String> {
        let name: Arc<str> = resource.name.as_str().into();
        self.awaited.remove(&name);
        let Some(any) = &resource.resource else {
            // A sign of life for a resource with a limited one; what is held stays.
            return Ok(());
        };
        let accepted = if any.type_url == kind.type_url() {
            builder.upsert(kind, &name, &any.value).map_err(|rejected| rejected.to_string())
        } else {
            Err(format!("{kind} resource `{name}`: is of type `{}`", any.type_url))
        };
        match accepted {
            Ok(()) => {
                self.rejected.remove(&name);
                let message = if keeps_message { any.value.as_slice().into() } else { Box::default() };
                self.held.insert(name, Held { version: resource.version.as_str().into(), message });
                Ok(())
            }
            Err(reason) => {
                if self.rejected.len() < REJECTED_MAX || self.rejected.contains_key(&name) {
                    let version = resource.version.as_str().into();
                    self.rejected.insert(name, Rejection { version, reason: reason.as_str().into() });
                }
                Err(reason)
            }
        }
    }
}

fn versions(state: &TypeState, keep: impl Fn(&str) -> bool) -> HashMap<String, String> {
    let kept = state.held.iter().filter(|(name, _)| keep(name));
    kept.map(|(name, held)| (name.to_string(), held.version.to_string())).collect()
}

fn reply(response: &DeltaDiscoveryResponse, reasons: &[String]) -> DeltaDiscoveryRequest {
    let error_detail = (!reasons.is_empty()).then(|| {
        let mut message = reasons.join("; ");
        if message.len() > DETAIL_BYTES_MAX {
            let end = (0..=DETAIL_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
        }
        rpc::Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
    });
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
