//! The cluster's network with real namespaces. Needs root; every test runs in network and mount namespaces of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "network/api.rs"]
mod api;
#[path = "network/dns.rs"]
mod dns;
#[path = "network/interception.rs"]
mod interception;
#[path = "network/isolation.rs"]
mod isolation;
#[path = "network/pods.rs"]
mod pods;
#[path = "network/services.rs"]
mod services;
#[path = "network/world.rs"]
mod world;
