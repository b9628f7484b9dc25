//! What the mesh knows, as plain immutable data, and the rules that say which policy concerns which proxy. Knows neither kube nor protobuf.

pub mod change;
pub mod entry;
pub mod host;
pub mod mesh;
pub mod object;
pub mod protocol;
pub mod provider;
pub mod proxy;
pub mod select;
pub mod service;
pub mod snapshot;

pub use change::{Change, ChangeKey, ChangeKind};
pub use mesh::{AuthzBody, AuthzProtocol, AuthzProvider, HostScope, MeshConfig, OutboundPolicy};
pub use object::{Config, ObjectId, ObjectVersion, Policies};
pub use protocol::Protocol;
pub use provider::{Provider, ProviderKind};
pub use proxy::{Locality, ProxyKey, ProxyKind};
pub use service::{
    Endpoint, EndpointAddress, Health, Resolution, Service, ServiceKey, ServicePort, TargetPort, Workload,
};
pub use snapshot::{Namespace, ObjectKey, Registry, Secret, Snapshot, Workloads};
