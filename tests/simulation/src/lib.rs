//! Policy YAML → snapshot → compiled xDS → the sidecar's own model and route matching, without a socket.
//!
//! [`World`] stands for a cluster: objects go in as YAML, deployments become pods with addresses. [`Call`] is a request that a pod's sidecar
//! or the gateway decides about; the answer is what its real matcher finds.

mod call;
mod envoy;
mod world;

pub use call::{Answer, Call};
pub use envoy::bootstrap;
pub use world::World;

#[cfg(test)]
mod tests;
