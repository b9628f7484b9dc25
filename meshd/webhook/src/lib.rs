//! What the control plane answers to the API server's admission reviews; pure: JSON in, JSON out.
//!
//! [`inject`] adds the sidecar to pods, [`validate`] refuses policies that cannot mean anything, [`review`] is the envelope
//! (`admission.k8s.io/v1`).

pub mod inject;
pub mod review;
pub mod validate;
