use super::*;
use crate::fixtures::{
    action, bytes, flag, millis, number, percent, prefix, route as forward, routes, virtual_host,
};
use crate::matcher::Fraction;
use crate::route::{Action, RedirectPath};
use crate::route_action::{ClusterChoice, GrpcTimeout, HashSource, HostRewrite, IdleTimeout, PathRewrite};
use policies_xds::core::data_source::Specifier;
use policies_xds::core::{DataSource, RuntimeFractionalPercent};
use policies_xds::matcher::{RegexMatchAndSubstitute, RegexMatcher};
use policies_xds::route::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use policies_xds::route::route_action::hash_policy::{Cookie, PolicySpecifier};
use policies_xds::route::route_action::{self as action_pb, ClusterSpecifier, HostRewriteSpecifier};
use policies_xds::route::weighted_cluster::ClusterWeight;
use policies_xds::route::{
    DirectResponseAction, RedirectAction, RouteAction, WeightedCluster, route as route_pb,
};
use std::time::Duration;

fn config_of(all: Vec<pb::Route>) -> Converted<RouteConfig> {
    RouteConfig::decode(&bytes(&routes(all)))
}

fn only(route: pb::Route) -> Converted<Arc<Route>> {
    config_of(vec![route]).map(|config| config.virtual_hosts[0].routes[0].clone())
}

fn forwarded(message: RouteAction) -> crate::RouteAction {
    match &only(forward(message)).unwrap().action {
        Action::Forward(action) => (**action).clone(),
        other => panic!("{other:?}"),
    }
}

fn path_of(route: pb::Route) -> String {
    let field = only(route).unwrap_err().field;
    field.trim_start_matches("virtual_hosts[0].routes[0].").to_owned()
}

#[test]
fn envoys_defaults() {
    let action = forwarded(action("a"));
    assert_eq!(action.cluster, ClusterChoice::Single("a".into()));
    assert_eq!(action.timeout, Some(Duration::from_secs(15)));
    assert_eq!((action.idle_timeout, action.grpc_timeout), (IdleTimeout::Inherit, GrpcTimeout::Ignore));
    assert_eq!(action.cluster_not_found, http::StatusCode::SERVICE_UNAVAILABLE);
    let route = only(forward(crate::fixtures::action("a"))).unwrap();
    assert!(route.matches.case_sensitive && route.matches.fraction.is_none());
}

#[test]
fn timeouts_of_zero_are_off() {
    let off = forwarded(RouteAction {
        timeout: millis(0),
        idle_timeout: millis(0),
        max_stream_duration: Some(action_pb::MaxStreamDuration {
            max_stream_duration: millis(0),
            grpc_timeout_header_max: millis(0),
            ..Default::default()
        }),
        ..action("a")
    });
    assert_eq!((off.timeout, off.idle_timeout, off.max_stream_duration), (None, IdleTimeout::Off, None));
    assert_eq!(off.grpc_timeout, GrpcTimeout::Unbounded);
    let bounded = forwarded(RouteAction { max_grpc_timeout: millis(500), ..action("a") });
    assert_eq!(bounded.grpc_timeout, GrpcTimeout::UpTo(Duration::from_millis(500)));
    assert_eq!(path_of(forward(RouteAction { timeout: millis(-5), ..action("a") })), "route.timeout");
}

#[test]
fn weights() {
    let one = |name: &str, weight| ClusterWeight {
        name: name.into(),
        weight: number(weight),
        ..Default::default()
    };
    let with = |clusters| RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters,
            ..Default::default()
        })),
        ..Default::default()
    };
    let ClusterChoice::Weighted(weighted) =
        forwarded(with(vec![one("v1", 75), one("v2", 25), one("v3", 0)])).cluster
    else {
        panic!("weights were expected")
    };
    assert_eq!(weighted.total, 100);
    assert_eq!(
        (&*weighted.pick(74).name, &*weighted.pick(75).name, &*weighted.pick(199).name),
        ("v1", "v2", "v2")
    );
    let field = "route.weighted_clusters.clusters";
    assert_eq!(path_of(forward(with(vec![one("v1", 0)]))), field);
    assert_eq!(path_of(forward(with(vec![]))), field);
    assert_eq!(path_of(forward(with(vec![one("v1", u32::MAX), one("v2", 1)]))), field);
    let unweighted = ClusterWeight { weight: None, ..one("v1", 1) };
    assert_eq!(path_of(forward(with(vec![unweighted]))), "route.weighted_clusters.clusters[0].weight");
}

