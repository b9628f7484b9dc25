//! The sidecar beside a real Envoy: both are told the same resources by the same control plane, forward to the same backends, and
//! are sent the same requests; every answer must be the same.
//!
//! - [`generate`]: route configurations and requests, by chance from a seed;
//! - [`backend`]: servers that say what reached them;
//! - [`client`]: requests as bytes, answers as they come;
//! - [`compare`]: what differs, and what may;
//! - [`rig`]: all of it running.
//!
//! A difference is a mistake of ours unless [`compare`] has it in its table, with the reason.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "whatever fails here fails the test")]

pub mod backend;
pub mod client;
pub mod compare;
pub mod generate;
pub mod rig;
