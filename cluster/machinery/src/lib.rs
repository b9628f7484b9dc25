//! The vocabulary of the Kubernetes API as plain data and pure functions: names of kinds, selectors, quantities, patches, errors.
//!
//! Objects are [`serde_json::Value`]s, so that fields nobody here knows survive. Nothing in this crate does I/O; the clock and the
//! random numbers are passed in or stand in one function each ([`time::now`], [`name::generate`]).

pub mod condition;
pub mod gvk;
pub mod name;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod time;

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use object::Object;
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{FieldError, Status};
