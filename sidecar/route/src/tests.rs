use super::*;
use http::{HeaderMap, HeaderValue, StatusCode};
use sidecar_model::{
    Action, HeaderKey, HeaderMatch, HeaderValueMatch, Metadata, PathMatch, QueryMatch, Regex, Route,
    RouteConfig, RouteFilters, RouteMatch, StringMatch, VirtualHost,
    header_ops::HeaderOps,
    matcher::RegexRewrite,
    route::{DirectResponse, Redirect, RedirectPath, TlsRequirement},
    route_action::{GrpcTimeout, HashPolicy, HashSource, IdleTimeout, PathRewrite, WeightedClusters},
};
use std::net::Ipv4Addr;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn conditions(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        case_sensitive: true,
        headers: vec![],
        query: vec![],
        grpc: false,
        metadata: vec![],
        fraction: None,
    }
}

fn route(name: &str, matches: RouteMatch) -> Arc<Route> {
    Arc::new(Route {
        name: name.into(),
        matches,
        action: Action::DirectResponse(DirectResponse { status: StatusCode::OK, body: Arc::new([]) }),
        filters: RouteFilters::default(),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        metadata: Metadata::default(),
        decorator: None,
        stat_prefix: "".into(),
    })
}

fn host(name: &str, domains: &[&str], routes: Vec<Arc<Route>>) -> Arc<VirtualHost> {
    Arc::new(VirtualHost {
        name: name.into(),
        domains: domains.iter().map(|d| (*d).into()).collect(),
        routes,
        require_tls: TlsRequirement::None,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        retry: None,
        mirrors: vec![],
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        filters: RouteFilters::default(),
        metadata: Metadata::default(),
    })
}

fn table(hosts: Vec<Arc<VirtualHost>>, ignore_port: bool) -> RouteTable {
    RouteTable::new(Arc::new(RouteConfig {
        name: "9080".into(),
        virtual_hosts: hosts,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        ignore_port_in_host_matching: ignore_port,
        most_specific_header_mutations_wins: false,
        filters: RouteFilters::default(),
        metadata: Metadata::default(),
    }))
}

fn view<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView { method: "GET", authority: "reviews:9080", path, scheme: "http", headers, metadata: None }
}

fn action() -> RouteAction {
    RouteAction {
        cluster: ClusterChoice::Single("a".into()),
        cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
        metadata_match: Metadata::default(),
        timeout: None,
        idle_timeout: IdleTimeout::Inherit,
        grpc_timeout: GrpcTimeout::Ignore,
        max_stream_duration: None,
        retry: None,
        hash_policy: vec![],
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        mirrors: vec![],
        upgrades: vec![],
        high_priority: false,
    }
}

#[test]
fn hosts_are_found_in_envoys_order() {
    let table = table(
        vec![
            host("all", &["*"], vec![]),
            host("com", &["*.com"], vec![]),
            host("foo.com", &["*.foo.com"], vec![]),
            host("dash", &["*-bar.foo.com"], vec![]),
            host("exact", &["www.foo.com", "www.foo.com:80"], vec![]),
            host("prefix", &["www.*"], vec![]),
            host("longer prefix", &["www.bar.*"], vec![]),
        ],
        false,
    );
    for (authority, want) in [
        ("www.foo.com", "exact"),
        ("WWW.Foo.COM", "exact"),
        ("www.foo.com:80", "exact"),
        ("a.foo.com", "foo.com"),
        ("a-bar.foo.com", "dash"),
        ("foo.com", "com"),
        ("www.bar.org", "longer prefix"),
        ("www.org", "prefix"),
        ("www.org.com", "com"),
        (".com", "all"),
        ("other", "all"),
        ("", "all"),
    ] {
        assert_eq!(&*table.host(authority).unwrap().name, want, "{authority}");
    }
}

#[test]
fn ports_are_ignored_when_told() {
    let table = table(vec![host("a", &["reviews"], vec![]), host("six", &["[::1]"], vec![])], true);
    assert!(table.host("reviews:9080").is_some() && table.host("reviews").is_some());
    assert!(table.host("[::1]:80").is_some() && table.host("[::1]").is_some());
    assert!(table.host("reviews:x").is_none());
}

