//! The ADS server: what each proxy subscribed to, what it is sent and in which order, what it acknowledged.
//!
//! - [`session`]: the state of one stream; pure, both the delta and the state-of-the-world protocol;
//! - [`server`]: gRPC streams around sessions;
//! - [`publication`]: snapshots with what changed, to all streams;
//! - [`tracker`]: which proxy has which snapshot in force, for status and debug pages.
//!
//! Knows nothing of Kubernetes.

mod metrics;
pub mod node;
pub mod publication;
pub mod server;
pub mod session;
pub mod tracker;

pub use metrics::Metrics;
pub use publication::{Publication, Publisher};
pub use server::Server;
pub use tracker::{Progress, ProxyStatus, Tracker};
