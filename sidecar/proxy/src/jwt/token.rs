//! One token: its form, its claims and its signature. Everything about it is doubted until the signature is verified.

use base_tls::signature::SignatureAlgorithm;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sidecar_model::jwt::JwtProvider;

use super::Refusal;
use super::json::object;
use super::keys::Key;

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A token as it was written.
pub(super) struct Token<'a> {
    /// Header and payload, as they are signed.
    signed: &'a str,
    /// The payload in base64url.
    pub(super) payload: &'a str,
    algorithm: SignatureAlgorithm,
    key_id: Option<String>,
    pub(super) claims: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(super) fn parse(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Form);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Refusal::Form)?;
        if payload.contains('.') {
            return Err(Refusal::Form);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Refusal::HeaderBase64)?;
        let header = object(&header).ok_or(Refusal::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Refusal::NoAlgorithm)?;
        let algorithm = SignatureAlgorithm::named(algorithm).ok_or(Refusal::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Refusal::KeyId),
        };
        // What must be understood and is not (RFC 7515, 4.1.11); an unencoded payload (RFC 7797) is one such thing.
        if header.contains_key("crit") {
            return Err(Refusal::Critical);
        }
        let claims = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Refusal::PayloadBase64)?;
        let claims = object(&claims).ok_or(Refusal::PayloadJson)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Refusal::SignatureBase64)?;
        Ok(Self { signed, payload, algorithm, key_id, claims, signature })
    }

    /// Whether one of the keys signed it.
    pub(super) fn verify(&self, keys: &[Key]) -> Result<(), Refusal> {
        let mut refusal = Refusal::NoKey;
        for key in keys.iter().filter(|key| key.fits(self.algorithm, self.key_id.as_deref())) {
            if key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature) {
                return Ok(());
            }
            refusal = Refusal::Signature;
        }
        Err(refusal)
    }

    pub(super) fn issued_by(&self, provider: &JwtProvider) -> bool {
        provider.issuer.is_empty()
            || self.claims.get("iss").and_then(Value::as_str) == Some(&*provider.issuer)
    }

    /// Whether the claims are in time and meant for us, `now` in seconds since 1970.
    pub(super) fn judge(
        &self,
        provider: &JwtProvider,
        audiences: &[Box<str>],
        now: f64,
    ) -> Result<(), Refusal> {
        if !self.issued_by(provider) {
            return Err(Refusal::Issuer);
        }
        let skew = provider.clock_skew.as_secs_f64();
        let time = |name: &str| match self.claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Refusal::Times),
        };
        if time("nbf")?.is_some_and(|start| now + skew < start) {
            return Err(Refusal::NotYet);
        }
        if time("exp")?.is_some_and(|end| now > end + skew) {
            return Err(Refusal::Expired);
        }
        let ours = |value: &Value| {
            value.as_str().is_some_and(|text| audiences.iter().any(|audience| same_audience(audience, text)))
        };
        let meant = match self.claims.get("aud") {
            _ if audiences.is_empty() => true,
            Some(Value::Array(all)) => all.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        if !meant {
            return Err(Refusal::Audience);
        }
        let subject = self.claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if provider.subjects.as_ref().is_some_and(|allowed| !allowed.is_match(subject)) {
            return Err(Refusal::Subject);
        }
        Ok(())
    }
}

/// Audiences that are URLs are the same with and without scheme and trailing slash, as Envoy has it.
fn same_audience(ours: &str, theirs: &str) -> bool {
    fn bare(text: &str) -> &str {
        let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        text.strip_suffix('/').unwrap_or(text)
    }
    bare(ours) == bare(theirs)
}
