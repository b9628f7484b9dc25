//! Compiled resources: name, bytes and a hash of the bytes by which pushes are diffed.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

/// A type of xDS resource, in the order in which additions must be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
}

/// One compiled resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its xDS name.
    pub name: Arc<str>,
    /// xxh64 of `value`: the version that delta xDS speaks of.
    pub hash: u64,
    /// The protobuf message, encoded, without the surrounding `Any`.
    pub value: Arc<[u8]>,
}

/// Resources of one type by name.
pub type ResourceMap = BTreeMap<Arc<str>, Resource>;

/// Everything a proxy gets. Cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Clusters.
    pub clusters: Arc<ResourceMap>,
    /// Endpoints of the EDS clusters.
    pub endpoints: Arc<ResourceMap>,
    /// Listeners.
    pub listeners: Arc<ResourceMap>,
    /// Route configurations.
    pub routes: Arc<ResourceMap>,
    /// Secrets, for gateways only.
    pub secrets: Arc<ResourceMap>,
}

// === impl ResourceType ===

impl ResourceType {
    /// All types in push order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route, Self::Secret];

    /// The type URL of the resource.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The type of a type URL.
    #[must_use]
    pub fn of_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.type_url() == type_url)
    }
}

// === impl Resource ===

impl Resource {
    /// Encodes a message under its name.
    pub(crate) fn encode(name: impl Into<Arc<str>>, message: &impl prost::Message) -> Self {
        let value: Arc<[u8]> = message.encode_to_vec().into();
        Self { name: name.into(), hash: xxh64(&value, 0), value }
    }
}

// === impl Resources ===

impl Resources {
    /// The resources of a type.
    #[must_use]
    pub fn of(&self, kind: ResourceType) -> &Arc<ResourceMap> {
        match kind {
            ResourceType::Cluster => &self.clusters,
            ResourceType::Endpoint => &self.endpoints,
            ResourceType::Listener => &self.listeners,
            ResourceType::Route => &self.routes,
            ResourceType::Secret => &self.secrets,
        }
    }
}
