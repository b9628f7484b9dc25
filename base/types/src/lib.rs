//! Contracts that every plane shares and that need no I/O: identities, durations, back-off, error chains.
//!
//! This crate knows nothing of tokio, TLS, Kubernetes or xDS.

pub mod backoff;
pub mod duration;
pub mod error;
pub mod identity;

pub use backoff::Backoff;
pub use error::ErrorChain;
pub use identity::{InvalidSpiffeId, SpiffeId};
