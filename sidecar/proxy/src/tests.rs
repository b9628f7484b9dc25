//! The data path over real sockets on port 0: a client, sidecars with hand-made snapshots, applications that are not ours.

mod app;
mod basics;
mod build;
mod changes;
mod connect;
mod external;
pub(crate) mod forge;
mod forwarding;
mod health;
mod interception;
mod lifetimes;
mod limiting;
mod limits;
mod open;
mod policies;
mod proxy_protocol;
mod retries;
mod rig;
mod streams;
mod taps;
mod tokens;
mod traces;
mod upstreams;
