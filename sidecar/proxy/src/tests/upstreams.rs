//! Which endpoint serves: sticky splits, subsets, drops, ejections that say why.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sidecar_model::cluster::{
    HashFunction, LbPolicy, OutlierDetection, PeakEwma, SubsetFallback, SubsetSelector, Subsets,
};
use sidecar_model::route_action::{HashPolicy, HashSource};
use sidecar_model::{Cluster, ClusterChoice, Fraction, Metadata, Route, WeightedCluster, WeightedClusters};

use super::app::App;
use super::build::{cluster, endpoints, route, route_with};
use super::forwarding::proxy;
use super::rig::{counted, get, until, with};

fn weighted(name: &str, weight: u32) -> WeightedCluster {
    WeightedCluster {
        name: name.into(),
        weight,
        request_headers: sidecar_model::HeaderOps::default(),
        response_headers: sidecar_model::HeaderOps::default(),
        host_rewrite: None,
        metadata_match: Metadata::default(),
        filters: sidecar_model::RouteFilters::default(),
    }
}

fn sticky(percent: u32, source: HashSource) -> Route {
    route_with("v1", |action| {
        action.cluster = ClusterChoice::Weighted(WeightedClusters {
            clusters: vec![weighted("v1", 100 - percent), weighted("v2", percent)],
            total: 100,
            random_header: None,
            by_hash: true,
        });
        action.hash_policy = vec![HashPolicy { source, terminal: false }];
    })
}

fn ring(name: &str, apps: &[&App]) -> Cluster {
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let lb = LbPolicy::RingHash { ring_size_min: 1024, ring_size_max: 4096, hash: HashFunction::XxHash };
    Cluster { lb, ..cluster(name, &addresses) }
}

#[tokio::test]
async fn a_user_keeps_version_and_endpoint() {
    let apps =
        [App::start("a1").await, App::start("a2").await, App::start("b1").await, App::start("b2").await];
    let clusters = || vec![ring("v1", &[&apps[0], &apps[1]]), ring("v2", &[&apps[2], &apps[3]])];
    let by_user = || HashSource::Header {
        name: sidecar_model::HeaderKey::Name("x-user".parse().unwrap()),
        rewrite: None,
    };
    let mut on_v2 = std::collections::HashMap::new();
    for percent in [20, 60] {
        let (_proxy, mut client) = proxy(vec![sticky(percent, by_user())], clusters()).await;
        let mut count = 0;
        for user in 0..100 {
            let mut served = std::collections::HashSet::new();
            for _ in 0..3 {
                let (_, _, headers) = client.text(with(get("/x"), "x-user", &format!("u{user}"))).await;
                served.insert(headers["test-app"].to_str().unwrap().to_owned());
            }
            assert_eq!(served.len(), 1, "one user, one endpoint");
            let app = served.into_iter().next().unwrap();
            if app.starts_with('b') {
                count += 1;
                let before = on_v2.entry(user).or_insert_with(|| app.clone());
                assert_eq!(*before, app, "and it stays when the weight grows");
            } else {
                assert!(!on_v2.contains_key(&user), "who saw v2 still sees it");
            }
        }
        assert!((percent - 15..=percent + 15).contains(&count), "{percent} %: {count}");
    }
    assert!(apps.iter().all(|app| !app.requests().is_empty()));
}

#[tokio::test]
async fn a_cookie_made_here_leads_back() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let source = HashSource::Cookie {
        name: "user".into(),
        ttl: Some(Duration::ZERO),
        path: "/".into(),
        attributes: vec![],
    };
    let clusters = vec![ring("v1", &[&a]), ring("v2", &[&b])];
    let (_proxy, mut client) = proxy(vec![sticky(50, source)], clusters).await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let (_, _, headers) = client.text(get("/x")).await;
        let cookie = headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let (_, _, again) = client.text(with(get("/x"), "cookie", &cookie)).await;
        assert_eq!(headers["test-app"], again["test-app"], "{cookie}");
        assert!(!again.contains_key("set-cookie"));
        seen.insert(headers["test-app"].clone());
    }
    assert_eq!(seen.len(), 2, "new users are split");
}

