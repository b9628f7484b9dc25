//! Service-account tokens: ES256 JWTs, signed and verified with one key, bound to what still has to exist.

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::User;
use crate::{
    api::Api,
    config::Error,
    error::{ApiError, ApiResult},
    object::{self, items, text},
};

/// What precedes the 64 bytes of a public P-256 point inside a PKCS#8 private key.
const POINT_HEAD: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];
const URL: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The key pair of service-account tokens.
pub(crate) struct ServiceAccountKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    issuer: String,
    key_id: String,
    x: String,
    y: String,
}

/// A token's owner and the audiences it is good for.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) user: User,
    pub(crate) audiences: Vec<String>,
}

/// What a new token says.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a Value,
    pub(crate) audiences: Vec<String>,
    pub(crate) seconds: i64,
    /// `pod`, `secret` or `node` objects the token dies with: kind, object.
    pub(crate) bound: Vec<(&'static str, Value)>,
}

// === impl ServiceAccountKeys ===

impl ServiceAccountKeys {
    pub(crate) fn new(private_pem: &str, issuer: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::ServiceAccountKey(why.to_owned());
        let encoding =
            EncodingKey::from_ec_pem(private_pem.as_bytes()).map_err(|error| invalid(&error.to_string()))?;
        let body: String = private_pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64::engine::general_purpose::STANDARD
            .decode(body.trim())
            .map_err(|error| invalid(&error.to_string()))?;
        let at = der.windows(POINT_HEAD.len()).position(|window| window == POINT_HEAD);
        let point = at.and_then(|at| der.get(at + POINT_HEAD.len()..at + POINT_HEAD.len() + 65));
        let Some([0x04, coordinates @ ..]) = point else {
            return Err(invalid("it does not contain its public key"));
        };
        let (x, y) = (URL.encode(&coordinates[..32]), URL.encode(&coordinates[32..]));
        let decoding =
            DecodingKey::from_ec_components(&x, &y).map_err(|error| invalid(&error.to_string()))?;
        let key_id = URL.encode(Sha256::digest(coordinates));
        Ok(Self { encoding, decoding, issuer: issuer.to_owned(), key_id, x, y })
    }

    /// The audience of the API itself.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The OpenID discovery document.
    pub(crate) fn discovery(&self) -> Value {
        json!({"issuer": self.issuer, "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"]})
    }

    /// The public key as a JWK set.
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": self.x, "y": self.y}]})
    }

    /// Signs a token; returns it with its expiry.
    pub(crate) fn sign(&self, grant: &Grant<'_>) -> ApiResult<(String, jiff::Timestamp)> {
        let now = jiff::Timestamp::now().as_second();
        let expires = now + grant.seconds;
        let name = object::name(grant.account);
        let mut bound = json!({"namespace": grant.namespace,
            "serviceaccount": {"name": name, "uid": object::uid(grant.account)}});
        for (kind, owner) in &grant.bound {
            bound[*kind] = json!({"name": object::name(owner), "uid": object::uid(owner)});
        }
        let claims = json!({"iss": self.issuer, "sub": format!("system:serviceaccount:{}:{name}", grant.namespace),
            "aud": grant.audiences, "iat": now, "nbf": now, "exp": expires,
            "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": bound});
        let header = Header { alg: Algorithm::ES256, kid: Some(self.key_id.clone()), ..Header::default() };
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding)
            .map_err(|error| ApiError::internal(format!("signing a token: {error}")))?;
        Ok((token, jiff::Timestamp::from_second(expires).unwrap_or_default()))
    }

    fn claims(&self, token: &str) -> Result<Value, String> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 10;
        let data = jsonwebtoken::decode::<Value>(token, &self.decoding, &validation);
        data.map(|data| data.claims).map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for ServiceAccountKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccountKeys").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Verifies a token for one of `wanted` audiences (the API's own when empty), and that all it is bound to exists.
///
/// # Errors
/// Why not, for a log or a TokenReview.
pub(crate) fn authenticate(api: &Api, token: &str, wanted: &[String]) -> Result<Authenticated, String> {
    let claims = api.keys.claims(token)?;
    let own = [api.keys.issuer().to_owned()];
    let wanted = if wanted.is_empty() { &own } else { wanted };
    let audiences: Vec<String> = match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let audiences: Vec<String> = audiences.into_iter().filter(|a| wanted.contains(a)).collect();
    if audiences.is_empty() {
        return Err("token audiences do not fit".to_owned());
    }
    let bound = &claims["kubernetes.io"];
    let (namespace, name) = (text(bound, "/namespace"), text(bound, "/serviceaccount/name"));
    must_live(api, "serviceaccounts", namespace, &bound["serviceaccount"])?;
    let mut extra = vec![credential(&claims)];
    for (key, resource) in [("pod", "pods"), ("secret", "secrets"), ("node", "nodes")] {
        let Some(owner) = bound.get(key) else { continue };
        let scope = if key == "node" { "" } else { namespace };
        // A node that is gone does not end a token of a pod that is still there.
        if key != "node" || bound.get("pod").is_none() {
            must_live(api, resource, scope, owner)?;
        }
        if key != "secret" {
            extra.push((
                format!("authentication.kubernetes.io/{key}-name"),
                vec![text(owner, "/name").to_owned()],
            ));
            extra.push((
                format!("authentication.kubernetes.io/{key}-uid"),
                vec![text(owner, "/uid").to_owned()],
            ));
        }
    }
    let user = User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: text(bound, "/serviceaccount/uid").to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        extra,
    };
    Ok(Authenticated { user, audiences })
}

fn credential(claims: &Value) -> (String, Vec<String>) {
    ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={}", text(claims, "/jti"))])
}

fn must_live(api: &Api, resource: &str, namespace: &str, reference: &Value) -> Result<(), String> {
    let (name, uid) = (text(reference, "/name"), text(reference, "/uid"));
    let found = lookup(api, resource, namespace, name);
    match found {
        Some(object) if object::uid(&object) == uid => Ok(()),
        _ => Err(format!("{resource} {namespace}/{name} of the token is gone")),
    }
}

/// A core object, now.
pub(crate) fn lookup(api: &Api, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    let kind = api.kinds.get("", "v1", resource)?;
    let kv = api.store.get(&kind.key(namespace, name)).0?;
    object::decode(&kv).ok()
}

/// Audiences of a request, or the API's own.
pub(crate) fn audiences(api: &Api, spec: &Value) -> Vec<String> {
    let list: Vec<String> =
        items(spec, "/audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if list.is_empty() { vec![api.keys.issuer().to_owned()] } else { list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_verified_by_the_key_that_signed() {
        let (private, _) = base_tls::generate_key_pem().unwrap();
        let keys = ServiceAccountKeys::new(&private, "https://kubernetes.default.svc").unwrap();
        let account = json!({"metadata": {"name": "web", "uid": "u1"}});
        let grant = Grant {
            namespace: "default",
            account: &account,
            audiences: vec!["a".to_owned()],
            seconds: 600,
            bound: vec![],
        };
        let (token, _) = keys.sign(&grant).unwrap();
        assert_eq!(keys.claims(&token).unwrap()["sub"], "system:serviceaccount:default:web");
        let (other, _) = base_tls::generate_key_pem().unwrap();
        let other = ServiceAccountKeys::new(&other, "https://kubernetes.default.svc").unwrap();
        assert!(other.claims(&token).is_err());
        let old = Grant { seconds: -60, ..grant };
        assert!(keys.claims(&keys.sign(&old).unwrap().0).is_err());
    }
}
