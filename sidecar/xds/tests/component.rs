//! The client against a small real server: ADS and certificates over TLS on a port of the loopback.

#![allow(clippy::unwrap_used, reason = "these are tests, their helpers included")]

#[path = "component/discovery.rs"]
mod discovery;
#[path = "component/identity.rs"]
mod identity;
#[path = "component/resources.rs"]
mod resources;
#[path = "component/whole.rs"]
mod whole;
#[path = "component/world.rs"]
mod world;
