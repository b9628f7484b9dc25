//! Authentication of requests by JSON web token.

pub(crate) mod proto;

use crate::matcher::StringMatch;
use crate::route::RouteMatch;
use http::HeaderName;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where a token is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtHeader {
    /// The header.
    #[serde(serialize_with = "crate::dump::display")]
    pub name: HeaderName,
    /// What precedes the token in it, such as `Bearer `.
    pub value_prefix: Box<str>,
}

/// Where the keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum JwksSource {
    /// This JSON web key set.
    Inline(Box<str>),
    /// Fetched.
    Remote {
        /// From this URL.
        uri: Box<str>,
        /// Through this cluster.
        cluster: Arc<str>,
        /// A fetch may take this long.
        timeout: Duration,
        /// A set is used this long.
        cache: Duration,
    },
}

/// A claim of the token copied to a request header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimHeader {
    /// The header.
    #[serde(serialize_with = "crate::dump::display")]
    pub header: HeaderName,
    /// The claim; dots go into objects.
    pub claim: Box<str>,
}

/// An issuer of tokens, and what is done with them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtProvider {
    /// The `iss` claim; empty: any.
    pub issuer: Box<str>,
    /// Allowed `aud` claims; empty: any.
    pub audiences: Vec<Box<str>>,
    /// Allowed subjects.
    pub subjects: Option<StringMatch>,
    /// Keys.
    pub jwks: JwksSource,
    /// The token stays in the request.
    pub forward: bool,
    /// Headers it may be in.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters it may be in.
    pub from_params: Vec<Box<str>>,
    /// Cookies it may be in.
    pub from_cookies: Vec<Box<str>>,
    /// Its payload, base64url, is put into this header.
    #[serde(serialize_with = "crate::dump::display_option")]
    pub forward_payload_header: Option<HeaderName>,
    /// Claims copied to headers.
    pub claim_to_headers: Vec<ClaimHeader>,
    /// Its payload goes into dynamic metadata under this key; empty: nowhere.
    pub payload_in_metadata: Box<str>,
    /// Claims whose text is a list of words and goes into the metadata as one.
    pub space_delimited_claims: Vec<Box<str>>,
    /// Allowed difference of clocks.
    pub clock_skew: Duration,
}

/// What a request must prove.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum JwtRequirement {
    /// Nothing.
    None,
    /// A token of this provider.
    Provider {
        /// Name of the provider.
        name: Arc<str>,
        /// Audiences that replace the provider's; empty: the provider's.
        audiences: Vec<Box<str>>,
    },
    /// Any of these.
    Any(Vec<JwtRequirement>),
    /// All of these.
    All(Vec<JwtRequirement>),
    /// Even a bad token passes.
    AllowMissingOrFailed,
    /// A missing token passes, a bad one does not.
    AllowMissing,
}

/// A requirement for the requests that match.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtRule {
    /// Which requests.
    pub matches: RouteMatch,
    /// What they must prove.
    pub requirement: JwtRequirement,
}

/// Authentication by token: the first rule that matches decides.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtAuthn {
    /// Providers by name.
    pub providers: BTreeMap<Arc<str>, Arc<JwtProvider>>,
    /// Rules in order.
    pub rules: Vec<JwtRule>,
    /// Requirements that routes refer to by name.
    pub requirements: BTreeMap<Box<str>, JwtRequirement>,
    /// Preflight requests pass.
    pub bypass_cors_preflight: bool,
}

/// What a route says about tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum JwtRequirementChoice {
    /// None is needed.
    Disabled,
    /// The requirement of this name.
    Named(Box<str>),
}
