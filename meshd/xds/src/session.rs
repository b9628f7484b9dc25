//! One proxy's stream, without the stream: requests and compiled resources in, responses out.
//!
//! Rules (xDS protocol, "Incremental xDS" and "ACK/NACK"): one response of a type is in flight at a time; what changes meanwhile is merged
//! into the next. What is new is made before what is old is broken: listeners and routes wait for the clusters and endpoints they may
//! refer to, and clusters are taken away only after listeners and routes that no longer refer to them were acknowledged.

use meshd_compile::{Resource, ResourceType, Resources};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Which of the two protocols a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Changes only.
    Delta,
    /// All resources of a type in each response.
    StateOfTheWorld,
}

/// A request of either protocol.
#[derive(Debug, Default, Clone)]
pub struct Request {
    /// Names newly asked for; `*` for all.
    pub subscribe: Vec<String>,
    /// Names no longer asked for.
    pub unsubscribe: Vec<String>,
    /// Versions that the proxy has from an earlier stream.
    pub initial_versions: BTreeMap<String, String>,
    /// Nonce of the response that this answers; empty in a first request.
    pub nonce: String,
    /// Why the proxy refused that response.
    pub error: Option<String>,
}

/// A response of either protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Type of its resources.
    pub kind: ResourceType,
    /// Its nonce.
    pub nonce: String,
    /// Version of the snapshot it comes from.
    pub version: u64,
    /// New and changed resources; all of them in the state-of-the-world protocol.
    pub resources: Vec<Resource>,
    /// Names of resources that are gone.
    pub removed: Vec<String>,
}

/// What a type's subscription looks like.
#[derive(Debug, Default)]
struct Subscription {
    asked: bool,
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// Names asked for anew: sent even when the proxy is believed to have them.
    fresh: BTreeSet<Arc<str>>,
    /// What the proxy has, or has been told is not there (`None`).
    known: BTreeMap<Arc<str>, Option<u64>>,
    in_flight: Option<String>,
    /// The proxy has answered at least one response.
    acknowledged: bool,
    rejected: Option<String>,
}

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    types: BTreeMap<ResourceType, Subscription>,
    resources: Resources,
    version: u64,
    nonces: u64,
    /// A response went out since the last settled version.
    sent_since_settled: bool,
    /// Patience with a proxy that does not ask for the endpoints of a new cluster has run out.
    impatient: bool,
}

/// Everything that was sent up to a version is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The version.
    pub version: u64,
    /// Whether anything had to be sent for it.
    pub affected: bool,
    /// Types whose last response the proxy refused, with its reasons.
    pub rejected: Vec<(ResourceType, String)>,
}

// === impl Session ===