#[test]
fn rewrites_exclude_one_another() {
    let regex = |regex: &str, substitution: &str| RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex: regex.into(), ..Default::default() }),
        substitution: substitution.into(),
    };
    let rewritten = forwarded(RouteAction {
        regex_rewrite: Some(regex("^/a/(.*)", r"/b/\1")),
        host_rewrite_specifier: Some(HostRewriteSpecifier::HostRewriteLiteral("other".into())),
        ..action("a")
    });
    let Some(PathRewrite::Regex(rewrite)) = &rewritten.path_rewrite else { panic!("{rewritten:?}") };
    assert_eq!(rewrite.apply("/a/x"), "/b/x");
    assert_eq!(rewritten.host_rewrite, Some(HostRewrite::Literal("other".into())));
    let both =
        RouteAction { regex_rewrite: Some(regex("a", "b")), prefix_rewrite: "/b".into(), ..action("a") };
    assert_eq!(path_of(forward(both)), "route.prefix_rewrite");
    let group = RouteAction { regex_rewrite: Some(regex("a", r"\1")), ..action("a") };
    assert_eq!(path_of(forward(group)), "route.regex_rewrite.substitution");
    let split = RouteAction { prefix_rewrite: "/b\r\nx: y".into(), ..action("a") };
    assert_eq!(path_of(forward(split)), "route.prefix_rewrite");
}

