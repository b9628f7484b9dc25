//! The controllers against the real API server and store, with a made-up node.
#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "../../apiserver/tests/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the API server's tests")]
mod harness;

mod garbage;
mod nodes;
mod workloads;
mod world;
