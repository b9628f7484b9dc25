//! The kubelet with a real API server, real containers and a real pod network: needs root. Every test runs in network and mount
//! namespaces of its own and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contents;
mod ends;
mod faults;
mod lifecycle;
mod probing;
mod serving;
mod world;
