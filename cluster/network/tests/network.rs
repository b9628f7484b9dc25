//! The cluster's network with real namespaces. Needs root; every test runs in network and mount namespaces of its own.

#[path = "network/interception.rs"]
mod interception;
#[path = "network/isolation.rs"]
mod isolation;
#[path = "network/pods.rs"]
mod pods;
#[path = "network/world.rs"]
mod world;