impl Session {
    /// A stream that has asked for nothing.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            types: BTreeMap::new(),
            resources: Resources::default(),
            version: 0,
            nonces: 0,
            sent_since_settled: false,
            impatient: false,
        }
    }

    /// The resources in force for this proxy.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// New resources of a snapshot version.
    pub fn configure(&mut self, resources: Resources, version: u64) {
        (self.resources, self.version) = (resources, version);
        self.impatient = false;
    }

    /// Takes a request in. Returns whether it answered the response in flight, and how.
    pub fn request(&mut self, kind: ResourceType, request: Request) -> Option<Result<(), String>> {
        let protocol = self.protocol;
        let state = self.types.entry(kind).or_default();
        if !state.asked {
            state.asked = true;
            state.wildcard = request.subscribe.is_empty() || request.subscribe.iter().any(|name| name == "*");
            for (name, version) in &request.initial_versions {
                state.known.insert(name.as_str().into(), u64::from_str_radix(version, 16).ok());
            }
        }
        for name in request.subscribe.iter().filter(|name| *name != "*") {
            let name: Arc<str> = name.as_str().into();
            if state.names.insert(name.clone()) || protocol == Protocol::Delta {
                state.fresh.insert(name);
            }
        }
        state.wildcard |= request.subscribe.iter().any(|name| name == "*");
        for name in &request.unsubscribe {
            state.wildcard &= name != "*";
            state.names.remove(name.as_str());
            state.fresh.remove(name.as_str());
            if !state.wildcard {
                state.known.remove(name.as_str());
            }
        }
        if request.nonce.is_empty() || state.in_flight.as_deref() != Some(&request.nonce) {
            // A stale nonce answers a response that a later one has replaced.
            return None;
        }
        state.in_flight = None;
        state.acknowledged = true;
        state.rejected.clone_from(&request.error);
        Some(request.error.map_or(Ok(()), Err))
    }

    /// Turns the whole list of names of a state-of-the-world request into what is new and what is gone.
    #[must_use]
    pub fn names_changed(&self, kind: ResourceType, names: &[String]) -> (Vec<String>, Vec<String>) {
        let Some(state) = self.types.get(&kind) else { return (names.to_vec(), Vec::new()) };
        let new = names.iter().filter(|name| !state.names.contains(name.as_str())).cloned().collect();
        let gone = state
            .names
            .iter()
            .filter(|name| !names.iter().any(|n| **n == ***name))
            .map(ToString::to_string)
            .collect();
        (new, gone)
    }

    /// A cluster's endpoints have not been asked for in a reasonable time: nothing waits for them any more.
    pub fn lose_patience(&mut self) {
        self.impatient = true;
    }

    /// Whether something is held back until the proxy asks for the endpoints of its clusters.
    #[must_use]
    pub fn is_waiting_for_endpoints(&self) -> bool {
        !self.impatient && self.endpoints_not_asked_for()
    }

    /// What can be sent now.
    pub fn responses(&mut self) -> Vec<Response> {
        let mut all = Vec::new();
        for kind in ResourceType::ALL {
            let gated =
                !matches!(kind, ResourceType::Cluster | ResourceType::Endpoint) && self.clusters_unsettled();
            if !gated && let Some(response) = self.response(kind) {
                all.push(response);
            }
        }
        self.sent_since_settled |= !all.is_empty();
        all
    }

    /// Whether all that was published so far is in force at the proxy. Tells each version once.
    pub fn settle(&mut self) -> Option<Settled> {
        // A proxy that comes back with everything that it needs is sent nothing, and has nothing to acknowledge.
        let listening =
            self.types.get(&ResourceType::Listener).is_some_and(|s| s.acknowledged || !s.known.is_empty());
        if self.version == 0
            || !listening
            || self.types.values().any(|s| s.in_flight.is_some())
            || self.is_waiting_for_endpoints()
        {
            return None;
        }
        let rejected = self.types.iter().filter_map(|(kind, s)| Some((*kind, s.rejected.clone()?))).collect();
        let affected = std::mem::take(&mut self.sent_since_settled);
        Some(Settled { version: self.version, affected, rejected })
    }

    fn clusters_unsettled(&self) -> bool {
        let in_flight = |kind| self.types.get(&kind).is_some_and(|s: &Subscription| s.in_flight.is_some());
        in_flight(ResourceType::Cluster)
            || in_flight(ResourceType::Endpoint)
            || self.is_waiting_for_endpoints()
    }

    /// Clusters were sent whose endpoints the proxy has not asked for yet.
    fn endpoints_not_asked_for(&self) -> bool {
        let Some(clusters) =
            self.types.get(&ResourceType::Cluster).filter(|s| s.asked && s.rejected.is_none())
        else {
            return false;
        };
        let asked = self.types.get(&ResourceType::Endpoint);
        self.resources
            .endpoints
            .keys()
            .any(|name| clusters.known.contains_key(name) && !asked.is_some_and(|s| s.wants(name)))
    }

    fn response(&mut self, kind: ResourceType) -> Option<Response> {
        let may_remove = self.may_remove(kind);
        let state = self.types.get_mut(&kind).filter(|s| s.asked && s.in_flight.is_none())?;
        let current = self.resources.of(kind);
        let changed: Vec<Resource> = current.values().filter(|r| state.needs(r)).cloned().collect();
        let mut removed: Vec<Arc<str>> = Vec::new();
        if may_remove {
            removed.extend(
                state
                    .known
                    .iter()
                    .filter(|(name, hash)| hash.is_some() && !current.contains_key(*name))
                    .map(|(name, _)| name.clone()),
            );
            let absent =
                state.fresh.iter().filter(|name| !current.contains_key(*name) && !removed.contains(*name));
            removed.extend(absent.cloned().collect::<Vec<_>>());
        }
        // A first request for all of a type is answered even when there is nothing: the proxy waits for that.
        let owed = !state.acknowledged && state.wildcard && state.known.is_empty();
        if changed.is_empty() && removed.is_empty() && !owed {
            return None;
        }
        for resource in &changed {
            state.known.insert(resource.name.clone(), Some(resource.hash));
        }
        for name in &removed {
            state.known.insert(name.clone(), None);
        }
        if may_remove {
            state.fresh.clear();
        } else {
            state.fresh.retain(|name| !current.contains_key(name));
        }
        self.nonces += 1;
        let nonce = format!("{:x}", self.nonces);
        state.in_flight = Some(nonce.clone());
        let resources = match self.protocol {
            Protocol::Delta => changed,
            // Clusters that must not go yet are simply not in a full list; Envoy drains those still in use.
            Protocol::StateOfTheWorld => current.values().filter(|r| state.wants(&r.name)).cloned().collect(),
        };
        Some(Response {
            kind,
            nonce,
            version: self.version,
            resources,
            removed: removed.iter().map(ToString::to_string).collect(),
        })
    }

    /// Clusters and endpoints go only when no listener or route that might still name them is on its way.
    fn may_remove(&self, kind: ResourceType) -> bool {
        if !matches!(kind, ResourceType::Cluster | ResourceType::Endpoint) {
            return true;
        }
        [ResourceType::Listener, ResourceType::Route]
            .into_iter()
            .filter_map(|k| Some((k, self.types.get(&k)?)))
            .all(|(k, state)| {
                let current = self.resources.of(k);
                let up_to_date = current.values().all(|r| !state.needs(r))
                    && state.known.iter().all(|(name, hash)| hash.is_none() || current.contains_key(name));
                !state.asked || (state.in_flight.is_none() && up_to_date)
            })
    }
}

impl Subscription {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn needs(&self, resource: &Resource) -> bool {
        self.wants(&resource.name)
            && (self.fresh.contains(&resource.name)
                || self.known.get(&resource.name).copied().flatten() != Some(resource.hash))
    }
}

#[cfg(test)]
mod tests;
