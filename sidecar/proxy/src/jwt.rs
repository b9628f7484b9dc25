//! JSON web tokens (RFC 7519, 7515, 7517; Envoy's `jwt_authn`): judged fail-closed, with asymmetric algorithms only.
//!
//! Pure but for the clock, which is passed in. Keys that must be fetched are fetched by `http/jwks.rs` before a request is judged.

mod json;
mod keys;
mod remote;
mod token;

pub(crate) use remote::{JwksStore, Need, RemoteKeys, may_fetch_from};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use serde_json::{Map, Value};
use sidecar_model::jwt::{JwksSource, JwtProvider, JwtRequirement, JwtRequirementChoice};
use sidecar_model::{JwtAuthn, Metadata};
use sidecar_route::{RequestView, route_matches};

use keys::Key;
use token::Token;

/// Namespace of the claims in a request's metadata.
pub(crate) const METADATA: &str = "envoy.filters.http.jwt_authn";

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no token.
    Missing,
    /// The token has not three parts, or is too long.
    Form,
    /// The header is no base64url.
    HeaderBase64,
    /// The header is no JSON object.
    HeaderJson,
    /// The header names no algorithm.
    NoAlgorithm,
    /// The algorithm is none that proves anything.
    Algorithm,
    /// The key id is no string.
    KeyId,
    /// The header demands what is not understood.
    Critical,
    /// The payload is no base64url.
    PayloadBase64,
    /// The payload is no JSON object.
    PayloadJson,
    /// The signature is no base64url.
    SignatureBase64,
    /// A time is no number.
    Times,
    /// No key fits the token.
    NoKey,
    /// The keys cannot be had.
    Fetch,
    /// The signature is wrong.
    Signature,
    /// The issuer is another one.
    Issuer,
    /// It is too late.
    Expired,
    /// It is too early.
    NotYet,
    /// The token is for others.
    Audience,
    /// The subject is not allowed.
    Subject,
}

impl Refusal {
    /// Envoy's words, where it has any.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::Form => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::NoAlgorithm => "Jwt header [alg] field is required and must be a string",
            Self::Algorithm => "Jwt header [alg] is not supported",
            Self::KeyId => "Jwt header [kid] field is not a string",
            Self::Critical => "Jwt header [crit] is not supported",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::Times => "Jwt payload [exp] or [nbf] field is not a number",
            Self::NoKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::Fetch => "Jwks remote fetch is failed",
            Self::Signature => "Jwt verification fails",
            Self::Issuer => "Jwt issuer is not configured",
            Self::Expired => "Jwt is expired",
            Self::NotYet => "Jwt not yet valid",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Subject => "Subject in Jwt is not allowed",
        }
    }
}

/// A filter's providers with their keys.
#[derive(Debug)]
pub struct JwtPlan {
    config: Arc<JwtAuthn>,
    keys: BTreeMap<Arc<str>, Keys>,
}

/// Where a provider's keys are.
#[derive(Debug)]
enum Keys {
    Inline(Arc<[Key]>),
    Remote(Arc<RemoteKeys>),
}

impl Keys {
    fn new(source: &JwksSource, store: &mut JwksStore) -> Self {
        if let Some(remote) = store.of(source) {
            return Self::Remote(remote);
        }
        let JwksSource::Inline(text) = source else { return Self::Inline(Arc::default()) };
        let keys = keys::parse(text.as_bytes()).unwrap_or_else(|| {
            tracing::warn!("A key set cannot be read: its issuer's tokens are refused");
            Vec::new()
        });
        Self::Inline(keys.into())
    }

    fn current(&self, now: Instant) -> Result<Arc<[Key]>, Refusal> {
        match self {
            Self::Inline(keys) => Ok(Arc::clone(keys)),
            Self::Remote(remote) => remote.current(now).ok_or(Refusal::Fetch),
        }
    }
}

/// A token that was believed.
struct Verified<'a> {
    provider: &'a JwtProvider,
    place: Place,
    payload: String,
    claims: Map<String, Value>,
}

/// Where a token stood.
#[derive(Clone)]
enum Place {
    Header(HeaderName),
    Parameter(Box<str>),
    Cookie,
}

/// The clocks by which a request is judged: one for what tokens say, one for the age of keys.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) wall: SystemTime,
    pub(crate) steady: Instant,
}

impl JwtPlan {
    /// Parses the keys. A set that cannot be read is empty: its issuer's tokens are refused.
    pub(crate) fn new(config: Arc<JwtAuthn>, store: &mut JwksStore) -> Self {
        let keys = config
            .providers
            .iter()
            .map(|(name, provider)| (Arc::clone(name), Keys::new(&provider.jwks, store)))
            .collect();
        Self { config, keys }
    }

