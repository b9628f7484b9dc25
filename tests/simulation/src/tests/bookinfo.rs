//! The sample application's files do what their documentation says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Call, World};

macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("../../../../policies/samples/bookinfo/networking/", $name, ".yaml"))
    };
}

const JASON: &[(&str, &str)] = &[("end-user", "jason")];

fn cluster(service: &str, subset: &str) -> String {
    format!("outbound|9080|{subset}|{service}.default.svc.cluster.local")
}

fn shares(world: &mut World, host: &str, headers: &[(&str, &str)]) -> BTreeMap<String, u32> {
    let snapshot = world.sidecar("productpage-v1");
    let answer = Call::get(host, "/reviews/0").with(headers).decide(&snapshot);
    answer.shares()
}

#[test]
fn without_rules_a_service_is_one_cluster() {
    let mut world = World::bookinfo();
    for host in [
        "reviews",
        "reviews:9080",
        "reviews.default",
        "reviews.default.svc",
        "reviews.default.svc.cluster.local",
        "reviews.default.svc.cluster.local:9080",
    ] {
        assert_eq!(shares(&mut world, host, &[]), BTreeMap::from([(cluster("reviews", ""), 100)]), "{host}");
    }
}

#[test]
fn weights_are_shares() {
    for (file, expected) in [
        (sample!("virtual-service-reviews-90-10"), vec![("v1", 90), ("v2", 10)]),
        (sample!("virtual-service-reviews-80-20"), vec![("v1", 80), ("v2", 20)]),
        (sample!("virtual-service-reviews-50-v3"), vec![("v1", 50), ("v3", 50)]),
        (sample!("virtual-service-reviews-v2-v3"), vec![("v2", 50), ("v3", 50)]),
        (sample!("virtual-service-reviews-v3"), vec![("v3", 100)]),
        (sample!("virtual-service-all-v1"), vec![("v1", 100)]),
    ] {
        let mut world = World::bookinfo();
        world.apply(file);
        let expected: BTreeMap<String, u32> =
            expected.into_iter().map(|(it, share)| (cluster("reviews", it), share)).collect();
        assert_eq!(shares(&mut world, "reviews", &[]), expected, "{file}");
    }
}

#[test]
fn picks_follow_the_weights() {
    let mut world = World::bookinfo();
    world.apply(sample!("virtual-service-reviews-90-10"));
    let snapshot = world.sidecar("productpage-v1");
    let picked = Call::get("reviews", "/").decide(&snapshot).picked(10_000);
    let of_v2 = picked[&cluster("reviews", "v2")];
    assert!((900..=1100).contains(&of_v2), "{of_v2} of 10000");
}

#[test]
fn a_user_gets_another_version() {
    for (file, users, others) in [
        (sample!("virtual-service-reviews-jason-v2-v3"), "v2", "v3"),
        (sample!("virtual-service-reviews-test-v2"), "v2", "v1"),
    ] {
        let mut world = World::bookinfo();
        world.apply(file);
        assert_eq!(shares(&mut world, "reviews", JASON), BTreeMap::from([(cluster("reviews", users), 100)]));
        for headers in [&[][..], &[("end-user", "Jason")], &[("end-user", "jasons")]] {
            assert_eq!(
                shares(&mut world, "reviews", headers),
                BTreeMap::from([(cluster("reviews", others), 100)]),
                "{headers:?}"
            );
        }
    }
}

#[test]
fn one_users_requests_are_delayed_or_aborted() {
    use sidecar_model::fault::{AbortStatus, FaultDelay};
    let mut world = World::bookinfo();
    world.apply(sample!("virtual-service-ratings-test-delay"));
    let snapshot = world.sidecar("reviews-v2");
    let answer = Call::get("ratings", "/ratings/0").with(JASON).decide(&snapshot);
    let fault = answer.route().filters.fault().expect("a fault").clone();
    assert!(
        matches!(&fault.delay, Some(FaultDelay::Fixed { delay, .. }) if *delay == Duration::from_secs(7)),
        "{fault:?}"
    );
    assert!(Call::get("ratings", "/ratings/0").decide(&snapshot).route().filters.fault().is_none());

    world.apply(sample!("virtual-service-ratings-test-abort"));
    let snapshot = world.sidecar("reviews-v2");
    let answer = Call::get("ratings", "/ratings/0").with(JASON).decide(&snapshot);
    let abort = answer.route().filters.fault().and_then(|it| it.abort.clone()).expect("an abort");
    assert!(matches!(abort.status, AbortStatus::Http(status) if status == 500));
}

#[test]
fn a_timeout_is_the_routes() {
    let mut world = World::bookinfo();
    world.apply(sample!("virtual-service-reviews-timeout"));
    let snapshot = world.sidecar("productpage-v1");
    assert_eq!(
        Call::get("reviews", "/").decide(&snapshot).forward().timeout,
        Some(Duration::from_millis(500))
    );
    assert_eq!(Call::get("details", "/").decide(&snapshot).forward().timeout, None);
}

#[test]
fn the_gateway_leads_to_the_page() {
    let mut world = World::bookinfo();
    world.apply(sample!("bookinfo-gateway"));
    let gateway = world.sidecar("mesh-system/istio-ingressgateway");
    for path in [
        "/productpage",
        "/productpage?u=normal",
        "/static/css/site.css",
        "/login",
        "/logout",
        "/api/v1/products/0",
    ] {
        let answer = Call::get("127.0.0.1:8080", path).on(8080).decide(&gateway);
        assert_eq!(answer.shares(), BTreeMap::from([(cluster("productpage", ""), 100)]), "{path}");
    }
    assert_eq!(Call::get("127.0.0.1:8080", "/reviews/0").on(8080).decide(&gateway).status(), Some(404));
}

#[test]
fn every_sample_is_valid() {
    let files = [
        sample!("bookinfo-gateway"),
        sample!("destination-rule-all"),
        sample!("destination-rule-all-mtls"),
        sample!("destination-rule-reviews"),
        sample!("fault-injection-details-v1"),
        sample!("virtual-service-all-v1"),
        sample!("virtual-service-details-v2"),
        sample!("virtual-service-ratings-test-abort"),
        sample!("virtual-service-ratings-test-delay"),
        sample!("virtual-service-reviews-50-v3"),
        sample!("virtual-service-reviews-80-20"),
        sample!("virtual-service-reviews-90-10"),
        sample!("virtual-service-reviews-jason-v2-v3"),
        sample!("virtual-service-reviews-test-v2"),
        sample!("virtual-service-reviews-timeout"),
        sample!("virtual-service-reviews-v2-v3"),
        sample!("virtual-service-reviews-v3"),
    ];
    for file in files {
        for document in policies_api::document::parse(file).unwrap() {
            assert_eq!(
                policies_api::validate::validate(&document.value).expect("one of ours"),
                vec![],
                "{file}"
            );
        }
    }
}
