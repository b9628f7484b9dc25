//! What the sidecar tells about requests: Istio's standard metrics, Envoy's access log and response flags, peer metadata, trace context.
//!
//! Counters belong to one worker and are written without a lock or a read-modify-write; a scrape adds the workers up. The number of
//! series is bounded, whatever clients send. The crate knows nothing of routing.

pub mod cause;
pub mod flags;
pub mod histogram;
pub mod labels;
pub mod log;
pub mod peer;
pub mod registry;
pub mod series;
pub mod span;
pub mod tap;
pub mod trace;

mod expose;
mod hash;
mod otlp;
mod wire;
mod zipkin;

pub use flags::{Flag, Flags};
pub use labels::{GrpcStatus, HttpKey, Reporter, RequestProtocol, SecurityPolicy, Service, TcpKey, Workload};
pub use log::{AccessLogger, Entry, LogWriter};
pub use registry::{Metrics, Worker};
pub use series::{HttpSeries, TcpSeries};
pub use span::{Span, SpanKind};
