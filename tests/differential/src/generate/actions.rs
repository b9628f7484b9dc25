//! What a route does.

use super::matches::regex;
use super::{CLUSTERS, Generator, number, seconds};
use policies_xds::core::{DataSource, data_source::Specifier};
use policies_xds::matcher::RegexMatchAndSubstitute;
use policies_xds::protobuf::Duration;
use policies_xds::route::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use policies_xds::route::retry_policy::RetryBackOff;
use policies_xds::route::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter,
};
use policies_xds::route::route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier};
use policies_xds::route::route_match::PathSpecifier;
use policies_xds::route::weighted_cluster::{
    ClusterWeight, RandomValueSpecifier, cluster_weight::HostRewriteSpecifier as WeightedHost,
};
use policies_xds::route::{
    DirectResponseAction, RedirectAction, RetryPolicy, RouteAction, RouteMatch, WeightedCluster, route,
};

const HOSTS: [&str; 4] = ["other.test", "a.test:9999", "Upper.Test", "[::1]:80"];
const SUBSTITUTIONS: [(&str, &str); 6] = [
    ("^/a", "/z"),
    ("/([a-z]+)/v([0-9])", "/\\2/\\1"),
    ("a", "b"),
    ("^/(.*)$", "/pre/\\1"),
    ("x", "\\0\\0"),
    ("/+", "/"),
];

impl Generator {
    pub(super) fn action(&mut self, conditions: &RouteMatch) -> route::Action {
        match self.below(20) {
            0..=2 => route::Action::Redirect(self.redirect(conditions)),
            3..=5 => route::Action::DirectResponse(self.direct_response()),
            _ => route::Action::Route(self.forward(conditions)),
        }
    }

