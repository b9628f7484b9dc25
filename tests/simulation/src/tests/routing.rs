//! Rules of virtual services: matches, actions, precedence, scope.

use std::collections::BTreeMap;

use sidecar_model::Action;

use crate::{Call, World};

fn world(http: &str) -> World {
    let mut world = World::bookinfo();
    world.apply(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  http: {http}\n"
    ));
    world
}

fn first_cluster(answer: &crate::Answer) -> String {
    answer.shares().into_keys().next().unwrap_or_default()
}

fn to(subset: &str) -> String {
    format!("route: [{{destination: {{host: reviews, subset: {subset}}}}}]")
}

#[test]
fn matches_hold_or_do_not() {
    const GET: &str = "GET";
    // match, method, path, headers, holds
    type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], bool);
    let cases: &[Case] = &[
        ("{uri: {exact: /a}}", GET, "/a", &[], true),
        ("{uri: {exact: /a}}", GET, "/a?b=c", &[], true),
        ("{uri: {exact: /a}}", GET, "/ab", &[], false),
        ("{uri: {exact: /A}, ignoreUriCase: true}", GET, "/a", &[], true),
        ("{uri: {prefix: /a}}", GET, "/ab", &[], true),
        ("{uri: {prefix: /a}}", GET, "/b", &[], false),
        ("{uri: {regex: '/a[0-9]+'}}", GET, "/a12", &[], true),
        ("{uri: {regex: '/a[0-9]+'}}", GET, "/a12x", &[], false),
        ("{headers: {x: {exact: v}}}", GET, "/", &[("x", "v")], true),
        ("{headers: {x: {exact: v}}}", GET, "/", &[("x", "w")], false),
        ("{headers: {x: {exact: v}}}", GET, "/", &[], false),
        ("{headers: {x: {prefix: v}}}", GET, "/", &[("x", "vw")], true),
        ("{headers: {x: {regex: 'v+'}}}", GET, "/", &[("x", "vv")], true),
        ("{headers: {x: {}}}", GET, "/", &[("x", "")], true),
        ("{headers: {x: {}}}", GET, "/", &[], false),
        ("{headers: {x: {regex: '*'}}}", GET, "/", &[("x", "any")], true),
        ("{withoutHeaders: {x: {}}}", GET, "/", &[], true),
        ("{withoutHeaders: {x: {}}}", GET, "/", &[("x", "v")], false),
        ("{withoutHeaders: {x: {exact: v}}}", GET, "/", &[], true),
        ("{withoutHeaders: {x: {exact: v}}}", GET, "/", &[("x", "w")], true),
        ("{withoutHeaders: {x: {exact: v}}}", GET, "/", &[("x", "v")], false),
        ("{queryParams: {q: {exact: v}}}", GET, "/?q=v", &[], true),
        ("{queryParams: {q: {exact: v}}}", GET, "/?q=w", &[], false),
        ("{queryParams: {q: {}}}", GET, "/?q", &[], true),
        ("{method: {exact: POST}}", "POST", "/", &[], true),
        ("{method: {exact: POST}}", GET, "/", &[], false),
        ("{scheme: {exact: http}}", GET, "/", &[], true),
        ("{scheme: {exact: https}}", GET, "/", &[], false),
        ("{authority: {prefix: reviews}}", GET, "/", &[], true),
        ("{authority: {exact: other}}", GET, "/", &[], false),
        ("{port: 9080}", GET, "/", &[], true),
        ("{port: 9081}", GET, "/", &[], false),
        ("{sourceLabels: {app: productpage}}", GET, "/", &[], true),
        ("{sourceLabels: {app: ratings}}", GET, "/", &[], false),
        ("{sourceNamespace: default}", GET, "/", &[], true),
        ("{sourceNamespace: other}", GET, "/", &[], false),
        ("{gateways: [mesh]}", GET, "/", &[], true),
        ("{gateways: [bookinfo-gateway]}", GET, "/", &[], false),
        ("{uri: {prefix: /a}, headers: {x: {exact: v}}}", GET, "/a", &[], false),
        ("{uri: {prefix: /a}, headers: {x: {exact: v}}}", GET, "/a", &[("x", "v")], true),
    ];
    for (written, method, path, headers, holds) in cases {
        let mut world = world(&format!("[{{match: [{written}], {}}}, {{{}}}]", to("v2"), to("v1")));
        let call = Call { method, ..Call::get("reviews", path).with(headers) };
        let found = first_cluster(&call.decide(&world.sidecar("productpage-v1")));
        let expected = if *holds { "v2" } else { "v1" };
        assert!(found.contains(&format!("|{expected}|")), "{written} {method} {path} {headers:?}: {found}");
    }
}

#[test]
fn the_first_rule_that_matches_wins_and_a_catch_all_hides_the_rest() {
    let http = format!(
        "[{{name: a, match: [{{uri: {{prefix: /a}}}}, {{uri: {{prefix: /b}}, name: second}}], {}}}, {{{}}}, {{match: [{{uri: {{prefix: /c}}}}], {}}}]",
        to("v2"),
        to("v1"),
        to("v3")
    );
    let mut world = world(&http);
    let snapshot = world.sidecar("productpage-v1");
    let route = |path: &str| Call::get("reviews", path).decide(&snapshot);
    assert_eq!(&*route("/a").route().name, "a");
    assert_eq!(&*route("/b").route().name, "a.second");
    assert!(first_cluster(&route("/c")).contains("|v1|"));
}