#[tokio::test]
async fn a_route_asks_for_labels() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let labels = |version: &str| {
        let mut metadata = Metadata::default();
        metadata.set("envoy.lb", json!({ "version": version }));
        metadata
    };
    let mut both = cluster("c", &[]);
    let mut all = endpoints("c", &[a.address], &labels("v1"));
    all.localities.extend(endpoints("c", &[b.address], &labels("v2")).localities);
    both.load_assignment = Some(Arc::new(all));
    both.subsets = Some(Subsets {
        fallback: SubsetFallback::None,
        default_subset: vec![],
        selectors: vec![SubsetSelector { keys: vec!["version".into()], fallback: None }],
        locality_weight_aware: false,
    });
    for (version, served) in [("v1", Some("a")), ("v2", Some("b")), ("v3", None)] {
        let route = route_with("c", |action| action.metadata_match = labels(version));
        let (_proxy, mut client) = proxy(vec![route], vec![both.clone()]).await;
        for _ in 0..5 {
            let (status, _, headers) = client.text(get("/x")).await;
            let app = headers.get("test-app").map(|name| name.to_str().unwrap());
            assert_eq!((status, app), (if served.is_some() { 200 } else { 503 }, served), "{version}");
        }
    }
}

#[tokio::test]
async fn the_control_plane_may_want_requests_dropped() {
    let app = App::start("a").await;
    let mut half = cluster("c", &[app.address]);
    let mut all = endpoints("c", &[app.address], &Metadata::default());
    all.drop_overloads = vec![("overload".into(), Fraction { per_million: 500_000 })];
    half.load_assignment = Some(Arc::new(all));
    let (proxy, mut client) = proxy(vec![route("c")], vec![half]).await;
    let mut dropped = 0;
    for _ in 0..200 {
        let (status, body, _) = client.text(get("/x")).await;
        if status == 503 {
            assert_eq!(body, "drop overload");
            dropped += 1;
        }
    }
    assert!((65..=135).contains(&dropped), "{dropped}");
    counted(&proxy, &["response_flags=\"DO\""], dropped).await;
    assert_eq!(app.requests().len() as u64, 200 - dropped);
}

#[tokio::test]
async fn slow_endpoints_get_less() {
    let (slow, fast) = (App::start("slow").await, App::start("fast").await);
    let rules = PeakEwma { decay: Duration::from_secs(10), default_rtt: Duration::from_nanos(1) };
    let both = Cluster { lb: LbPolicy::PeakEwma(rules), ..cluster("c", &[slow.address, fast.address]) };
    let (_proxy, mut client) = proxy(vec![route("c")], vec![both]).await;
    // The first answer of each costs its time; from then on the slow one is left alone.
    for _ in 0..60 {
        client.text(with(with(get("/x"), "test-slow-app", "slow"), "test-slow-ms", "200")).await;
    }
    let (to_slow, to_fast) = (slow.requests().len(), fast.requests().len());
    assert!((1..=4).contains(&to_slow), "{to_slow} to the slow one, {to_fast} to the fast one");
}

#[tokio::test]
async fn an_ejection_says_why_and_until_when() {
    let (bad, good) = (App::start("bad").await, App::start("good").await);
    let mut both = cluster("c", &[bad.address, good.address]);
    both.outlier = Some(OutlierDetection {
        max_ejection_percent: 50,
        consecutive_5xx: 2,
        ..super::limits::outlier_rules()
    });
    let (proxy, mut client) = proxy(vec![route("c")], vec![both]).await;
    let text = || crate::stats::clusters(proxy.shared());
    while bad.requests().len() < 3 && !text().contains("failed_outlier_check") {
        client.text(with(get("/x"), "test-status", "500")).await;
    }
    let lines =
        until("an ejection", || Some(text()).filter(|text| text.contains("failed_outlier_check"))).await;
    assert!(lines.contains("::ejection_cause::consecutive_5xx"), "{lines}");
    let left: u64 = lines
        .lines()
        .find_map(|line| line.split_once("::ejected_for_ms::"))
        .and_then(|(_, number)| number.parse().ok())
        .unwrap();
    assert!((1..=800).contains(&left), "{left}");
    let json = crate::stats::clusters_json(proxy.shared()).to_string();
    assert!(
        json.contains("\"cause\":\"consecutive_5xx\"") && json.contains("failed_outlier_check"),
        "{json}"
    );
}
