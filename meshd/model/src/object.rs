//! Policy objects as the snapshot holds them: sorted by precedence, with the versions that acknowledgements refer to.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use policies_api::{
    AuthorizationPolicy, DestinationRule, Gateway, Kind, PeerAuthentication, RequestAuthentication,
    ServiceEntry, Sidecar, Telemetry, VirtualService,
};

/// Identity of a policy object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Which state of an object a snapshot contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectVersion {
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`.
    pub resource_version: Arc<str>,
    /// Why the object has no effect, if it could not be read.
    pub invalid: Option<Arc<str>>,
}

/// A policy object: where it stands and what it says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config<T> {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Seconds since 1970 of its creation.
    pub created: i64,
    /// `istio.io/dry-run: "true"`: evaluated without effect.
    pub dry_run: bool,
    /// `meshd.dev/sticky-split: "true"`: weights are chosen among by the key of the destinations' consistent hash.
    pub sticky_split: bool,
    /// What it says.
    pub spec: T,
}

/// All policy objects of a snapshot, each list by precedence: oldest first, then by name, then by namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// `VirtualService` objects.
    pub virtual_services: Vec<Arc<Config<VirtualService>>>,
    /// `DestinationRule` objects.
    pub destination_rules: Vec<Arc<Config<DestinationRule>>>,
    /// `Gateway` objects.
    pub gateways: Vec<Arc<Config<Gateway>>>,
    /// `ServiceEntry` objects.
    pub service_entries: Vec<Arc<Config<ServiceEntry>>>,
    /// `Sidecar` objects.
    pub sidecars: Vec<Arc<Config<Sidecar>>>,
    /// `PeerAuthentication` objects.
    pub peer_authentications: Vec<Arc<Config<PeerAuthentication>>>,
    /// `RequestAuthentication` objects.
    pub request_authentications: Vec<Arc<Config<RequestAuthentication>>>,
    /// `AuthorizationPolicy` objects.
    pub authorization_policies: Vec<Arc<Config<AuthorizationPolicy>>>,
    /// `Telemetry` objects.
    pub telemetries: Vec<Arc<Config<Telemetry>>>,
    /// State of every object, the unreadable ones included.
    pub versions: BTreeMap<ObjectId, ObjectVersion>,
}

// === impl Config ===

impl<T> Config<T> {
    /// The order in which objects of one kind take precedence.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        (self.created, &self.name, &self.namespace).cmp(&(other.created, &other.name, &other.namespace))
    }
}

// === impl Policies ===

impl Policies {
    /// Sorts every list by precedence; call after filling them by hand.
    pub fn sort(&mut self) {
        self.virtual_services.sort_by(|a, b| a.precedence(b));
        self.destination_rules.sort_by(|a, b| a.precedence(b));
        self.gateways.sort_by(|a, b| a.precedence(b));
        self.service_entries.sort_by(|a, b| a.precedence(b));
        self.sidecars.sort_by(|a, b| a.precedence(b));
        self.peer_authentications.sort_by(|a, b| a.precedence(b));
        self.request_authentications.sort_by(|a, b| a.precedence(b));
        self.authorization_policies.sort_by(|a, b| a.precedence(b));
        self.telemetries.sort_by(|a, b| a.precedence(b));
    }
}