#[test]
fn redirects_and_direct_responses() {
    let mut world = world(
        "[{match: [{uri: {prefix: /old}}], redirect: {uri: /new, authority: example.com, redirectCode: 308}},
           {match: [{uri: {prefix: /teapot}}], directResponse: {status: 418, body: {string: short}}},
           {match: [{uri: {prefix: /bytes}}], directResponse: {status: 200, body: {bytes: aGk=}}}]",
    );
    let snapshot = world.sidecar("productpage-v1");
    let status = |path: &str| Call::get("reviews", path).decide(&snapshot).status();
    assert_eq!(status("/old/page"), Some(308));
    assert_eq!(status("/teapot"), Some(418));
    assert_eq!(status("/else"), Some(404));
    let answer = Call::get("reviews", "/bytes").decide(&snapshot);
    let Action::DirectResponse(response) = &answer.route().action else { panic!("{answer:?}") };
    assert_eq!(&response.body[..], b"hi");
}

#[test]
fn rewrites_timeouts_retries_mirrors_and_headers_arrive() {
    let mut world = world(
        "[{match: [{uri: {prefix: /api}}], rewrite: {uri: /v1, authority: inner}, timeout: 3s,
           retries: {attempts: 5, perTryTimeout: 1s, retryOn: 'gateway-error,503'},
           mirror: {host: ratings}, mirrorPercentage: {value: 12.5},
           headers: {request: {set: {a: '1'}, add: {b: '2'}, remove: [c]}, response: {remove: [server]}},
           route: [{destination: {host: reviews, subset: v1}, headers: {request: {set: {Host: chosen}}}}]}]",
    );
    let snapshot = world.sidecar("productpage-v1");
    let answer = Call::get("reviews", "/api/x").decide(&snapshot);
    let action = answer.forward();
    assert_eq!(action.timeout, Some(std::time::Duration::from_secs(3)));
    let retry = action.retry.as_ref().expect("retries");
    assert_eq!(retry.num_retries, 5);
    assert_eq!(&retry.retriable_status_codes[..], [503]);
    assert_eq!(&*action.mirrors[0].cluster, "outbound|9080||ratings.default.svc.cluster.local");
    assert_eq!(answer.route().request_headers.remove.len(), 1);
    assert_eq!(answer.route().request_headers.add.len(), 2);
}

#[test]
fn zero_attempts_turn_retries_off_and_no_word_means_two() {
    let mut world = world(&format!(
        "[{{match: [{{uri: {{prefix: /off}}}}], retries: {{attempts: 0}}, {}}}, {{{}}}]",
        to("v1"),
        to("v1")
    ));
    let snapshot = world.sidecar("productpage-v1");
    assert!(Call::get("reviews", "/off").decide(&snapshot).forward().retry.is_none());
    assert_eq!(
        Call::get("reviews", "/").decide(&snapshot).forward().retry.as_ref().map(|it| it.num_retries),
        Some(2)
    );
}

#[test]
fn destinations_of_weight_zero_are_left_out() {
    let mut world = world(
        "[{route: [{destination: {host: reviews, subset: v1}, weight: 100}, {destination: {host: reviews, subset: v2}, weight: 0}]}]",
    );
    let answer = Call::get("reviews", "/").decide(&world.sidecar("productpage-v1"));
    assert_eq!(
        answer.shares(),
        BTreeMap::from([("outbound|9080|v1|reviews.default.svc.cluster.local".to_owned(), 100)])
    );
}

#[test]
fn the_older_of_two_objects_for_a_host_wins() {
    let mut world = world(&format!("[{{{}}}]", to("v1")));
    world.apply("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: aaa}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}\n");
    let decide = |world: &mut World| {
        first_cluster(&Call::get("reviews", "/").decide(&world.sidecar("productpage-v1")))
    };
    assert!(decide(&mut world).contains("|v1|"));
    world.delete("VirtualService", "default", "reviews");
    assert!(decide(&mut world).contains("|v2|"));
}

#[test]
fn delegates_fill_in_what_the_root_leaves_open() {
    let mut world =
        world("[{match: [{uri: {prefix: /a}}], delegate: {name: inner, namespace: default}, timeout: 4s}]");
    world.apply(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: inner}\nspec:\n  http:\n  - match: [{uri: {prefix: /a/b}}]\n    route: [{destination: {host: reviews, subset: v2}}]\n  - match: [{uri: {prefix: /other}}]\n    route: [{destination: {host: reviews, subset: v3}}]\n  - route: [{destination: {host: reviews, subset: v1}}]\n",
    );
    let snapshot = world.sidecar("productpage-v1");
    let decide = |path: &str| Call::get("reviews", path).decide(&snapshot);
    assert!(first_cluster(&decide("/a/b")).contains("|v2|"));
    assert!(first_cluster(&decide("/a/c")).contains("|v1|"));
    assert_eq!(decide("/a/c").forward().timeout, Some(std::time::Duration::from_secs(4)));
    assert_eq!(decide("/other").status(), Some(404));
}

#[test]
fn an_unknown_subset_leads_to_a_cluster_that_is_not_there() {
    let mut world = world(&format!("[{{{}}}]", to("v9")));
    let snapshot = world.sidecar("productpage-v1");
    let cluster = first_cluster(&Call::get("reviews", "/").decide(&snapshot));
    assert_eq!(cluster, "outbound|9080|v9|reviews.default.svc.cluster.local");
    assert!(!snapshot.clusters.contains_key(cluster.as_str()));
}

#[test]
fn consistent_hashing_reaches_the_route() {
    let mut world = World::bookinfo();
    world.apply("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: ratings, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}\n");
    world.delete("DestinationRule", "default", "ratings");
    let answer = Call::get("ratings", "/").decide(&world.sidecar("reviews-v2"));
    assert_eq!(answer.forward().hash_policy.len(), 1);
}