    fn substitution(&mut self) -> RegexMatchAndSubstitute {
        let (pattern, substitution) = SUBSTITUTIONS[self.below(SUBSTITUTIONS.len())];
        RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: substitution.to_owned() }
    }

    fn redirect(&mut self, conditions: &RouteMatch) -> RedirectAction {
        let template = matches!(conditions.path_specifier, Some(PathSpecifier::PathMatchPolicy(_)));
        RedirectAction {
            host_redirect: if self.chance(40) { self.pick(&HOSTS).to_owned() } else { String::new() },
            port_redirect: if self.chance(30) { [80, 443, 8080][self.below(3)] } else { 0 },
            response_code: i32::try_from(self.below(5)).unwrap_or_default(),
            strip_query: self.chance(30),
            scheme_rewrite_specifier: match self.below(4) {
                0 => Some(SchemeRewriteSpecifier::HttpsRedirect(self.chance(80))),
                1 => Some(SchemeRewriteSpecifier::SchemeRedirect(
                    self.pick(&["https", "http", "ftp"]).to_owned(),
                )),
                _ => None,
            },
            path_rewrite_specifier: match self.below(6) {
                0 => {
                    let paths = ["/new", "/new?x=1", "/new#part", ""];
                    Some(PathRewriteSpecifier::PathRedirect(self.pick(&paths).to_owned()))
                }
                1 if !template => {
                    let prefixes = ["/new", "/", "/new/", ""];
                    Some(PathRewriteSpecifier::PrefixRewrite(self.pick(&prefixes).to_owned()))
                }
                2 => Some(PathRewriteSpecifier::RegexRewrite(self.substitution())),
                _ => None,
            },
        }
    }

    fn direct_response(&mut self) -> DirectResponseAction {
        let body = self.pick(&["", "denied", "{\"a\": 1}\n"]);
        let body = Specifier::InlineString(body.to_owned());
        DirectResponseAction {
            status: [200, 201, 204, 304, 400, 403, 404, 418, 503, 599][self.below(10)],
            body: self.chance(70).then_some(DataSource { specifier: Some(body), ..Default::default() }),
            ..Default::default()
        }
    }

    fn forward(&mut self, conditions: &RouteMatch) -> RouteAction {
        let template = matches!(conditions.path_specifier, Some(PathSpecifier::PathMatchPolicy(_)));
        let cluster_specifier = self.clusters();
        let mut action = RouteAction {
            cluster_specifier: Some(cluster_specifier),
            cluster_not_found_response_code: i32::try_from(self.below(3)).unwrap_or_default(),
            append_x_forwarded_host: self.chance(20),
            host_rewrite_specifier: self.host_rewrite(),
            retry_policy: if self.chance(25) { Some(self.retry_policy()) } else { None },
            timeout: match self.below(6) {
                0 => Some(seconds(0)),
                1 => Some(seconds(5)),
                2 => Some(Duration { seconds: 7, nanos: 500_000_000 }),
                _ => None,
            },
            hash_policy: self.hash_policies(),
            ..Default::default()
        };
        match self.below(6) {
            0 if !template => action.prefix_rewrite = self.pick(&["/new", "/", "/new/", "/x?y=1"]).to_owned(),
            1 => action.regex_rewrite = Some(self.substitution()),
            _ => {}
        }
        action
    }

    fn clusters(&mut self) -> ClusterSpecifier {
        match self.below(20) {
            0..=3 => ClusterSpecifier::WeightedClusters(self.weighted()),
            4..=5 => ClusterSpecifier::ClusterHeader("x-cluster".into()),
            6 => ClusterSpecifier::Cluster(self.pick(&["missing", "dead", "empty"]).to_owned()),
            _ => ClusterSpecifier::Cluster(self.pick(&CLUSTERS).to_owned()),
        }
    }

    fn weighted(&mut self) -> WeightedCluster {
        let by_header = self.chance(50);
        let all = self.below(2);
        let mut weights = [0, 0];
        weights[all] = 100;
        if by_header {
            weights = [30, 70];
        }
        let names = ["one", "two"];
        let clusters = names.iter().zip(weights).map(|(name, weight)| ClusterWeight {
            name: (*name).to_owned(),
            weight: Some(number(weight)),
            request_headers_to_add: self.some(1, Self::request_header),
            request_headers_to_remove: self.removed(10),
            response_headers_to_add: self.some(1, Self::response_header),
            response_headers_to_remove: self.removed(10),
            host_rewrite_specifier: self
                .chance(10)
                .then(|| WeightedHost::HostRewriteLiteral("weighted.test".into())),
            ..Default::default()
        });
        WeightedCluster {
            clusters: clusters.collect(),
            random_value_specifier: by_header.then(|| RandomValueSpecifier::HeaderName("x-weight".into())),
            ..Default::default()
        }
    }

    fn host_rewrite(&mut self) -> Option<HostRewriteSpecifier> {
        match self.below(8) {
            0 => Some(HostRewriteSpecifier::HostRewriteLiteral(self.pick(&HOSTS).to_owned())),
            1 => Some(HostRewriteSpecifier::HostRewriteHeader("x-a".into())),
            2 => Some(HostRewriteSpecifier::HostRewritePathRegex(RegexMatchAndSubstitute {
                pattern: Some(regex("^/([a-z]+)/?.*$")),
                substitution: "\\1.test".into(),
            })),
            _ => None,
        }
    }

    /// The last one always finds something: without a hash the endpoint is left to chance.
    fn hash_policies(&mut self) -> Vec<HashPolicy> {
        let mut all = self.some(2, Self::hash_policy);
        let source_ip = PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true });
        all.push(HashPolicy { terminal: false, policy_specifier: Some(source_ip) });
        all
    }

    fn hash_policy(&mut self) -> HashPolicy {
        let specifier = match self.below(4) {
            0 => PolicySpecifier::Header(Header {
                header_name: self.pick(&["x-a", "x-b", ":path", "x-absent"]).to_owned(),
                regex_rewrite: if self.chance(20) { Some(self.substitution()) } else { None },
            }),
            1 => PolicySpecifier::Cookie(Cookie { name: "session".into(), ..Default::default() }),
            2 => PolicySpecifier::QueryParameter(QueryParameter { name: self.pick(&["q", "r"]).to_owned() }),
            _ => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        };
        HashPolicy { terminal: self.chance(30), policy_specifier: Some(specifier) }
    }

    pub(super) fn retry_policy(&mut self) -> RetryPolicy {
        let on = [
            "5xx",
            "gateway-error",
            "retriable-4xx",
            "retriable-status-codes",
            "retriable-headers",
            "connect-failure,refused-stream",
            "reset,5xx",
            "envoy-ratelimited",
        ];
        RetryPolicy {
            retry_on: self.pick(&on).to_owned(),
            num_retries: if self.chance(70) { Some(number([0, 1, 2, 3][self.below(4)])) } else { None },
            retriable_status_codes: if self.chance(50) { vec![418, 503] } else { Vec::new() },
            retriable_headers: if self.chance(40) { vec![self.retriable_header()] } else { Vec::new() },
            retriable_request_headers: if self.chance(15) { vec![self.header_matcher()] } else { Vec::new() },
            per_try_timeout: self.chance(20).then(|| seconds(4)),
            retry_back_off: Some(RetryBackOff {
                base_interval: Some(Duration { seconds: 0, nanos: 1_000_000 }),
                max_interval: Some(Duration { seconds: 0, nanos: 2_000_000 }),
            }),
            ..Default::default()
        }
    }

    fn retriable_header(&mut self) -> policies_xds::route::HeaderMatcher {
        let mut matcher = self.header_matcher();
        if self.chance(70) {
            matcher.name = "x-failed".into();
        }
        matcher
    }
}
