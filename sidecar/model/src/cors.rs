//! Cross-origin policy of a route.

pub(crate) mod proto;

use crate::matcher::{Fraction, StringMatch};
use serde::Serialize;

/// Who may call from another origin, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Origins that may.
    pub allow_origins: Vec<StringMatch>,
    /// `access-control-allow-methods`; empty: not sent.
    pub allow_methods: Box<str>,
    /// `access-control-allow-headers`; empty: not sent.
    pub allow_headers: Box<str>,
    /// `access-control-expose-headers`; empty: not sent.
    pub expose_headers: Box<str>,
    /// `access-control-max-age`; empty: not sent.
    pub max_age: Box<str>,
    /// `access-control-allow-credentials: true` is sent.
    pub allow_credentials: bool,
    /// Preflight requests that match no origin are forwarded; otherwise they are answered here.
    pub forward_not_matching_preflights: bool,
    /// For how many requests the policy is applied.
    pub enabled: Fraction,
}
