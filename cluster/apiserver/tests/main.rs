//! The API server on loopback, driven by real clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
mod kubectl;
mod objects;
