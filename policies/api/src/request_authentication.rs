//! `RequestAuthentication` (security.istio.io): which JSON web tokens are accepted.

use serde::Deserialize;

use crate::duration::ApiDuration;
use crate::matching::{TargetRef, WorkloadSelector};

/// The spec of a `RequestAuthentication`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestAuthentication {
    /// Pods of the namespace it is for; all when absent.
    pub selector: Option<WorkloadSelector>,
    /// Single object it is attached to.
    pub target_ref: Option<TargetRef>,
    /// Objects it is attached to.
    pub target_refs: Vec<TargetRef>,
    /// Accepted issuers.
    pub jwt_rules: Vec<JwtRule>,
}

/// One issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtRule {
    /// `iss` of the token.
    pub issuer: String,
    /// Accepted `aud`; any when empty.
    pub audiences: Vec<String>,
    /// Address of the key set.
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    /// The key set itself.
    pub jwks: String,
    /// Headers to look in.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters to look in.
    pub from_params: Vec<String>,
    /// Cookies to look in.
    pub from_cookies: Vec<String>,
    /// Header that gets the payload.
    pub output_payload_to_header: String,
    /// Whether the token is passed on.
    pub forward_original_token: bool,
    /// Headers that get single claims.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Time to fetch keys; 5 s by default.
    pub timeout: Option<ApiDuration>,
    /// Claims that hold several values separated by spaces.
    pub space_delimited_claims: Vec<String>,
    /// `OPTIONAL` (default) or `REQUIRED`.
    pub presence: String,
}

/// A header that may hold a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct JwtHeader {
    /// Name of the header.
    pub name: String,
    /// Text before the token.
    pub prefix: String,
}

/// A claim copied to a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// Name of the claim.
    pub claim: String,
}
