//! Tokens, genuine and forged, made from scratch: what a library refuses to sign must be made too.

use std::sync::LazyLock;
use std::time::SystemTime;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Seconds since 1970 at which the tokens are good: when the tests began.
pub(crate) static NOW: LazyLock<u64> =
    LazyLock::new(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());

/// A private key.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

/// A forged token: what was forged, and the token.
pub(crate) type Forged = (String, String);

impl Signer {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn ec(curve: &'static str) -> Self {
        let algorithm = match curve {
            "P-256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        Self::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve)
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signed).unwrap();
                signed
            }
            Self::Ec(key, _) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The public half.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key) => json!({
                "kty": "RSA", "kid": id, "use": "sig",
                "n": b64(key.public_key().modulus().big_endian_without_leading_zero()),
                "e": b64(key.public_key().exponent().big_endian_without_leading_zero()),
            }),
            Self::Ec(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": curve, "kid": id, "x": b64(x), "y": b64(y) })
            }
            Self::Ed(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": b64(key.public_key().as_ref()) })
            }
        }
    }

    /// The public half as the bytes that a careless verifier would take for a secret.
    fn public_bytes(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Rsa(key) => {
                let der = key.public_key().as_der().unwrap().as_ref().to_vec();
                let pem = format!(
                    "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                    STANDARD.encode(&der)
                );
                vec![
                    der,
                    pem.into_bytes(),
                    key.public_key().modulus().big_endian_without_leading_zero().to_vec(),
                ]
            }
            Self::Ec(key, _) => {
                vec![key.public_key().as_ref().to_vec(), key.public_key().as_ref()[1..].to_vec()]
            }
            Self::Ed(key) => vec![key.public_key().as_ref().to_vec()],
        }
    }
}

pub(crate) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The claims that are believed.
pub(crate) fn claims() -> Value {
    json!({ "iss": "issuer@test", "sub": "me", "aud": "reviews", "exp": *NOW + 300, "scope": "read write", "user": { "name": "jason" } })
}

