//! The data path: connections in and out of a workload or through a gateway, by the configuration of the moment.
//!
//! A few worker threads each run a single-threaded runtime with listeners, connection pools and counters of their own. They read
//! [`config::Config`], built from a snapshot on the control side and swapped atomically: a change closes no connection.
//! The life of a request: `listen` (accept, original destination, sniffing, TLS) → `http` (filters, route, attempts) → `pool` → upstream.

pub mod config;
mod dns;
mod health;
mod http;
mod jwt;
mod listen;
mod overload;
mod pool;
mod proxy;
mod rbac;
pub mod shared;
pub mod stats;
mod target;
mod tcp;
mod usage;
mod worker;

pub use config::Config;
pub use overload::Level;
pub use proxy::{Bound, Options, Proxy};
pub use shared::{Node, NodeKind, Shared};
pub use usage::Usage;

#[cfg(test)]
mod tests;
