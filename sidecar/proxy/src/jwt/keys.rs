//! JSON web key sets (RFC 7517): the public keys among them that verify signatures.

use base_tls::signature::{Curve, PublicKey, SignatureAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Keys of one set that are looked at.
const KEYS_MAX: usize = 256;

/// A key of an issuer.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    id: Option<Box<str>>,
    /// The only algorithm that the key may be used with, when the set says so.
    algorithm: Option<SignatureAlgorithm>,
    key: PublicKey,
}

/// The keys of a set; none when the text is no key set. Keys that verify no signature are passed over: a shared secret in a public set is
/// a mistake or an attack.
pub(crate) fn parse(text: &[u8]) -> Option<Vec<Key>> {
    let set = super::json::object(text)?;
    let keys = set.get("keys")?.as_array()?;
    Some(keys.iter().take(KEYS_MAX).filter_map(Key::from_jwk).collect())
}

impl Key {
    fn from_jwk(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let operations = jwk.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|all| !all.iter().any(|one| one.as_str() == Some("verify"))) {
            return None;
        }
        let key = match text("kty")? {
            "RSA" => PublicKey::rsa(&bytes("n")?, &bytes("e")?),
            "EC" => PublicKey::ec(Curve::named(text("crv")?)?, &bytes("x")?, &bytes("y")?)?,
            "OKP" if text("crv") == Some("Ed25519") => PublicKey::ed25519(&bytes("x")?)?,
            _ => return None,
        };
        let algorithm = match text("alg") {
            None => None,
            Some(name) => Some(SignatureAlgorithm::named(name).filter(|it| key.fits(*it))?),
        };
        Some(Self { id: text("kid").map(Into::into), algorithm, key })
    }

    /// Whether a token of that algorithm and key id may have been signed by this key.
    pub(super) fn fits(&self, algorithm: SignatureAlgorithm, id: Option<&str>) -> bool {
        self.key.fits(algorithm)
            && self.algorithm.is_none_or(|only| only == algorithm)
            && match (&self.id, id) {
                (Some(own), Some(wanted)) => **own == *wanted,
                _ => true,
            }
    }

    pub(super) fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        self.key.verifies(algorithm, message, signature)
    }
}
