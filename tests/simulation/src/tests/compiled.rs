//! Properties of what is compiled: determinism, the fast path for endpoints, what changes do not touch, and the bootstrap for a real Envoy.

use meshd_compile::{Affected, ResourceType, affected, compile, compile_endpoints};
use meshd_model::{Change, ChangeKind};

use crate::{World, bootstrap};

/// Objects of many sorts, so that every compiler has something to do.
const MANY: &str = include_str!("many.yaml");

fn full() -> World {
    let mut world = World::bookinfo();
    world.apply(MANY);
    world.apply(include_str!("../../../../policies/samples/bookinfo/networking/bookinfo-gateway.yaml"));
    world.apply(include_str!("../../../../policies/samples/bookinfo/networking/virtual-service-all-v1.yaml"));
    world
}

const PROXIES: [&str; 4] = ["productpage-v1", "reviews-v1", "ratings-v1", "mesh-system/istio-ingressgateway"];

#[test]
fn equal_input_gives_equal_bytes() {
    for workload in PROXIES {
        let first = full().compile(workload);
        for _ in 0..5 {
            let again = full().compile(workload);
            for kind in ResourceType::ALL {
                for (name, resource) in first.of(kind).iter() {
                    assert_eq!(again.of(kind)[name].hash, resource.hash, "{workload} {kind:?} {name}");
                }
                assert_eq!(first.of(kind).len(), again.of(kind).len());
            }
        }
    }
}

#[test]
fn the_sidecar_takes_everything() {
    for workload in PROXIES {
        let snapshot = full().sidecar(workload);
        assert!(snapshot.clusters.len() > 10, "{workload}");
    }
}

#[test]
fn the_fast_path_equals_a_full_compilation() {
    let mut world = full();
    let proxy = world.proxy("productpage-v1");
    let before = world.snapshot();
    let old = compile(&before, &proxy);
    world.apply("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: reviews-v4}\nspec:\n  replicas: 3\n  template:\n    metadata: {labels: {app: reviews, version: v1}}\n    spec: {serviceAccountName: bookinfo-reviews}\n");
    let after = world.snapshot();
    let change = world.change().clone();
    assert_eq!(affected(&change, &before, &after, &proxy), Affected::Endpoints);
    let fast = compile_endpoints(&after, &proxy, &old, &change);
    let whole = compile(&after, &proxy);
    assert_eq!(fast.endpoints, whole.endpoints);
    assert_ne!(fast.endpoints, old.endpoints);
    assert_eq!(fast.clusters, whole.clusters);
}

#[test]
fn a_route_change_touches_routes_only() {
    let mut world = full();
    let before = world.compile("productpage-v1");
    world.apply(include_str!(
        "../../../../policies/samples/bookinfo/networking/virtual-service-reviews-90-10.yaml"
    ));
    let after = world.compile("productpage-v1");
    assert_ne!(before.routes, after.routes);
    assert_eq!(before.clusters, after.clusters);
    assert_eq!(before.endpoints, after.endpoints);
    assert_eq!(before.listeners, after.listeners);
    let changed = after.routes.iter().filter(|(name, it)| before.routes.get(*name) != Some(it)).count();
    assert_eq!(changed, 1);
}

#[test]
fn changes_that_do_not_concern_a_proxy_do_not_reach_it() {
    let mut world = full();
    let reviews = world.proxy("reviews-v1");
    let before = world.snapshot();
    world.apply("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: only-ratings}\nspec: {selector: {matchLabels: {app: ratings}}, rules: [{}]}\n");
    let after = world.snapshot();
    let ratings = world.proxy("ratings-v1");
    let mut change = Change::default();
    change.add(ChangeKind::Policy(policies_api::Kind::AuthorizationPolicy), "default", "only-ratings");
    assert_eq!(affected(&change, &before, &after, &reviews), Affected::Nothing);
    assert_eq!(affected(&change, &before, &after, &ratings), Affected::Everything);
}

#[test]
fn the_bootstrap_for_a_real_envoy_holds_every_resource() {
    use prost::Message;
    for workload in PROXIES {
        let resources = full().compile(workload);
        let bytes = bootstrap(&resources);
        let listeners: usize = resources.listeners.values().map(|it| it.value.len()).sum();
        assert!(bytes.len() > listeners, "{workload}");
        let name = resources.clusters.keys().next().expect("a cluster");
        assert!(String::from_utf8_lossy(&bytes).contains(&**name));
        // It is a message: an unknown-field decode of the outermost level succeeds.
        <() as Message>::decode(&*bytes).expect("a protobuf message");
    }
}
