use std::time::Duration;

use http::Request;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use sidecar_model::RouteMatch;
use sidecar_model::jwt::{ClaimHeader, JwtRule};

use super::*;

/// A P-256 key made for these tests, PKCS#8 without its armour, and its public half.
fn key() -> (EncodingKey, Value) {
    let (pem, _) = base_tls::generate_key_pem().unwrap();
    let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = json!("one");
    (key, jwk)
}

fn provider(jwks: Value) -> JwtProvider {
    JwtProvider {
        issuer: "issuer@test".into(),
        audiences: vec!["reviews".into()],
        subjects: None,
        jwks: JwksSource::Inline(json!({ "keys": [jwks] }).to_string().into()),
        forward: false,
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        forward_payload_header: None,
        claim_to_headers: vec![ClaimHeader {
            header: HeaderName::from_static("x-user"),
            claim: "user.name".into(),
        }],
        payload_in_metadata: "payload".into(),
        clock_skew: Duration::from_secs(60),
    }
}

fn plan(provider: JwtProvider, optional: bool) -> JwtPlan {
    let named = JwtRequirement::Provider { name: "p".into(), audiences: Vec::new() };
    let mut any = vec![named];
    if optional {
        any.push(JwtRequirement::AllowMissing);
    }
    let matches = RouteMatch {
        path: sidecar_model::PathMatch::Prefix("/".into()),
        case_sensitive: true,
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
        metadata: Vec::new(),
        fraction: None,
    };
    JwtPlan::new(Arc::new(JwtAuthn {
        providers: [("p".into(), Arc::new(provider))].into(),
        rules: vec![JwtRule { matches, requirement: JwtRequirement::Any(any) }],
        requirements: BTreeMap::new(),
        bypass_cors_preflight: true,
    }))
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn claims() -> Value {
    json!({ "iss": "issuer@test", "sub": "me", "aud": "reviews", "exp": 1_700_000_300, "scope": "read write", "user": { "name": "jason" } })
}

fn ask(plan: &JwtPlan, uri: &str, authorization: Option<&str>) -> (Result<Option<Metadata>, Refusal>, Parts) {
    let mut request = Request::builder().uri(uri).header("x-user", "forged");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let mut parts = request.body(()).unwrap().into_parts().0;
    let rule = |_: &Parts| Some(plan.config.rules[0].requirement.clone());
    let judged = plan.judge(&mut parts, &rule, None, now());
    (judged, parts)
}

fn token(key: &EncodingKey, header: &Header, claims: &Value) -> String {
    format!("Bearer {}", encode(header, claims, key).unwrap())
}

#[test]
fn a_genuine_token_is_believed_and_taken_away() {
    let (key, jwk) = key();
    let plan = plan(provider(jwk), false);
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::ES256) };
    let (judged, parts) = ask(&plan, "/x", Some(&token(&key, &header, &claims())));
    let metadata = judged.unwrap().unwrap();
    assert_eq!(metadata.find(METADATA, ["payload", "sub"]), Some(&json!("me")));
    assert_eq!(metadata.find(METADATA, ["payload", "scope"]), Some(&json!(["read", "write"])));
    assert_eq!(parts.headers["x-user"], "jason");
    assert!(!parts.headers.contains_key("authorization"));
    let bare = token(&key, &header, &claims()).replace("Bearer ", "");
    let (judged, parts) = ask(&plan, &format!("/x?a=1&access_token={bare}&b=2"), None);
    assert!(judged.unwrap().is_some());
    assert_eq!(parts.uri.to_string(), "/x?a=1&b=2");
}

#[test]
fn forged_tokens_are_refused() {
    let (genuine, jwk) = key();
    let (foreign, foreign_jwk) = key();
    let plan = plan(provider(jwk.clone()), true);
    let es256 = Header::new(Algorithm::ES256);
    let changed = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    let embedded = Header { jwk: serde_json::from_value(foreign_jwk).ok(), ..es256.clone() };
    let other_id = Header { kid: Some("two".into()), ..es256.clone() };
    let secret = EncodingKey::from_secret(jwk.to_string().as_bytes());
    let good = token(&genuine, &es256, &claims());
    let [head, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let none = "Bearer eyJhbGciOiJub25lIn0";
    for (name, token, want) in [
        ("another key", token(&foreign, &es256, &claims()), Refusal::Signature),
        ("a key in the header", token(&foreign, &embedded, &claims()), Refusal::Signature),
        ("an unknown key id", token(&genuine, &other_id, &claims()), Refusal::NoKey),
        (
            "the public key as a secret",
            token(&secret, &Header::new(Algorithm::HS256), &claims()),
            Refusal::NoKey,
        ),
        ("no algorithm", format!("{none}.{payload}."), Refusal::Form),
        ("no signature", format!("{head}.{payload}."), Refusal::Signature),
        ("a cut signature", format!("{head}.{payload}.{}", &signature[..20]), Refusal::Signature),
        ("two parts", format!("{head}.{payload}"), Refusal::Form),
        ("garbage", "Bearer garbage".to_owned(), Refusal::Form),
        ("an empty token", "Bearer ".to_owned(), Refusal::Form),
        ("another issuer", token(&genuine, &es256, &changed("iss", json!("other"))), Refusal::Issuer),
        ("a late token", token(&genuine, &es256, &changed("exp", json!(1_699_999_900))), Refusal::Expired),
        (
            "an end that is no number",
            token(&genuine, &es256, &changed("exp", json!("never"))),
            Refusal::Expired,
        ),
        ("an early token", token(&genuine, &es256, &changed("nbf", json!(1_700_000_100))), Refusal::NotYet),
        ("another audience", token(&genuine, &es256, &changed("aud", json!(["x", "y"]))), Refusal::Audience),
        ("no audience", token(&genuine, &es256, &changed("aud", Value::Null)), Refusal::Audience),
    ] {
        let (judged, parts) = ask(&plan, "/x", Some(&token));
        assert_eq!(judged, Err(want), "{name}");
        assert!(!parts.headers.contains_key("x-user"), "{name}: a forged header stays");
    }
    let within_skew = token(&genuine, &es256, &changed("exp", json!(1_699_999_950)));
    assert!(ask(&plan, "/x", Some(&within_skew)).0.is_ok());
}

#[test]
fn a_missing_token_passes_only_where_that_is_allowed() {
    let (_, jwk) = key();
    assert_eq!(ask(&plan(provider(jwk.clone()), true), "/x", None).0, Ok(None));
    assert_eq!(ask(&plan(provider(jwk), false), "/x", None).0, Err(Refusal::Missing));
}

#[test]
fn without_keys_nothing_is_believed() {
    let (genuine, _) = key();
    let remote = JwksSource::Remote {
        uri: "http://k/".into(),
        cluster: "c".into(),
        timeout: Duration::ZERO,
        cache: Duration::ZERO,
    };
    for jwks in [remote, JwksSource::Inline("{\"keys\":[]}".into()), JwksSource::Inline("nonsense".into())] {
        let plan = plan(JwtProvider { jwks, ..provider(json!({})) }, true);
        let token = token(&genuine, &Header::new(Algorithm::ES256), &claims());
        assert_eq!(ask(&plan, "/x", Some(&token)).0, Err(Refusal::NoKey));
        assert_eq!(ask(&plan, "/x", None).0, Ok(None));
    }
}
