//! What several tests need of the world around a proxy, all of it real:
//!
//! - [`control`]: a control plane on loopback (both kinds of aggregated discovery, Istio's certificate service), whose streams
//!   a test plays itself;
//! - [`world`]: the same, answering by itself from a set of resources that the test changes;
//! - [`resources`]: small pieces of resources;
//! - [`process`]: foreign programs and our own as child processes that end with their owner;
//! - [`envoy`], [`sidecar`]: how these two are found and started.
//!
//! Its functions panic instead of returning errors where nothing but a failed test can follow.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "whatever fails here fails the test")]

pub mod control;
pub mod envoy;
pub mod process;
pub mod resources;
pub mod sidecar;
pub mod world;

use std::path::PathBuf;
use std::time::Duration;

/// How long anything that a test waits for may take on a machine that is busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The repository's folder.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Cargo's target folder.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A port of 127.0.0.1 that nobody listens on now.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    listener.local_addr().expect("it is bound").port()
}
