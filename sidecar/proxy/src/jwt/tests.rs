use std::time::Duration;

use http::Request;
use serde_json::json;
use sidecar_model::RouteMatch;
use sidecar_model::jwt::{ClaimHeader, JwtHeader, JwtRule};

use super::*;
use crate::tests::forge::{NOW, Signer, claims, forged, token};

pub(crate) fn provider(jwks: JwksSource) -> JwtProvider {
    JwtProvider {
        issuer: "issuer@test".into(),
        audiences: vec!["reviews".into()],
        subjects: None,
        jwks,
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
        space_delimited_claims: vec!["scope".into()],
        clock_skew: Duration::from_secs(60),
    }
}

pub(crate) fn config(providers: Vec<JwtProvider>, optional: bool) -> JwtAuthn {
    let names: Vec<Arc<str>> = (0..providers.len()).map(|index| format!("p{index}").into()).collect();
    let mut any: Vec<JwtRequirement> = names
        .iter()
        .map(|name| JwtRequirement::Provider { name: Arc::clone(name), audiences: Vec::new() })
        .collect();
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
    JwtAuthn {
        providers: names.into_iter().zip(providers.into_iter().map(Arc::new)).collect(),
        rules: vec![JwtRule { matches, requirement: JwtRequirement::Any(any) }],
        requirements: BTreeMap::new(),
        bypass_cors_preflight: true,
    }
}

fn inline(keys: &[Value]) -> JwksSource {
    JwksSource::Inline(json!({ "keys": keys }).to_string().into())
}

fn plan(provider: JwtProvider, optional: bool) -> JwtPlan {
    JwtPlan::new(Arc::new(config(vec![provider], optional)), &mut JwksStore::default())
}

fn judge(plan: &JwtPlan, mut parts: Parts) -> (Result<Option<Metadata>, Refusal>, Parts) {
    let rule = |_: &Parts| Some(plan.config.rules[0].requirement.clone());
    let now = Now { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(*NOW), steady: Instant::now() };
    let judged = plan.judge(&mut parts, &rule, None, now);
    (judged, parts)
}

fn ask(plan: &JwtPlan, uri: &str, headers: &[(&str, &str)]) -> (Result<Option<Metadata>, Refusal>, Parts) {
    let mut request = Request::builder().uri(uri).header("x-user", "forged");
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    judge(plan, request.body(()).unwrap().into_parts().0)
}

