//! What the tests against strangers share: a sidecar in a process of its own, foreign programs, raw sockets, and parsers that
//! know nothing of ours.

pub mod backend;
pub mod capture;
pub mod foreign;
pub mod frames;
pub mod load;
pub mod memory;
pub mod process;
pub mod random;
pub mod reference;
pub mod smuggling;
pub mod spec;
pub mod wire;

pub use process::{Program, Sidecar};
pub use spec::{ListenerSpec, Spec};
