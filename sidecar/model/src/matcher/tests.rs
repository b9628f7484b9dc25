use super::*;

fn matcher(pattern: StringPattern, ignore_case: bool) -> StringMatch {
    StringMatch { pattern, ignore_case }
}

#[test]
fn strings() {
    assert!(matcher(StringPattern::Exact("Ab".into()), true).is_match("aB"));
    assert!(!matcher(StringPattern::Exact("Ab".into()), false).is_match("aB"));
    assert!(matcher(StringPattern::Prefix("Ä".into()), true).is_match("Äb"), "no panic inside a character");
    assert!(!matcher(StringPattern::Prefix("abc".into()), true).is_match("aü"));
    assert!(!matcher(StringPattern::Suffix("xü".into()), true).is_match("ü"));
    assert!(matcher(StringPattern::Suffix("BC".into()), true).is_match("abc"));
    assert!(matcher(StringPattern::Contains("B".into()), true).is_match("abc"));
    let regex = Regex::new("a|b").unwrap();
    assert!(regex.is_match("a") && !regex.is_match("ab"), "the whole text");
    assert!(Regex::new("a(").is_err() && Regex::new("(a{1000}){1000}").is_err());
    assert!(Regex::new("a)|(b").is_err(), "an expression cannot leave its group");
}

#[test]
fn header_conditions_on_missing_headers() {
    let condition = |value, invert, treat_missing_as_empty| HeaderMatch {
        key: HeaderKey::Method,
        value,
        invert,
        treat_missing_as_empty,
    };
    let exact = || HeaderValueMatch::String(StringMatch::exact("a"));
    assert!(!condition(exact(), true, false).is_match(None), "a missing header never matches");
    assert!(condition(exact(), true, true).is_match(None), "Istio's `withoutHeaders`");
    assert!(condition(HeaderValueMatch::Present, true, false).is_match(None));
    let range = HeaderValueMatch::Range { start: -1, end: 2 };
    assert!(condition(range.clone(), false, false).is_match(Some("1")));
    assert!(!condition(range, false, false).is_match(Some("2")));
}

#[test]
fn rewrites() {
    let rewrite = RegexRewrite::new("^/service/([^/]+)(/.*)$", r"\2/instance/\1").unwrap();
    assert_eq!(rewrite.apply("/service/foo/v1/api"), "/v1/api/instance/foo");
    assert_eq!(RegexRewrite::new("a", "$1").unwrap().apply("a"), "$1", "a dollar is a dollar");
    assert_eq!(RegexRewrite::new("a", r"\2").unwrap_err().field, "substitution");
    assert_eq!(RegexRewrite::new("a", "x\\").unwrap_err().field, "substitution");
    assert_eq!(RegexRewrite::new("a(", "").unwrap_err().field, "pattern");
}

#[test]
fn chances() {
    let half = Fraction { per_million: 500_000 };
    assert!(half.hit(499_999) && !half.hit(500_000));
    assert!(!Fraction::ZERO.hit(0) && Fraction::ALL.hit(u64::MAX));
}
