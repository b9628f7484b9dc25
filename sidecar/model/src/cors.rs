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
    /// Whether `access-control-allow-credentials: true` is sent; `None`: a less specific policy says, and then no.
    pub allow_credentials: Option<bool>,
    /// Whether preflight requests that match no origin are forwarded, not answered here; `None`: a less specific policy says, and
    /// then yes.
    pub forward_not_matching_preflights: Option<bool>,
    /// For how many requests the policy is applied.
    pub enabled: Fraction,
}

// === impl CorsPolicy ===

impl CorsPolicy {
    /// This policy, completed by a less specific one where it says nothing. Whether it is applied it says itself.
    #[must_use]
    pub fn over(mut self, other: &Self) -> Self {
        if self.allow_origins.is_empty() {
            self.allow_origins.clone_from(&other.allow_origins);
        }
        let texts = [
            (&mut self.allow_methods, &other.allow_methods),
            (&mut self.allow_headers, &other.allow_headers),
            (&mut self.expose_headers, &other.expose_headers),
            (&mut self.max_age, &other.max_age),
        ];
        for (own, other) in texts {
            if own.is_empty() {
                own.clone_from(other);
            }
        }
        self.allow_credentials = self.allow_credentials.or(other.allow_credentials);
        self.forward_not_matching_preflights =
            self.forward_not_matching_preflights.or(other.forward_not_matching_preflights);
        self
    }
}
