use super::*;
use policies_xds::matcher::{ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher};

fn exact(text: &str) -> matcher::StringMatcher {
    let match_pattern = Some(MatchPattern::Exact(text.into()));
    matcher::StringMatcher { match_pattern, ..Default::default() }
}

#[test]
fn strings_with_what_envoy_passes_over() {
    let regex = MatchPattern::SafeRegex(matcher::RegexMatcher { regex: "a.*".into(), ..Default::default() });
    let message = matcher::StringMatcher { match_pattern: Some(regex), ignore_case: true };
    assert!(!string_match(&message).unwrap().ignore_case);
    for bad in
        [MatchPattern::Prefix(String::new()), MatchPattern::SafeRegex(matcher::RegexMatcher::default())]
    {
        let message = matcher::StringMatcher { match_pattern: Some(bad), ..Default::default() };
        assert!(string_match(&message).is_err());
    }
    assert_eq!(string_match(&matcher::StringMatcher::default()).unwrap_err().field, "match_pattern");
    let bad = matcher::RegexMatcher { regex: "(".into(), ..Default::default() };
    let message =
        matcher::StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(bad)), ..Default::default() };
    assert_eq!(string_match(&message).unwrap_err().field, "safe_regex.regex");
}

#[test]
fn header_names_and_old_matchers() {
    let header = |name: &str, specifier| {
        let header_match_specifier = specifier;
        header_match(&route::HeaderMatcher {
            name: name.into(),
            header_match_specifier,
            ..Default::default()
        })
    };
    assert_eq!(header("Host", None).unwrap().key, HeaderKey::Authority);
    assert_eq!(header(":authority", None).unwrap().value, HeaderValueMatch::Present);
    assert_eq!(header("X-A", None).unwrap().key, HeaderKey::Name("x-a".parse().unwrap()));
    assert_eq!(header(":odd", None).unwrap_err().field, "name");
    let absent = header("x", Some(HeaderMatchSpecifier::PresentMatch(false))).unwrap();
    assert!(absent.invert && absent.is_match(None) && !absent.is_match(Some("1")));
    let old = header("x", Some(HeaderMatchSpecifier::ExactMatch("v".into()))).unwrap();
    assert!(old.is_match(Some("v")) && !old.is_match(Some("V")));
}

#[test]
fn claims_as_istio_matches_them() {
    let key = |key: &str| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.into())),
    };
    let single =
        ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(exact("admin"))) };
    let list =
        ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(single.clone()))) };
    let listed = ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(list))) };
    let either = OrMatcher { value_matchers: vec![single, listed] };
    let message = MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: vec![key("payload"), key("groups")],
        value: Some(ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(either)) }),
        invert: false,
    };
    let converted = metadata_match(&message).unwrap();
    let mut metadata = crate::Metadata::default();
    metadata.set("envoy.filters.http.jwt_authn", serde_json::json!({"payload": {"groups": ["a", "admin"]}}));
    assert!(converted.is_match(&metadata));
    metadata.set("envoy.filters.http.jwt_authn", serde_json::json!({"payload": {"groups": "admin"}}));
    assert!(converted.is_match(&metadata));
    assert!(!converted.is_match(&crate::Metadata::default()));
    assert_eq!(metadata_match(&MetadataMatcher { path: vec![], ..message }).unwrap_err().field, "path");
}

#[test]
fn fractions_never_exceed_all() {
    let parts = |numerator, denominator| fraction(&types::FractionalPercent { numerator, denominator });
    assert_eq!(parts(1, 0).unwrap().per_million, 10_000);
    assert_eq!(parts(1, 1).unwrap().per_million, 100);
    assert_eq!(parts(1, 2).unwrap().per_million, 1);
    assert_eq!(parts(u32::MAX, 0).unwrap(), Fraction::ALL);
    assert_eq!(parts(1, 9).unwrap_err().field, "denominator");
    let double = |value| percent_fraction("p", &Some(types::Percent { value }), 100.0);
    assert_eq!(double(0.0001).unwrap().per_million, 1);
    assert!(double(f64::NAN).is_err() && double(100.1).is_err());
}

#[test]
fn templates() {
    let matches = |template: &str, path: &str| path_template(template).unwrap().is_match(path);
    assert!(matches("/a/*/c", "/a/b/c") && !matches("/a/*/c", "/a/b/b/c") && !matches("/a/*/c", "/a//c"));
    assert!(matches("/a/**", "/a/b/c") && matches("/a/**", "/a/") && !matches("/a/**", "/b/"));
    assert!(matches("/a/{*}/{**}", "/a/b/c/d"), "Istio's form");
    assert!(matches("/a/{id}.json", "/a/7.json") && !matches("/a/{id}.json", "/a/7xjson"));
    assert!(matches("/{rest=v1/*}", "/v1/x") && !matches("/{rest=v1/*}", "/v2/x"));
    for bad in ["a", "/{a", "/a}", "/{=x}", "/{a=}", "/{1a}*{"] {
        assert_eq!(path_template(bad).unwrap_err().field, "path_template", "{bad}");
    }
}
