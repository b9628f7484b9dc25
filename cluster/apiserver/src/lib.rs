//! The API server: one generic registry driven by a table of kinds, with authentication, authorization and admission in front and the
//! store behind.
//!
//! Life of a request: `server` accepts and reads it, `request` says what it asks for, `authn` who asks, `authz` whether they may;
//! `registry` then does it — `admission` and `schema` (or `crd`) decide what is stored, `render` and `printers` what is shown.
//! Objects are unstructured JSON everywhere; the crate knows nothing of nodes but the address of their kubelets.

mod admission;
mod allocator;
mod api;
mod apply;
mod authn;
mod authz;
mod bootstrap;
mod config;
mod context;
mod crd;
mod discovery;
mod error;
mod follow;
mod kinds;
mod kubelet;
mod media;
mod metrics;
mod object;
mod outbound;
mod pod_proxy;
mod printers;
mod registry;
mod request;
mod schema;
mod server;

pub use api::run;
pub use config::{Config, Dialer, Error};