/// A token over any two texts.
pub(crate) fn raw(header: &str, payload: &str, algorithm: &str, signer: &Signer) -> String {
    let signed = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
    let signature = b64(&signer.sign(algorithm, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A genuine token.
pub(crate) fn token(header: &Value, claims: &Value, signer: &Signer) -> String {
    raw(&header.to_string(), &claims.to_string(), header["alg"].as_str().unwrap_or(""), signer)
}

fn hs(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let algorithm = match header["alg"].as_str() {
        Some("HS384") => hmac::HMAC_SHA384,
        Some("HS512") => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let signed = format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
    format!("{signed}.{}", b64(tag.as_ref()))
}

/// Tokens that prove nothing, from the key `own` (of key id `id`) and one of a stranger, for an algorithm.
pub(crate) fn forged(algorithm: &str, id: &str, own: &Signer, stranger: &Signer) -> Vec<Forged> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, token: String| all.push((format!("{algorithm}: {what}"), token));
    let header = json!({ "alg": algorithm, "kid": id, "typ": "JWT" });
    let with = |name: &str, value: Value| {
        let mut changed = header.clone();
        changed[name] = value;
        changed
    };
    let claim = |name: &str, value: Value| {
        let mut changed = claims();
        changed[name] = value;
        changed
    };
    let without = |name: &str| {
        let mut changed = claims();
        changed.as_object_mut().unwrap().remove(name);
        changed
    };
    let admin = claim("sub", json!("admin"));
    unsigned(&header, &admin, &mut add);
    for (index, secret) in
        own.public_bytes().iter().chain([&own.jwk(id).to_string().into_bytes()]).enumerate()
    {
        for name in ["HS256", "HS384", "HS512"] {
            add(
                &format!("{name} with the public key {index}"),
                hs(&with("alg", json!(name)), &admin, secret),
            );
        }
    }
    add("HS256 with an empty secret", hs(&json!({ "alg": "HS256", "kid": "/dev/null" }), &admin, b""));
    add("HS256 with the key id", hs(&json!({ "alg": "HS256", "kid": id }), &admin, id.as_bytes()));
    add("a stranger's key", token(&header, &admin, stranger));
    let mut nameless = header.clone();
    nameless.as_object_mut().unwrap().remove("kid");
    add("a stranger's key without an id", token(&nameless, &admin, stranger));
    for (name, value) in [
        ("jwk", stranger.jwk(id)),
        ("jku", json!("http://127.0.0.1:1/keys")),
        ("x5u", json!("http://127.0.0.1:1/chain.pem")),
        ("x5c", json!([STANDARD.encode(&stranger.public_bytes()[0])])),
        ("x5t", json!(b64(digest::digest(&digest::SHA256, b"x").as_ref()))),
    ] {
        add(&format!("a key by {name}"), token(&with(name, value), &admin, stranger));
    }
    for kid in ["../../../../dev/null", "' OR 1=1 --", "other", "", "|id", "\u{0}"] {
        add(&format!("key id {kid:?}"), token(&with("kid", json!(kid)), &admin, stranger));
    }
    for kid in [json!(1), json!([id]), json!({ "kid": id }), json!(null)] {
        add(&format!("key id {kid}"), token(&with("kid", kid), &claims(), own));
    }
    for (what, changed) in [
        ("expired", claim("exp", json!(*NOW - 61))),
        ("expired long ago", claim("exp", json!(1))),
        ("expired before there was time", claim("exp", json!(-1.0e300))),
        ("an end that is a text", claim("exp", json!((*NOW + 300).to_string()))),
        ("an end that is null", claim("exp", Value::Null)),
        ("an end that is a list", claim("exp", json!([*NOW + 300]))),
        ("not yet", claim("nbf", json!(*NOW + 3600))),
        ("a beginning that is a text", claim("nbf", json!("0"))),
        ("another issuer", claim("iss", json!("issuer@tes"))),
        ("an issuer with more", claim("iss", json!("issuer@test\u{0}"))),
        ("an issuer list", claim("iss", json!(["issuer@test"]))),
        ("no issuer", without("iss")),
        ("another audience", claim("aud", json!("details"))),
        ("other audiences", claim("aud", json!(["details", "reviews "]))),
        ("an audience object", claim("aud", json!({ "reviews": true }))),
        ("no audience", without("aud")),
    ] {
        add(what, token(&header, &changed, own));
    }
    for (name, value) in [("crit", json!(["exp"])), ("crit", json!([])), ("crit", json!(["b64"]))] {
        add(&format!("critical {value}"), token(&with(name, value), &claims(), own));
    }
    texts(algorithm, id, own, &mut add);
    let good = token(&header, &claims(), own);
    signatures(&good, algorithm, &header, own, &mut add);
    shapes(&good, &mut add);
    all
}

fn unsigned(header: &Value, claims: &Value, add: &mut impl FnMut(&str, String)) {
    for name in ["none", "None", "NONE", "nOnE", "", "null", "HS256\u{0}"] {
        let mut bare = header.clone();
        bare["alg"] = json!(name);
        let signed = format!("{}.{}", b64(bare.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
        add(&format!("alg {name:?}"), format!("{signed}."));
        add(&format!("alg {name:?} and a signature"), format!("{signed}.AAAA"));
    }
    for value in [json!(null), json!(0), json!(["none"])] {
        let mut bare = header.clone();
        bare["alg"] = value.clone();
        let signed = format!("{}.{}", b64(bare.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
        add(&format!("alg {value}"), format!("{signed}."));
    }
}

/// Genuinely signed, and yet not to be believed: two readers could read two things.
fn texts(algorithm: &str, id: &str, own: &Signer, add: &mut impl FnMut(&str, String)) {
    let header = format!(r#"{{"alg":"{algorithm}","kid":"{id}"}}"#);
    let good = claims().to_string();
    let inner = &good[1..];
    for (what, header, payload) in [
        ("two issuers", header.clone(), format!(r#"{{"iss":"someone@else",{inner}"#)),
        ("two ends", header.clone(), format!(r#"{{"exp":1,{inner}"#)),
        ("two names inside", header.clone(), format!(r#"{{"deep":{{"a":1,"a":2}},{inner}"#)),
        ("two algorithms", format!(r#"{{"alg":"none","alg":"{algorithm}","kid":"{id}"}}"#), good.clone()),
        ("a payload list", header.clone(), format!("[{good}]")),
        ("a payload text", header.clone(), json!(good).to_string()),
        ("an empty payload", header.clone(), String::new()),
        ("two payloads", header.clone(), format!("{good}{good}")),
        ("a payload cut off", header.clone(), good[..good.len() - 1].to_owned()),
        ("a header list", format!("[{header}]"), good.clone()),
        ("an empty header", String::new(), good.clone()),
        ("a header that is no JSON", "alg=none".to_owned(), good.clone()),
        ("a deep payload", header.clone(), format!("{}{}", "[".repeat(5000), "]".repeat(5000))),
        ("a huge token", header.clone(), format!(r#"{{"pad":"{}",{inner}"#, "x".repeat(20_000))),
    ] {
        add(what, raw(&header, &payload, algorithm, own));
    }
}

fn signatures(good: &str, algorithm: &str, header: &Value, own: &Signer, add: &mut impl FnMut(&str, String)) {
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut changed = |what: &str, bytes: &[u8]| add(what, format!("{signed}.{}", b64(bytes)));
    changed("no signature", &[]);
    changed("half a signature", &signature[..signature.len() / 2]);
    changed("a signature cut short", &signature[..signature.len() - 1]);
    changed("a signature with a byte more", &[&signature[..], &[0]].concat());
    changed("a signature with a byte before", &[&[0], &signature[..]].concat());
    changed("twice the signature", &[&signature[..], &signature[..]].concat());
    changed("a signature of nothing", &vec![0; signature.len()]);
    changed("a signature of ones", &vec![0xff; signature.len()]);
    for at in [0, signature.len() / 2, signature.len() - 1] {
        let mut flipped = signature.clone();
        flipped[at] ^= 1;
        changed(&format!("bit {at} of the signature turned"), &flipped);
    }
    if let Signer::Ec(_, curve) = own {
        let half = signature.len() / 2;
        changed("halves exchanged", &[&signature[half..], &signature[..half]].concat());
        changed("DER instead of two numbers", &der(&signature));
        let order = match *curve {
            "P-256" => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
            "P-384" => {
                "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973"
            }
            _ => {
                "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409"
            }
        };
        let order: Vec<u8> = (0..order.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&order[at..at + 2], 16).unwrap())
            .collect();
        changed("both numbers the order", &[&order[..], &order[..]].concat());
        changed("the first number zero", &[&vec![0; half][..], &signature[half..]].concat());
    }
    let (head, payload) = signed.split_once('.').unwrap();
    let tail = b64(&signature);
    let admin = b64(good_claims_as_admin().as_bytes());
    add("another payload", format!("{head}.{admin}.{tail}"));
    let mut other = header.clone();
    other["typ"] = json!("at+jwt");
    add("another header", format!("{}.{payload}.{tail}", b64(other.to_string().as_bytes())));
    for name in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "ES256K"]
    {
        if name != algorithm {
            let mut other = header.clone();
            other["alg"] = json!(name);
            let signed = format!("{}.{payload}", b64(other.to_string().as_bytes()));
            let signature = b64(&own.sign(algorithm, signed.as_bytes()));
            add(&format!("signed so but called {name}"), format!("{signed}.{signature}"));
        }
    }
}

fn good_claims_as_admin() -> String {
    let mut changed = claims();
    changed["sub"] = json!("admin");
    changed.to_string()
}

fn der(signature: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
        let mut number = bytes[start..].to_vec();
        if number[0] & 0x80 != 0 {
            number.insert(0, 0);
        }
        [&[2, u8::try_from(number.len()).unwrap()], &number[..]].concat()
    };
    let (r, s) = signature.split_at(signature.len() / 2);
    let both = [integer(r), integer(s)].concat();
    let length = u8::try_from(both.len()).unwrap();
    if length < 0x80 {
        [&[0x30, length], &both[..]].concat()
    } else {
        [&[0x30, 0x81, length], &both[..]].concat()
    }
}

/// The same bytes in another dress.
fn shapes(good: &str, add: &mut impl FnMut(&str, String)) {
    let parts: Vec<&str> = good.split('.').collect();
    let [head, payload, signature] = parts[..] else { panic!("{good}") };
    let padded: Vec<String> =
        parts.iter().map(|part| URL_SAFE.encode(URL_SAFE_NO_PAD.decode(part).unwrap())).collect();
    if padded.iter().any(|part| part.ends_with('=')) {
        add("padding", padded.join("."));
    }
    add("two parts", format!("{head}.{payload}"));
    add("one part", head.to_owned());
    add("four parts", format!("{good}.AAAA"));
    add("five parts", format!("{head}.{payload}.{signature}.{payload}.{signature}"));
    add("a dot more", format!("{good}."));
    add("a dot before", format!(".{good}"));
    add("no payload", format!("{head}..{signature}"));
    add("no header", format!(".{payload}.{signature}"));
    add("only dots", "..".to_owned());
    add("a blank inside", format!("{head}. {payload}.{signature}"));
    add("a percent inside", format!("{head}.%41{payload}.{signature}"));
    add("a quote around", format!("\"{good}\""));
    add("JSON form", json!({ "protected": head, "payload": payload, "signature": signature }).to_string());
    add("garbage", "garbage".to_owned());
    add("long garbage", format!("{}.{}.{}", "A".repeat(9000), "A".repeat(9000), "A".repeat(9000)));
}
