//! What every daemon of the project needs to live well: logs, signals, tasks that end, a small HTTP server, metrics.
//!
//! This crate knows no plane, and reads no flag and no environment: `*/app` passes values in.

pub mod http_server;
pub mod log;
pub mod metrics;
pub mod signals;
pub mod tasks;

pub use signals::shutdown_on_signals;
pub use tasks::TaskGroup;
pub use tokio_util::sync::CancellationToken;
