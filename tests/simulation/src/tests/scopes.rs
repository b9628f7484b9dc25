//! Who sees what: namespaces, exportTo, Sidecar objects, unknown destinations.

use crate::{Answer, Call, World};

fn with_client() -> World {
    let mut world = World::bookinfo();
    world.apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: client, namespace: other}\nspec:\n  template:\n    metadata: {labels: {app: client}}\n    spec: {serviceAccountName: client}\n",
    );
    world
}

fn decide(world: &mut World, workload: &str, host: &str) -> Answer {
    Call::get(host, "/").decide(&world.sidecar(workload))
}

fn goes_to_service(answer: &Answer) -> bool {
    answer.shares().keys().any(|it| it.starts_with("outbound|"))
}

#[test]
fn short_names_are_of_the_own_namespace() {
    let mut world = with_client();
    assert!(goes_to_service(&decide(&mut world, "default/productpage-v1", "reviews")));
    assert!(!goes_to_service(&decide(&mut world, "other/client", "reviews")));
    assert!(goes_to_service(&decide(&mut world, "other/client", "reviews.default")));
}

#[test]
fn unknown_hosts_pass_or_are_refused() {
    let mut world = with_client();
    assert_eq!(
        decide(&mut world, "other/client", "example.com").shares().into_keys().next().as_deref(),
        Some("PassthroughCluster")
    );
    world.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: mesh-system}\ndata: {mesh: 'outboundTrafficPolicy: {mode: REGISTRY_ONLY}'}\n");
    assert_eq!(decide(&mut world, "other/client", "example.com").status(), Some(502));
}

#[test]
fn an_object_exported_to_its_own_namespace_is_not_seen_elsewhere() {
    let mut world = with_client();
    world.apply("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec: {hosts: [reviews], exportTo: ['.'], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}\n");
    let cluster = |answer: Answer| answer.shares().into_keys().next().unwrap_or_default();
    assert!(cluster(decide(&mut world, "default/productpage-v1", "reviews")).contains("|v2|"));
    assert!(cluster(decide(&mut world, "other/client", "reviews.default")).contains("||"));
}

#[test]
fn a_host_of_another_namespace_is_taken_only_with_a_grant() {
    let mut world = with_client();
    let rules = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: taker, namespace: other}\nspec: {hosts: [ratings.default.svc.cluster.local], http: [{directResponse: {status: 418}}]}\n";
    world.apply(rules);
    assert_eq!(decide(&mut world, "other/client", "ratings.default").status(), Some(418));
    assert!(goes_to_service(&decide(&mut world, "default/reviews-v2", "ratings")));
    let service = |annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: ratings, namespace: default, annotations: {{{annotations}}}}}\nspec: {{clusterIP: 10.96.0.77, selector: {{app: ratings}}, ports: [{{port: 9080, name: http}}]}}\n"
        )
    };
    world.apply(&service("meshd.dev/virtual-service-namespaces: other"));
    assert_eq!(decide(&mut world, "default/reviews-v2", "ratings").status(), Some(418));
    world.apply(&service(""));
    assert!(goes_to_service(&decide(&mut world, "default/reviews-v2", "ratings")));
    world.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: mesh-system}\ndata: {mesh: 'virtualServiceHosts: ANYWHERE'}\n");
    assert_eq!(decide(&mut world, "default/reviews-v2", "ratings").status(), Some(418));
}

#[test]
fn a_sidecar_object_narrows_what_is_seen() {
    let mut world = with_client();
    let before = world.sidecar("default/productpage-v1").clusters.len();
    world.apply("apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec: {egress: [{hosts: ['./details.default.svc.cluster.local', './reviews.default.svc.cluster.local']}]}\n");
    let snapshot = world.sidecar("default/productpage-v1");
    assert!(snapshot.clusters.len() < before);
    assert!(snapshot.clusters.keys().all(|it| !it.contains("ratings")));
    assert!(goes_to_service(&decide(&mut world, "default/productpage-v1", "details")));
    assert!(!goes_to_service(&decide(&mut world, "default/productpage-v1", "ratings")));
}

#[test]
fn rules_of_the_clients_namespace_go_before_the_services() {
    let mut world = with_client();
    world.apply("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: other}\nspec: {host: reviews.default.svc.cluster.local, subsets: [{name: mine, labels: {version: v3}}]}\n");
    let of_other = world.sidecar("other/client");
    let of_default = world.sidecar("default/productpage-v1");
    let has = |snapshot: &sidecar_model::Snapshot, subset: &str| {
        snapshot
            .clusters
            .contains_key(format!("outbound|9080|{subset}|reviews.default.svc.cluster.local").as_str())
    };
    assert!(has(&of_other, "mine") && !has(&of_other, "v1"));
    assert!(has(&of_default, "v1") && !has(&of_default, "mine"));
}