/// A key of each type, with the algorithms it signs by.
fn signers() -> Vec<(Signer, &'static [&'static str])> {
    vec![
        (Signer::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (Signer::ec("P-256"), &["ES256"]),
        (Signer::ec("P-384"), &["ES384"]),
        (Signer::ec("P-521"), &["ES512"]),
        (Signer::ed(), &["EdDSA"]),
    ]
}

#[test]
fn a_genuine_token_of_every_kind_is_believed_and_taken_away() {
    let signers = signers();
    let keys: Vec<Value> =
        signers.iter().enumerate().map(|(index, (key, _))| key.jwk(&index.to_string())).collect();
    let plan = plan(provider(inline(&keys)), false);
    for (index, (key, algorithms)) in signers.iter().enumerate() {
        for algorithm in *algorithms {
            for header in [json!({ "alg": algorithm, "kid": index.to_string() }), json!({ "alg": algorithm })]
            {
                let good = token(&header, &claims(), key);
                let (judged, parts) = ask(&plan, "/x", &[("authorization", &format!("Bearer {good}"))]);
                let metadata = judged.unwrap_or_else(|refusal| panic!("{header}: {refusal:?}")).unwrap();
                assert_eq!(metadata.find(METADATA, ["payload", "sub"]), Some(&json!("me")));
                assert_eq!(metadata.find(METADATA, ["payload", "scope"]), Some(&json!(["read", "write"])));
                assert_eq!(parts.headers["x-user"], "jason");
                assert!(!parts.headers.contains_key("authorization"));
                let (judged, parts) = ask(&plan, &format!("/x?a=1&access_token={good}&b=2"), &[]);
                assert!(judged.unwrap().is_some());
                assert_eq!(parts.uri.to_string(), "/x?a=1&b=2");
            }
        }
    }
}

#[test]
fn forged_tokens_are_refused_whatever_they_are() {
    let signers = signers();
    let keys: Vec<Value> =
        signers.iter().enumerate().map(|(index, (key, _))| key.jwk(&index.to_string())).collect();
    let plan = plan(provider(inline(&keys)), true);
    let strangers = self::signers();
    let mut tried = 0;
    for (index, (key, algorithms)) in signers.iter().enumerate() {
        let id = index.to_string();
        for algorithm in *algorithms {
            let good = token(&json!({ "alg": algorithm, "kid": id }), &claims(), key);
            let good = format!("Bearer {good}");
            assert!(ask(&plan, "/x", &[("authorization", &good)]).0.is_ok());
            for (what, token) in forged(algorithm, &id, key, &strangers[index].0) {
                tried += 1;
                let bearer = format!("Bearer {token}");
                let (judged, parts) = ask(&plan, "/x", &[("authorization", &bearer)]);
                assert!(judged.is_err(), "{what} was believed: {token}");
                assert!(!parts.headers.contains_key("x-user"), "{what}: a forged header stays");
                // Beside a good one it is no better: the application might look at this one.
                let both = [("authorization", &*good), ("authorization", &bearer)];
                assert!(ask(&plan, "/x", &both).0.is_err(), "{what} was let through beside a good token");
            }
        }
    }
    assert!(tried >= 240, "{tried}");
}

#[test]
fn refusals_have_envoys_words() {
    let (own, stranger) = (Signer::ec("P-256"), Signer::ec("P-256"));
    let plan = plan(provider(inline(&[own.jwk("one")])), true);
    let es256 = json!({ "alg": "ES256", "kid": "one" });
    let changed = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    for (token, want) in [
        (token(&es256, &claims(), &stranger), "Jwt verification fails"),
        (
            token(&json!({ "alg": "ES256", "kid": "two" }), &claims(), &own),
            "Jwks doesn't have key to match kid or alg from Jwt",
        ),
        (token(&json!({ "alg": "HS256" }), &claims(), &own), "Jwt header [alg] is not supported"),
        (token(&es256, &changed("iss", json!("other")), &own), "Jwt issuer is not configured"),
        (token(&es256, &changed("exp", json!(*NOW - 61)), &own), "Jwt is expired"),
        (token(&es256, &changed("nbf", json!(*NOW + 61)), &own), "Jwt not yet valid"),
        (token(&es256, &changed("aud", json!(["x", "y"])), &own), "Audiences in Jwt are not allowed"),
        (
            "garbage".to_owned(),
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
    ] {
        let judged = ask(&plan, "/x", &[("authorization", &format!("Bearer {token}"))]).0;
        assert_eq!(judged.unwrap_err().text(), want);
    }
    for within_skew in [changed("exp", json!(*NOW - 59)), changed("nbf", json!(*NOW + 59))] {
        let token = format!("Bearer {}", token(&es256, &within_skew, &own));
        assert!(ask(&plan, "/x", &[("authorization", &token)]).0.is_ok());
    }
}

#[test]
fn keys_are_used_for_what_they_are_meant_for() {
    let key = Signer::rsa();
    let good = format!("Bearer {}", token(&json!({ "alg": "RS384", "kid": "one" }), &claims(), &key));
    for (name, value, believed) in [
        ("alg", json!("RS384"), true),
        ("alg", json!("RS256"), false),
        ("alg", json!("HS256"), false),
        ("use", json!("enc"), false),
        ("key_ops", json!(["encrypt"]), false),
        ("key_ops", json!(["verify"]), true),
        ("kid", json!("two"), false),
        ("kty", json!("oct"), false),
    ] {
        let mut jwk = key.jwk("one");
        jwk[name] = value.clone();
        let judged = ask(&plan(provider(inline(&[jwk])), false), "/x", &[("authorization", &good)]).0;
        assert_eq!(judged.is_ok(), believed, "{name}: {value}");
    }
}

#[test]
fn tokens_are_found_where_the_provider_says_and_nowhere_else() {
    let key = Signer::ed();
    let good = token(&json!({ "alg": "EdDSA" }), &claims(), &key);
    let places = JwtProvider {
        from_headers: vec![JwtHeader {
            name: HeaderName::from_static("x-token"),
            value_prefix: "jwt ".into(),
        }],
        from_params: vec!["t".into()],
        from_cookies: vec!["session".into()],
        forward: true,
        forward_payload_header: Some(HeaderName::from_static("x-payload")),
        claim_to_headers: vec![
            ClaimHeader { header: HeaderName::from_static("x-exp"), claim: "exp".into() },
            ClaimHeader { header: HeaderName::from_static("x-user"), claim: "user".into() },
        ],
        ..provider(inline(&[key.jwk("one")]))
    };
    let plan = plan(places, false);
    for (uri, header) in [
        ("/x".to_owned(), Some(("x-token", format!("jwt {good}")))),
        (format!("/x?t={good}"), None),
        ("/x".to_owned(), Some(("cookie", format!("a=b; session={good}; c=d")))),
    ] {
        let headers: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, &**value)).collect();
        let (judged, parts) = ask(&plan, &uri, &headers);
        assert!(judged.unwrap().is_some(), "{uri} {header:?}");
        assert_eq!(parts.headers["x-payload"], good.split('.').nth(1).unwrap());
        assert_eq!(parts.headers["x-exp"], (*NOW + 300).to_string());
        assert_eq!(parts.headers["x-user"], STANDARD.encode(r#"{"name":"jason"}"#));
        assert_eq!(parts.uri.to_string(), uri, "a token to be passed on stays");
        assert!(headers.iter().all(|(name, value)| parts.headers[*name] == *value));
    }
    let elsewhere = format!("Bearer {good}");
    assert_eq!(ask(&plan, "/x", &[("authorization", &elsewhere)]).0, Err(Refusal::Missing));
}

#[test]
fn a_missing_token_passes_only_where_that_is_allowed() {
    let keys = inline(&[Signer::ed().jwk("one")]);
    assert_eq!(ask(&plan(provider(keys.clone()), true), "/x", &[]).0, Ok(None));
    assert_eq!(ask(&plan(provider(keys), false), "/x", &[]).0, Err(Refusal::Missing));
}

#[test]
fn of_two_issuers_each_signs_for_itself_alone() {
    let (one, two) = (Signer::ed(), Signer::ed());
    let second = JwtProvider { issuer: "second@test".into(), ..provider(inline(&[two.jwk("k")])) };
    let both = config(vec![provider(inline(&[one.jwk("k")])), second], true);
    let plan = JwtPlan::new(Arc::new(both), &mut JwksStore::default());
    let mut of_second = claims();
    of_second["iss"] = json!("second@test");
    for (claims, key, believed) in [
        (claims(), &one, true),
        (of_second.clone(), &two, true),
        (claims(), &two, false),
        (of_second, &one, false),
    ] {
        let bearer = format!("Bearer {}", token(&json!({ "alg": "EdDSA", "kid": "k" }), &claims, key));
        assert_eq!(ask(&plan, "/x", &[("authorization", &bearer)]).0.is_ok(), believed, "{claims}");
    }
}

#[test]
fn without_keys_nothing_is_believed() {
    let genuine = Signer::ed();
    let remote = JwksSource::Remote {
        uri: "http://k/".into(),
        cluster: "c".into(),
        timeout: Duration::ZERO,
        cache: Duration::ZERO,
    };
    let bearer = format!("Bearer {}", token(&json!({ "alg": "EdDSA" }), &claims(), &genuine));
    for (jwks, want) in [
        (remote, Refusal::Fetch),
        (JwksSource::Inline("{\"keys\":[]}".into()), Refusal::NoKey),
        (JwksSource::Inline("nonsense".into()), Refusal::NoKey),
    ] {
        let plan = plan(provider(jwks), true);
        assert_eq!(ask(&plan, "/x", &[("authorization", &bearer)]).0, Err(want));
        assert_eq!(ask(&plan, "/x", &[]).0, Ok(None));
    }
}
