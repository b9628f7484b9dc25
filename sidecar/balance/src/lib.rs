//! Which endpoint a request goes to, and which endpoints are put aside for failing.
//!
//! Pure: time (milliseconds of any monotonic clock) and randomness are passed in. What several workers share of an endpoint is in
//! [`HostState`]: counters that are read and written without a lock. Semantics are Envoy's load balancers and outlier detection, with one
//! difference: the last endpoint that is still in service is never ejected.

mod balancer;
mod ewma;
mod host;
mod maglev;
mod murmur;
mod outlier;
mod policy;
mod priority;
mod ring;
mod set;
mod subset;

pub use balancer::{Balancer, PickContext};
pub use host::{Host, HostState, Unavailable};
pub use outlier::{Ejection, EjectionCause, Outcome};

#[cfg(test)]
mod tests;
