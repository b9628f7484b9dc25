//! Istio's API kinds as plain serde types, with their validation, their CRDs and the names people know. Pure: knows neither kube nor xDS.
//!
//! Unknown fields never fail a parse; [`validate`] reports them with a field path, and [`document`] maps a path to a line of a file.

pub mod authorization_policy;
pub mod crd;
pub mod destination_rule;
pub mod document;
pub mod duration;
pub mod gateway;
pub mod kind;
pub mod matching;
pub mod names;
pub mod peer_authentication;
pub mod request_authentication;
pub mod schema;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod validate;
pub mod virtual_service;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use gateway::Gateway;
pub use kind::{Kind, Spec, SpecError};
pub use peer_authentication::PeerAuthentication;
pub use request_authentication::RequestAuthentication;
pub use service_entry::ServiceEntry;
pub use sidecar::Sidecar;
pub use telemetry::Telemetry;
pub use virtual_service::VirtualService;
