//! What is subscribed to, what was received, and what is answered: the delta protocol without its stream.
//!
//! Clusters and listeners are subscribed to as wildcards; endpoints, routes and secrets by the names that the snapshot refers to.
//! A resource that cannot be honoured is refused by name while the rest of its response takes effect and its last
//! good version stays. Everything survives the end of a stream: the next one begins with the versions that are held.

use policies_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use policies_xds::rpc;
use sidecar_model::secret::is_in_files;
use sidecar_model::{ResourceType, Snapshot, SnapshotBuilder};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;
/// Longest reason sent with a refusal.
const DETAIL_BYTES_MAX: usize = 4096;
/// Most refused resources remembered of a type.
const REJECTED_MAX: usize = 1000;

/// A resource as it was received and accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) version: Box<str>,
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
    subscribed: BTreeSet<Arc<str>>,
    /// Names the server says there is nothing under.
    absent: BTreeSet<Arc<str>>,
    pub(crate) held: HashMap<Arc<str>, Held>,
    pub(crate) rejected: BTreeMap<Arc<str>, Rejection>,
    /// What the server calls the last response's version.
    pub(crate) version: String,
    /// At least one response was taken in.
    pub(crate) answered: bool,
}

/// The state of all subscriptions.
#[derive(Debug)]
pub(crate) struct State {
    types: BTreeMap<ResourceType, TypeState>,
    snapshot: Arc<Snapshot>,
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
    pub(crate) fn new() -> Self {
        let types = ResourceType::ALL.into_iter().map(|kind| (kind, TypeState::default())).collect();
        Self { types, snapshot: Arc::default() }
    }

    /// Everything accepted so far.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What is known of each type.
    pub(crate) fn types(&self) -> impl Iterator<Item = (ResourceType, &TypeState)> {
        self.types.iter().map(|(kind, state)| (*kind, state))
    }

    /// Whether clusters and listeners have both come.
    pub(crate) fn is_configured(&self) -> bool {
        self.types.iter().filter(|(kind, _)| is_wildcard(**kind)).all(|(_, state)| state.answered)
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
        self.snapshot = builder.build();
        count
    }

    /// A new stream: the first request of every type that there is something to ask of.
    pub(crate) fn open(&mut self) -> Vec<DeltaDiscoveryRequest> {
        for state in self.types.values_mut() {
            state.opened = false;
            state.subscribed.clear();
            state.absent.clear();
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
        let wanted = wanted(&self.snapshot, kind);
        let state = self.types.entry(kind).or_default();
        let new: Vec<_> = wanted.difference(&state.subscribed).cloned().collect();
        let gone: Vec<_> = state.subscribed.difference(&wanted).cloned().collect();
        let first = !state.opened;
        if new.is_empty() && (gone.is_empty() || first) {
            return None;
        }
        state.opened = true;
        for name in &gone {
            state.absent.remove(name);
            state.rejected.remove(name);
        }
        // Endpoints of a cluster that left may be wanted again soon, but then they are asked for anew.
        let mut builder = SnapshotBuilder::new(&self.snapshot);
        for name in &gone {
            state.held.remove(name);
            builder.remove(kind, name);
        }
        if builder.is_changed() {
            self.snapshot = builder.build();
        }
        let initial_resource_versions =
            if first { versions(state, |name| wanted.contains(name)) } else { HashMap::new() };
        state.subscribed = wanted;
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
        let wanted = (!is_wildcard(kind)).then(|| wanted(&self.snapshot, kind));
        let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted.contains(name));
        let state = self.types.entry(kind).or_default();
        let mut builder = SnapshotBuilder::new(&self.snapshot);
        let removed_names = response.removed_resource_names.iter().map(|name| &name.name);
        for name in response.removed_resources.iter().chain(removed_names) {
            builder.remove(kind, name);
            state.held.remove(name.as_str());
            state.rejected.remove(name.as_str());
            if !is_wildcard(kind) && is_wanted(name) {
                state.absent.insert(name.as_str().into());
            }
        }
        let mut reasons = Vec::new();
        for resource in &response.resources {
            if !is_wanted(&resource.name) {
                // It was let go of while it was on its way.
                continue;
            }
            if let Err(reason) = state.take(&mut builder, kind, resource) {
                reasons.push(reason);
            }
        }
        state.version.clone_from(&response.system_version_info);
        state.answered = true;
        if builder.is_changed() {
            self.snapshot = builder.build();
        }
        Outcome { reply: reply(&response, &reasons), kind: Some(kind), refused: reasons.len() }
    }

    /// Names referred to that the server has said nothing about yet.
    pub(crate) fn awaited(&self) -> BTreeSet<(ResourceType, Arc<str>)> {
        let mut awaited = BTreeSet::new();
        for (kind, state) in self.types.iter().filter(|(kind, _)| !is_wildcard(**kind)) {
            let missing = wanted(&self.snapshot, *kind);
            let missing = missing.into_iter().filter(|name| {
                !state.held.contains_key(name)
                    && !state.absent.contains(name)
                    && !state.rejected.contains_key(name)
            });
            awaited.extend(missing.map(|name| (*kind, name)));
        }
        awaited
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
    ) -> Result<(), String> {
        let name: Arc<str> = resource.name.as_str().into();
        self.absent.remove(&name);
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
                let message = any.value.as_slice().into();
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

/// Names of a type to subscribe to: those referred to, without what is read from files.
fn wanted(snapshot: &Snapshot, kind: ResourceType) -> BTreeSet<Arc<str>> {
    let references = snapshot.references();
    match kind {
        ResourceType::Endpoints => references.endpoints,
        ResourceType::Route => references.routes,
        ResourceType::Secret => references.secrets.into_iter().filter(|name| !is_in_files(name)).collect(),
        ResourceType::Cluster | ResourceType::Listener => BTreeSet::new(),
    }
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
