//! The API server on loopback, driven by real clients.

mod harness;
mod kubectl;
mod objects;