#[test]
fn the_first_route_whose_conditions_hold_wins() {
    let mut jason = conditions(PathMatch::Prefix("/".into()));
    jason.headers.push(HeaderMatch {
        key: HeaderKey::Name("end-user".parse().unwrap()),
        value: HeaderValueMatch::String(StringMatch::exact("jason")),
        invert: false,
        treat_missing_as_empty: false,
    });
    let mut query = conditions(PathMatch::Exact("/q".into()));
    query.query.push(QueryMatch { name: "v".into(), value: Some(StringMatch::exact("2")) });
    let routes = vec![
        route("jason", jason),
        route("query", query),
        route("regex", conditions(PathMatch::Regex(Regex::new("/r[0-9]+").unwrap()))),
        route("segment", conditions(PathMatch::PathSeparatedPrefix("/api".into()))),
        route("prefix", conditions(PathMatch::Prefix("/ap".into()))),
    ];
    let table = table(vec![host("h", &["reviews:9080"], routes)], false);
    let mut headers = HeaderMap::new();
    let found = |path: &str, headers: &HeaderMap| match table.find(&view(path, headers), 0) {
        Found::Route(_, route) => route.name.to_string(),
        Found::NoRoute(_) => "none".into(),
        Found::NoHost => "no host".into(),
    };
    for (path, want) in [
        ("/q?v=2", "query"),
        ("/q?a=1&v=2&v=3", "query"),
        ("/q?v=3", "none"),
        ("/q", "none"),
        ("/r12", "regex"),
        ("/r12?x", "regex"),
        ("/r", "none"),
        ("/r12/", "none"),
        ("/api", "segment"),
        ("/api/x", "segment"),
        ("/apiary", "prefix"),
        ("/API", "none"),
    ] {
        assert_eq!(found(path, &headers), want, "{path}");
    }
    headers.append("end-user", HeaderValue::from_static("jason"));
    assert_eq!(found("/q?v=2", &headers), "jason");
    headers.append("end-user", HeaderValue::from_static("x"));
    assert_eq!(found("/r1", &headers), "jason", "of two values one is enough");
}

/// An action that splits by weight.
fn split(weights: &[(&str, u32)]) -> RouteAction {
    let cluster = |(name, weight): &(&str, u32)| WeightedCluster {
        name: (*name).into(),
        weight: *weight,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        host_rewrite: None,
        metadata_match: Metadata::default(),
        filters: RouteFilters::default(),
    };
    let mut action = action();
    action.cluster = ClusterChoice::Weighted(WeightedClusters {
        clusters: weights.iter().map(cluster).collect(),
        total: weights.iter().map(|(_, weight)| u64::from(*weight)).sum(),
        random_header: None,
        by_hash: false,
    });
    action
}

/// The same, by the hash of the header `x-user`.
fn sticky_split(weights: &[(&str, u32)]) -> RouteAction {
    let mut action = split(weights);
    if let ClusterChoice::Weighted(weighted) = &mut action.cluster {
        weighted.by_hash = true;
    }
    action.hash_policy = vec![HashPolicy {
        source: HashSource::Header { name: HeaderKey::Name("x-user".parse().unwrap()), rewrite: None },
        terminal: false,
    }];
    action
}

#[test]
fn sticky_cohorts_grow_with_the_weight() {
    const USERS: u32 = 10_000;
    let mut before: std::collections::HashSet<u32> = std::collections::HashSet::new();
    for percent in [0, 1, 5, 10, 20, 50, 99, 100] {
        let action = sticky_split(&[("v1", 100 - percent), ("v2", percent)]);
        let mut cohort = std::collections::HashSet::new();
        for user in 0..USERS {
            let mut headers = HeaderMap::new();
            headers.insert("x-user", HeaderValue::from_str(&format!("user-{user}")).unwrap());
            // Chance must not matter: every request has another random number.
            let version = |random| {
                pick_cluster(&action, &view("/", &headers), CLIENT, random, random).unwrap().name.to_owned()
            };
            let chosen = version(u64::from(user));
            assert_eq!(chosen, version(u64::from(user) * 7 + 3), "one user, one version");
            if chosen == "v2" {
                cohort.insert(user);
            }
        }
        assert!(cohort.is_superset(&before), "who saw v2 before sees it at {percent} %");
        let (count, share) = (cohort.len() as f64, f64::from(percent) / 100.0);
        let deviation = (f64::from(USERS) * share * (1.0 - share)).sqrt();
        assert!((count - f64::from(USERS) * share).abs() <= 3.0 * deviation, "{percent} %: {count}");
        before = cohort;
    }
}

#[test]
fn without_a_key_chance_decides_a_sticky_split() {
    let (action, headers) = (sticky_split(&[("v1", 50), ("v2", 50)]), HeaderMap::new());
    let name = |random| pick_cluster(&action, &view("/", &headers), CLIENT, random, 0).unwrap().name;
    assert_eq!((name(10), name(60)), ("v1", "v2"));
}

#[test]
fn weights_split_as_they_say() {
    let action = split(&[("v1", 90), ("v2", 0), ("v3", 10)]);
    let headers = HeaderMap::new();
    let mut counts = std::collections::HashMap::new();
    for random in 0..1000u64 {
        *counts
            .entry(pick_cluster(&action, &view("/", &headers), CLIENT, random, 0).unwrap().name.to_owned())
            .or_insert(0) += 1;
    }
    assert_eq!((counts.get("v1"), counts.get("v2"), counts.get("v3")), (Some(&900), None, Some(&100)));
}