    /// Key sets that a fetch is due for before this request can be judged: those of providers that it brings a token to.
    pub(crate) fn due<'a>(
        &'a self,
        parts: &'a Parts,
        now: Instant,
    ) -> impl Iterator<Item = &'a Arc<RemoteKeys>> {
        self.config.providers.iter().filter_map(move |(name, provider)| match self.keys.get(name)? {
            Keys::Remote(remote) if remote.need(now) != Need::Nothing => {
                (!tokens(provider, parts).is_empty()).then_some(remote)
            }
            _ => None,
        })
    }

    /// Judges a request; what is believed changes its headers and is returned as metadata.
    pub(crate) fn judge(
        &self,
        parts: &mut Parts,
        view: &dyn Fn(&Parts) -> Option<JwtRequirement>,
        choice: Option<&JwtRequirementChoice>,
        now: Now,
    ) -> Result<Option<Metadata>, Refusal> {
        self.forget_forged(&mut parts.headers);
        if self.config.bypass_cors_preflight && is_preflight(parts) {
            return Ok(None);
        }
        let requirement = match choice {
            Some(JwtRequirementChoice::Disabled) => return Ok(None),
            Some(JwtRequirementChoice::Named(name)) => {
                Some(self.config.requirements.get(name).cloned().ok_or(Refusal::Missing)?)
            }
            None => view(parts),
        };
        let Some(requirement) = requirement else { return Ok(None) };
        let mut verified = Vec::new();
        self.satisfy(&requirement, parts, now, &mut verified)?;
        if verified.is_empty() {
            return Ok(None);
        }
        let mut metadata = Map::new();
        for one in verified {
            one.leave_traces(parts, &mut metadata);
        }
        let mut whole = Metadata::default();
        whole.set(METADATA, Value::Object(metadata));
        Ok(Some(whole))
    }

    /// The requirement of the first rule that takes the request.
    pub(crate) fn rule(&self, view: &RequestView<'_>, random: u64) -> Option<JwtRequirement> {
        let rule = self.config.rules.iter().find(|rule| route_matches(&rule.matches, view, random))?;
        Some(rule.requirement.clone())
    }

    /// Headers that only a believed token may set.
    fn forget_forged(&self, headers: &mut HeaderMap) {
        for provider in self.config.providers.values() {
            if let Some(name) = &provider.forward_payload_header {
                headers.remove(name);
            }
            for claim in &provider.claim_to_headers {
                headers.remove(&claim.header);
            }
        }
    }

    fn satisfy<'a>(
        &'a self,
        requirement: &JwtRequirement,
        parts: &Parts,
        now: Now,
        verified: &mut Vec<Verified<'a>>,
    ) -> Result<(), Refusal> {
        match requirement {
            JwtRequirement::None | JwtRequirement::AllowMissingOrFailed => Ok(()),
            JwtRequirement::Provider { name, audiences } => {
                verified.push(self.provider(name, audiences, parts, now)?);
                Ok(())
            }
            JwtRequirement::All(all) => {
                all.iter().try_for_each(|one| self.satisfy(one, parts, now, verified))
            }
            JwtRequirement::AllowMissing => {
                let present =
                    self.config.providers.values().any(|provider| !tokens(provider, parts).is_empty());
                if present { Err(Refusal::Signature) } else { Ok(()) }
            }
            JwtRequirement::Any(any) => {
                let mut worst = Refusal::Missing;
                for one in any {
                    let believed = verified.len();
                    let outcome = self.satisfy(one, parts, now, verified);
                    if outcome.is_err() {
                        verified.truncate(believed);
                    }
                    match outcome {
                        Ok(()) => return Ok(()),
                        // The most telling reason is given: not that it is another issuer's token, nor that there is none.
                        Err(refusal) if matches!(worst, Refusal::Missing) => worst = refusal,
                        Err(refusal)
                            if matches!(worst, Refusal::Issuer)
                                && refusal != Refusal::Missing
                                && *one != JwtRequirement::AllowMissing =>
                        {
                            worst = refusal
                        }
                        Err(_) => {}
                    }
                }
                Err(worst)
            }
        }
    }

    /// A token of a provider. A request with several has only good ones: what is behind may look at any of them.
    fn provider<'a>(
        &'a self,
        name: &str,
        audiences: &[Box<str>],
        parts: &Parts,
        now: Now,
    ) -> Result<Verified<'a>, Refusal> {
        let provider = self.config.providers.get(name).ok_or(Refusal::Issuer)?;
        let keys = self.keys.get(name).ok_or(Refusal::NoKey)?;
        let audiences = if audiences.is_empty() { &provider.audiences } else { audiences };
        let wall = now.wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut first = None;
        for (place, text) in tokens(provider, parts) {
            let token = Token::parse(&text)?;
            token.judge(provider, audiences, wall)?;
            token.verify(&keys.current(now.steady)?)?;
            first.get_or_insert_with(|| Verified {
                provider,
                place,
                payload: token.payload.to_owned(),
                claims: token.claims,
            });
        }
        first.ok_or(Refusal::Missing)
    }
}

