//! JSON web tokens (RFC 7519, 7515, 7517; Envoy's `jwt_authn`): judged fail-closed, with asymmetric algorithms only.
//!
//! Pure but for the clock, which is passed in. Keys that would have to be fetched are not: tokens of such issuers are refused, requests
//! without a token are judged as configured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use sidecar_model::jwt::{JwksSource, JwtProvider, JwtRequirement, JwtRequirementChoice};
use sidecar_model::{JwtAuthn, Metadata};
use sidecar_route::{RequestView, route_matches};

/// Namespace of the claims in a request's metadata.
const METADATA: &str = "envoy.filters.http.jwt_authn";
/// Longer tokens are not looked at.
const TOKEN_MAX: usize = 16 * 1024;
/// Claims whose text is a list of words.
const SPACED: [&str; 2] = ["scope", "permission"];

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no token.
    Missing,
    /// The token is not three parts of base64 and JSON.
    Form,
    /// No key fits the token.
    NoKey,
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
    /// Envoy's words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::Form => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Self::NoKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::Signature => "Jwt verification fails",
            Self::Issuer => "Jwt issuer is not configured",
            Self::Expired => "Jwt is expired",
            Self::NotYet => "Jwt not yet valid",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Subject => "Subject in Jwt is not allowed",
        }
    }
}

/// The keys of a filter's providers, parsed once.
#[derive(Debug)]
pub struct JwtPlan {
    config: Arc<JwtAuthn>,
    keys: BTreeMap<Arc<str>, Vec<Key>>,
}

struct Key {
    id: Option<String>,
    family: AlgorithmFamily,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
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

impl JwtPlan {
    /// Parses the keys. A set that cannot be read is empty: its issuer's tokens are refused.
    pub(crate) fn new(config: Arc<JwtAuthn>) -> Self {
        let keys = config
            .providers
            .iter()
            .map(|(name, provider)| (Arc::clone(name), keys(&provider.jwks)))
            .collect();
        Self { config, keys }
    }

    /// Judges a request; what is believed changes its headers and is returned as metadata.
    pub(crate) fn judge(
        &self,
        parts: &mut Parts,
        view: &dyn Fn(&Parts) -> Option<JwtRequirement>,
        choice: Option<&JwtRequirementChoice>,
        now: SystemTime,
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
        now: SystemTime,
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
                    match self.satisfy(one, parts, now, verified) {
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

    fn provider<'a>(
        &'a self,
        name: &str,
        audiences: &[Box<str>],
        parts: &Parts,
        now: SystemTime,
    ) -> Result<Verified<'a>, Refusal> {
        let provider = self.config.providers.get(name).ok_or(Refusal::Issuer)?;
        let keys = self.keys.get(name).map_or(&[][..], |keys| keys);
        let audiences = if audiences.is_empty() { &provider.audiences } else { audiences };
        let mut refusal = Refusal::Missing;
        for (place, token) in tokens(provider, parts) {
            match verify(provider, keys, audiences, &token, now) {
                Ok(claims) => {
                    let payload = token.split('.').nth(1).unwrap_or_default().to_owned();
                    return Ok(Verified { provider, place, payload, claims });
                }
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }
}

fn keys(source: &JwksSource) -> Vec<Key> {
    let JwksSource::Inline(text) = source else { return Vec::new() };
    let Ok(set) = serde_json::from_str::<JwkSet>(text) else {
        tracing::warn!("A key set cannot be read: its issuer's tokens are refused");
        return Vec::new();
    };
    let one = |jwk: &jsonwebtoken::jwk::Jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let family = key.family();
        // A shared secret in a public key set is a mistake or an attack.
        (family != AlgorithmFamily::Hmac).then(|| Key { id: jwk.common.key_id.clone(), family, key })
    };
    set.keys.iter().filter_map(one).collect()
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

/// The claims of a token that is genuine, in time, and meant for us.
fn verify(
    provider: &JwtProvider,
    keys: &[Key],
    audiences: &[Box<str>],
    token: &str,
    now: SystemTime,
) -> Result<Map<String, Value>, Refusal> {
    if token.len() > TOKEN_MAX || token.split('.').count() != 3 {
        return Err(Refusal::Form);
    }
    let header = decode_header(token).map_err(|_| Refusal::Form)?;
    let fitting = keys.iter().filter(|key| {
        key.family.algorithms().contains(&header.alg)
            && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
    });
    let mut refusal = Refusal::NoKey;
    for key in fitting {
        let mut validation = Validation::new(header.alg);
        // The signature alone is checked here: times and names are ours, with the clock that was passed in.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(data) => return judge_claims(provider, audiences, data.claims, now),
            Err(_) => refusal = Refusal::Signature,
        }
    }
    // Whose token it is decides what is said; nothing of it is believed.
    match jsonwebtoken::dangerous::insecure_decode_claims::<Map<String, Value>>(token) {
        Ok(claims) if !issued_by(provider, &claims) => Err(Refusal::Issuer),
        _ => Err(refusal),
    }
}

fn issued_by(provider: &JwtProvider, claims: &Map<String, Value>) -> bool {
    provider.issuer.is_empty() || claims.get("iss").and_then(Value::as_str) == Some(&*provider.issuer)
}

fn judge_claims(
    provider: &JwtProvider,
    audiences: &[Box<str>],
    claims: Map<String, Value>,
    now: SystemTime,
) -> Result<Map<String, Value>, Refusal> {
    if !issued_by(provider, &claims) {
        return Err(Refusal::Issuer);
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let skew = provider.clock_skew.as_secs_f64();
    let time = |name: &str, refusal| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(refusal),
    };
    if time("exp", Refusal::Expired)?.is_some_and(|end| now > end + skew) {
        return Err(Refusal::Expired);
    }
    if time("nbf", Refusal::NotYet)?.is_some_and(|start| now + skew < start) {
        return Err(Refusal::NotYet);
    }
    let ours = |value: &Value| {
        value.as_str().is_some_and(|text| audiences.iter().any(|audience| same_audience(audience, text)))
    };
    let meant = match claims.get("aud") {
        _ if audiences.is_empty() => true,
        Some(Value::Array(all)) => all.iter().any(ours),
        Some(one) => ours(one),
        None => false,
    };
    if !meant {
        return Err(Refusal::Audience);
    }
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if provider.subjects.as_ref().is_some_and(|allowed| !allowed.is_match(subject)) {
        return Err(Refusal::Subject);
    }
    Ok(claims)
}

/// Audiences that are URLs are the same with and without scheme and trailing slash, as Envoy has it.
fn same_audience(ours: &str, theirs: &str) -> bool {
    let bare = |text: &str| {
        let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        text.strip_suffix('/').unwrap_or(text).to_owned()
    };
    bare(ours) == bare(theirs)
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
                _ => continue,
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
            for name in SPACED {
                if let Some(Value::String(words)) = claims.get(name) {
                    let words: Vec<Value> = words.split_ascii_whitespace().map(Value::from).collect();
                    claims.insert(name.to_owned(), Value::Array(words));
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
mod tests;