#[test]
fn paths_are_rewritten() {
    let headers = HeaderMap::new();
    let rewritten = |path: PathMatch, rewrite: PathRewrite, request: &str| {
        let mut action = action();
        action.path_rewrite = Some(rewrite);
        path_rewrite(&action, &conditions(path), &view(request, &headers)).unwrap()
    };
    let prefix = |with: &str| PathRewrite::Prefix(with.into());
    assert_eq!(rewritten(PathMatch::Prefix("/api".into()), prefix("/v2"), "/api/x?q=1"), "/v2/x?q=1");
    assert_eq!(rewritten(PathMatch::Exact("/api".into()), prefix("/v2"), "/api?q"), "/v2?q");
    assert_eq!(rewritten(PathMatch::PathSeparatedPrefix("/api".into()), prefix("/"), "/api/x"), "//x");
    assert_eq!(rewritten(PathMatch::PathSeparatedPrefix("/api".into()), prefix("/"), "/api"), "/");
    assert_eq!(rewritten(PathMatch::Prefix("/".into()), PathRewrite::Full("/f".into()), "/a?b"), "/f?b");
    let regex = RegexRewrite::new("^/service/([^/]+)(/.*)$", "\\2/instance/\\1").unwrap();
    assert_eq!(
        rewritten(PathMatch::Prefix("/".into()), PathRewrite::Regex(regex), "/service/foo/v1/api?a=b"),
        "/v1/api/instance/foo?a=b"
    );
}

#[test]
fn redirects_go_where_they_say() {
    let headers = HeaderMap::new();
    let base = Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        scheme: None,
        host: None,
        port: None,
        path: None,
        strip_query: false,
    };
    let at = |redirect: &Redirect, authority: &str, path: &str| {
        location(
            redirect,
            &conditions(PathMatch::Prefix("/a".into())),
            &RequestView { authority, ..view(path, &headers) },
        )
    };
    assert_eq!(
        at(&Redirect { scheme: Some("https".into()), ..base.clone() }, "x.com:80", "/a?q"),
        "https://x.com/a?q"
    );
    assert_eq!(
        at(&Redirect { host: Some("y.com".into()), ..base.clone() }, "x.com:81", "/a"),
        "http://y.com/a"
    );
    assert_eq!(at(&Redirect { port: Some(8443), ..base.clone() }, "x.com:81", "/a"), "http://x.com:8443/a");
    assert_eq!(
        at(&Redirect { path: Some(RedirectPath::Path("/n".into())), ..base.clone() }, "x", "/a?q"),
        "http://x/n?q"
    );
    assert_eq!(
        at(&Redirect { path: Some(RedirectPath::Path("/n?p".into())), ..base.clone() }, "x", "/a?q"),
        "http://x/n?p"
    );
    assert_eq!(
        at(
            &Redirect { path: Some(RedirectPath::Prefix("/b".into())), strip_query: true, ..base },
            "x",
            "/a/c?q"
        ),
        "http://x/b/c"
    );
    assert_eq!(
        tls_location(&RequestView { authority: "x:80", ..view("/a?q", &headers) }),
        "https://x:80/a?q"
    );
}

#[test]
fn hashes_follow_the_user_and_make_cookies() {
    let client = Ipv4Addr::LOCALHOST.into();
    let by_header = [HashPolicy {
        source: HashSource::Header { name: HeaderKey::Name("x-user".parse().unwrap()), rewrite: None },
        terminal: false,
    }];
    let mut headers = HeaderMap::new();
    assert_eq!(hash(&by_header, &view("/", &headers), client, 1).hash, None);
    headers.insert("x-user", HeaderValue::from_static("a"));
    let a = hash(&by_header, &view("/", &headers), client, 1).hash;
    headers.insert("x-user", HeaderValue::from_static("b"));
    assert!(a.is_some() && a != hash(&by_header, &view("/", &headers), client, 2).hash);
    let source = HashSource::Cookie {
        name: "user".into(),
        ttl: Some(std::time::Duration::from_secs(60)),
        path: "/".into(),
        attributes: vec![],
    };
    let by_cookie = [HashPolicy { source, terminal: true }];
    let made = hash(&by_cookie, &view("/", &headers), client, 7);
    assert_eq!(made.cookie.unwrap().set_cookie, "user=\"0000000000000007\"; Max-Age=60; Path=/; HttpOnly");
    headers.insert("cookie", HeaderValue::from_static("a=b; user=\"0000000000000007\""));
    assert_eq!(
        hash(&by_cookie, &view("/", &headers), client, 8),
        HashOutcome { hash: made.hash, cookie: None }
    );
}