fn is_preflight(parts: &Parts) -> bool {
    parts.method == http::Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The tokens that a request brings to a provider: from the places it names, else from `authorization` and `access_token`.
fn tokens(provider: &JwtProvider, parts: &Parts) -> Vec<(Place, String)> {
    let mut found = Vec::new();
    let anywhere = provider.from_headers.is_empty()
        && provider.from_params.is_empty()
        && provider.from_cookies.is_empty();
    let mut from_header = |name: &HeaderName, prefix: &str| {
        for value in parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()) {
            if let Some(token) = strip_prefix_ignoring_case(value, prefix) {
                found.push((Place::Header(name.clone()), token.trim().to_owned()));
            }
        }
    };
    for place in &provider.from_headers {
        from_header(&place.name, &place.value_prefix);
    }
    if anywhere {
        from_header(&header::AUTHORIZATION, "Bearer ");
    }
    let query = parts.uri.query().unwrap_or_default();
    let mut from_parameter = |name: &str| {
        let values = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
        found.extend(values.map(|(key, value)| (Place::Parameter(key.into()), value.to_owned())));
    };
    provider.from_params.iter().for_each(|name| from_parameter(name));
    if anywhere {
        from_parameter("access_token");
    }
    for name in &provider.from_cookies {
        let cookies = parts.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        found.extend(
            pairs.filter(|(key, _)| *key == &**name).map(|(_, value)| (Place::Cookie, value.to_owned())),
        );
    }
    found
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

impl Verified<'_> {
    /// Puts claims where the provider wants them, and takes the token away unless it is to be forwarded.
    fn leave_traces(self, parts: &mut Parts, metadata: &mut Map<String, Value>) {
        let provider = self.provider;
        if let (Some(name), Ok(value)) =
            (&provider.forward_payload_header, HeaderValue::from_str(&self.payload))
        {
            parts.headers.insert(name, value);
        }
        for wanted in &provider.claim_to_headers {
            let claim = wanted.claim.split('.').try_fold(None::<&Value>, |at, key| {
                let found = match at {
                    None => self.claims.get(key),
                    Some(value) => value.get(key),
                };
                found.map(Some)
            });
            let text = match claim.flatten() {
                Some(Value::String(text)) => text.clone(),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                // Envoy's form of what is no single value.
                Some(value @ (Value::Array(_) | Value::Object(_))) => STANDARD.encode(value.to_string()),
                Some(Value::Null) | None => continue,
            };
            if let Ok(value) = HeaderValue::try_from(text) {
                parts.headers.insert(&wanted.header, value);
            }
        }
        if !provider.forward {
            remove_token(parts, &self.place);
        }
        if !provider.payload_in_metadata.is_empty() {
            let mut claims = self.claims;
            for name in &provider.space_delimited_claims {
                if let Some(Value::String(words)) = claims.get(&**name) {
                    let words: Vec<Value> = words.split_ascii_whitespace().map(Value::from).collect();
                    claims.insert(name.to_string(), Value::Array(words));
                }
            }
            metadata.insert(provider.payload_in_metadata.to_string(), Value::Object(claims));
        }
    }
}

fn remove_token(parts: &mut Parts, place: &Place) {
    match place {
        Place::Header(name) => {
            parts.headers.remove(name);
        }
        Place::Parameter(name) => {
            let Some(target) = parts.uri.path_and_query() else { return };
            let kept: Vec<&str> = target
                .query()
                .unwrap_or_default()
                .split('&')
                .filter(|pair| pair.split_once('=').map_or(*pair, |(key, _)| key) != &**name)
                .collect();
            let new = if kept.is_empty() {
                target.path().to_owned()
            } else {
                format!("{}?{}", target.path(), kept.join("&"))
            };
            if let Ok(new) = PathAndQuery::try_from(new) {
                parts.uri = Uri::from(new);
            }
        }
        // Envoy leaves cookies alone.
        Place::Cookie => {}
    }
}

#[cfg(test)]
pub(crate) mod tests;
