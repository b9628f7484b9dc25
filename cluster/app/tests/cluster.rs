//! The `cluster` binary, started as a person starts it. Needs root; every test runs in network and mount namespaces of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cluster/life.rs"]
mod life;
#[path = "cluster/machine.rs"]
mod machine;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "cluster/program.rs"]
mod program;
#[path = "cluster/refusals.rs"]
mod refusals;
