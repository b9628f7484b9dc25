//! The wire: Envoy's v3 messages, the ADS services, and Istio's certificate service.
//!
//! No other crate names `envoy-types`. Messages are re-exported under short module names; what Envoy's
//! generated crate lacks is declared here by hand. This crate knows nothing of Kubernetes kinds.

pub mod any;
pub mod csr;
pub mod peak_ewma;
pub mod type_url;
pub mod typed_struct;

pub use any::{UnpackError, any, unpack};

mod messages;
pub use messages::*;
