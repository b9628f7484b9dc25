//! Which requests a route takes.

use super::{Generator, runtime};
use policies_xds::any;
use policies_xds::core::TypedExtensionConfig;
use policies_xds::matcher::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use policies_xds::protobuf::BoolValue;
use policies_xds::route::header_matcher::HeaderMatchSpecifier;
use policies_xds::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::route::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use policies_xds::types::Int64Range;
use policies_xds::uri_template::UriTemplateMatchConfig;

pub(super) const HEADERS: [&str; 4] = ["x-a", "x-b", "x-num", "x-absent"];
pub(super) const VALUES: [&str; 9] = ["foo", "foobar", "FOO", "barfoo", "10", "-5", "abc", "a,b", "0x10"];
const REGEXES: [&str; 7] = ["foo.*", "[0-9]+", ".*", "FOO|abc", "(?i)foo", "a,b", "^foo$"];
const PATHS: [&str; 10] =
    ["/", "/a", "/a/b", "/A", "/api/v1", "/api/v1/items", "/a/", "/a//b", "/b", "/api/v2"];
const PREFIXES: [&str; 9] = ["/", "/a", "/a/", "/api", "/api/v", "/A", "/b", "", "/a/b/c"];
const SEPARATED: [&str; 5] = ["/a", "/api/v1", "/A", "/api", "/b"];
const PATH_REGEXES: [&str; 8] =
    ["/a.*", "/[ab](/.*)?", "/(api|v1)/.*", "/a/b", ".*", "/.*/items", "/api/v[0-9]+(/[a-z]+)?", "a"];
const TEMPLATES: [&str; 7] =
    ["/a/{x}", "/api/{version}/*", "/**", "/api/{version=v1}/{rest=**}", "/*", "/a/**", "/api/*/items"];

pub(super) fn regex(text: &str) -> RegexMatcher {
    RegexMatcher { regex: text.to_owned(), ..Default::default() }
}

impl Generator {
    pub(super) fn route_match(&mut self) -> RouteMatch {
        let path_specifier = Some(self.path());
        let by_expression =
            matches!(path_specifier, Some(PathSpecifier::SafeRegex(_) | PathSpecifier::PathMatchPolicy(_)));
        let insensitive = !by_expression && self.chance(20);
        let conditional = self.chance(40);
        RouteMatch {
            path_specifier,
            case_sensitive: insensitive.then_some(BoolValue { value: false }),
            headers: if conditional { self.some(2, Self::header_matcher) } else { Vec::new() },
            query_parameters: if self.chance(20) { self.some(2, Self::query_matcher) } else { Vec::new() },
            runtime_fraction: match self.below(20) {
                0 => Some(runtime(0)),
                1 => Some(runtime(100)),
                _ => None,
            },
            grpc: self.chance(3).then(Default::default),
            ..Default::default()
        }
    }

    fn path(&mut self) -> PathSpecifier {
        match self.below(12) {
            0..=4 => PathSpecifier::Prefix(self.pick(&PREFIXES).to_owned()),
            5..=6 => PathSpecifier::Path(self.pick(&PATHS).to_owned()),
            7..=8 => PathSpecifier::PathSeparatedPrefix(self.pick(&SEPARATED).to_owned()),
            9..=10 => PathSpecifier::SafeRegex(regex(self.pick(&PATH_REGEXES))),
            _ => PathSpecifier::PathMatchPolicy(TypedExtensionConfig {
                name: "envoy.path.match.uri_template.uri_template_matcher".into(),
                typed_config: Some(any(&UriTemplateMatchConfig {
                    path_template: self.pick(&TEMPLATES).to_owned(),
                })),
            }),
        }
    }

    pub(super) fn string_matcher(&mut self) -> StringMatcher {
        let value = self.pick(&VALUES).to_owned();
        let pattern = match self.below(5) {
            0 => MatchPattern::Exact(value),
            1 => MatchPattern::Prefix(value),
            2 => MatchPattern::Suffix(value),
            3 => MatchPattern::Contains(value),
            _ => MatchPattern::SafeRegex(regex(self.pick(&REGEXES))),
        };
        let ignore_case = !matches!(pattern, MatchPattern::SafeRegex(_)) && self.chance(40);
        StringMatcher { match_pattern: Some(pattern), ignore_case }
    }

    #[expect(deprecated, reason = "control planes still send the older fields")]
    pub(super) fn header_matcher(&mut self) -> HeaderMatcher {
        if self.chance(25) {
            let methods = ["GET", "POST", "get", "OPTIONS"];
            let exact = MatchPattern::Exact(self.pick(&methods).to_owned());
            let string = StringMatcher { match_pattern: Some(exact), ignore_case: self.chance(20) };
            return HeaderMatcher {
                name: ":method".into(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string)),
                invert_match: self.chance(30),
                ..Default::default()
            };
        }
        let value = self.pick(&VALUES).to_owned();
        let specifier = match self.below(9) {
            0 => None,
            1 => Some(HeaderMatchSpecifier::PresentMatch(self.chance(60))),
            2 => Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start: -5, end: 10 })),
            3 => Some(HeaderMatchSpecifier::ExactMatch(value)),
            4 => Some(HeaderMatchSpecifier::PrefixMatch(value)),
            5 => Some(HeaderMatchSpecifier::SafeRegexMatch(regex(self.pick(&REGEXES)))),
            _ => Some(HeaderMatchSpecifier::StringMatch(self.string_matcher())),
        };
        let names = [HEADERS[0], HEADERS[1], HEADERS[2], HEADERS[3], ":path", ":authority", "X-A"];
        HeaderMatcher {
            name: self.pick(&names).to_owned(),
            header_match_specifier: specifier,
            invert_match: self.chance(30),
            treat_missing_header_as_empty: self.chance(25),
        }
    }

    fn query_matcher(&mut self) -> QueryParameterMatcher {
        let specifier = match self.below(4) {
            0 => None,
            1 => Some(QueryParameterMatchSpecifier::PresentMatch(true)),
            _ => Some(QueryParameterMatchSpecifier::StringMatch(self.string_matcher())),
        };
        QueryParameterMatcher {
            name: self.pick(&["q", "r"]).to_owned(),
            query_parameter_match_specifier: specifier,
        }
    }
}