#[test]
fn redirects_and_answers() {
    let redirect = RedirectAction {
        host_redirect: "other.test".into(),
        port_redirect: 8443,
        response_code: 4,
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
        path_rewrite_specifier: Some(PathRewriteSpecifier::PrefixRewrite("/new".into())),
        ..Default::default()
    };
    let route = |action| pb::Route { r#match: Some(prefix("/")), action: Some(action), ..Default::default() };
    let converted = only(route(route_pb::Action::Redirect(redirect.clone()))).unwrap();
    let Action::Redirect(converted) = &converted.action else { panic!("{converted:?}") };
    assert_eq!((converted.status.as_u16(), converted.port), (308, Some(8443)));
    assert_eq!(converted.scheme.as_deref(), Some("https"));
    assert_eq!(converted.path, Some(RedirectPath::Prefix("/new".into())));
    let bad = RedirectAction { port_redirect: 70_000, ..redirect };
    assert_eq!(path_of(route(route_pb::Action::Redirect(bad))), "redirect.port_redirect");

    let answer = |status, length: usize| {
        let specifier = Some(Specifier::InlineString("x".repeat(length)));
        let body = Some(DataSource { specifier, ..Default::default() });
        route(route_pb::Action::DirectResponse(DirectResponseAction { status, body, ..Default::default() }))
    };
    assert!(only(answer(502, 4096)).is_ok());
    assert_eq!(path_of(answer(502, 4097)), "direct_response.body", "Envoy's bound");
    assert_eq!(path_of(answer(199, 0)), "direct_response.status");
    let mut config = routes(vec![answer(200, 5000)]);
    config.max_direct_response_body_size_bytes = number(1 << 20);
    assert!(RouteConfig::decode(&bytes(&config)).is_ok(), "Istio's bound");
}

#[test]
fn matches() {
    let with = |specifier| pb::Route {
        r#match: Some(pb::RouteMatch {
            path_specifier: Some(specifier),
            case_sensitive: flag(false),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(percent(20)),
                ..Default::default()
            }),
            grpc: Some(pb::route_match::GrpcRouteMatchOptions {}),
            ..Default::default()
        }),
        ..forward(action("a"))
    };
    let exact = only(with(PathSpecifier::Path("/A".into()))).unwrap();
    assert!(!exact.matches.case_sensitive && exact.matches.grpc);
    assert_eq!(exact.matches.fraction, Some(Fraction { per_million: 200_000 }));
    let regex = RegexMatcher { regex: "/a.*".into(), ..Default::default() };
    assert!(only(with(PathSpecifier::SafeRegex(regex))).unwrap().matches.case_sensitive);
    for bad in ["", "/", "/a/", "a", "/a?b"] {
        let route = with(PathSpecifier::PathSeparatedPrefix(bad.into()));
        assert_eq!(path_of(route), "match.path_separated_prefix", "{bad}");
    }
    let none = pb::Route { r#match: None, ..forward(action("a")) };
    assert_eq!(path_of(none), "match");
    let cookies = pb::RouteMatch { cookies: vec![pb::CookieMatcher::default()], ..prefix("/") };
    assert_eq!(path_of(pb::Route { r#match: Some(cookies), ..forward(action("a")) }), "match.cookies");
}

#[test]
fn hashes_and_mirrors() {
    let cookie = |path: &str| RouteAction {
        hash_policy: vec![action_pb::HashPolicy {
            terminal: true,
            policy_specifier: Some(PolicySpecifier::Cookie(Cookie {
                name: "user".into(),
                ttl: millis(0),
                path: path.into(),
                ..Default::default()
            })),
        }],
        request_mirror_policies: vec![action_pb::RequestMirrorPolicy {
            cluster: "shadow".into(),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        }],
        ..action("a")
    };
    let converted = forwarded(cookie("/"));
    let HashSource::Cookie { ttl, .. } = &converted.hash_policy[0].source else { panic!("{converted:?}") };
    assert_eq!(*ttl, Some(Duration::ZERO), "for the session");
    assert!(converted.mirrors[0].keep_host && converted.mirrors[0].fraction == Fraction::ALL);
    assert_eq!(path_of(forward(cookie("/; Domain=x"))), "route.hash_policy[0].cookie.path");
}

#[test]
fn hosts_are_unique_and_well_formed() {
    let with = |virtual_hosts| RouteConfiguration { virtual_hosts, ..routes(vec![]) };
    let path = |config: RouteConfiguration| RouteConfig::decode(&bytes(&config)).unwrap_err().field;
    let good = with(vec![
        virtual_host("a", &["A.test", "*.a.test", "*-x.test", "a.*", "[::1]:80"], vec![]),
        virtual_host("b", &["*"], vec![]),
    ]);
    let converted = RouteConfig::decode(&bytes(&good)).unwrap();
    assert_eq!(&*converted.virtual_hosts[0].domains[0], "a.test");
    let twice = with(vec![virtual_host("a", &["x"], vec![]), virtual_host("b", &["X"], vec![])]);
    assert_eq!(path(twice), "virtual_hosts[1].domains");
    let named = with(vec![virtual_host("a", &["x"], vec![]), virtual_host("a", &["y"], vec![])]);
    assert_eq!(path(named), "virtual_hosts[1].name");
    for bad in ["", "a*b", "**", "*a*", "a\r\n"] {
        assert_eq!(
            path(with(vec![virtual_host("a", &[bad], vec![])])),
            "virtual_hosts[0].domains[0]",
            "{bad}"
        );
    }
    let unnamed = RouteConfiguration { name: String::new(), ..routes(vec![]) };
    assert_eq!(path(unnamed), "name");
}

#[test]
fn mirrors_above_stand_in_for_hosts_without() {
    let mirror =
        |cluster: &str| action_pb::RequestMirrorPolicy { cluster: cluster.into(), ..Default::default() };
    let mut own = virtual_host("own", &["own"], vec![]);
    own.request_mirror_policies = vec![mirror("b")];
    let mut config = routes(vec![]);
    config.virtual_hosts.push(own);
    config.request_mirror_policies = vec![mirror("a")];
    let converted = RouteConfig::decode(&bytes(&config)).unwrap();
    let clusters: Vec<_> = converted.virtual_hosts.iter().map(|host| &*host.mirrors[0].cluster).collect();
    assert_eq!(clusters, ["a", "b"]);
}
