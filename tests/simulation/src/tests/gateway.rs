//! The gateway: hosts, several objects for one host, redirects to TLS, certificates.

use crate::{Call, World};

const GATEWAY: &str = "mesh-system/istio-ingressgateway";

fn world(servers: &str, rules: &str) -> World {
    let mut world = World::bookinfo();
    world.apply(&format!("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers: {servers}\n"));
    world.apply(rules);
    world
}

fn rules(name: &str, hosts: &str, http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{hosts: {hosts}, gateways: [g], http: {http}}}\n"
    )
}

const HTTP: &str =
    "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com', 'exact.org']}]";

#[test]
fn hosts_must_be_those_of_the_server() {
    let http = "[{route: [{destination: {host: productpage}}]}]";
    let mut world = world(HTTP, &rules("a", "['shop.example.com', 'exact.org', 'foreign.org']", http));
    let snapshot = world.sidecar(GATEWAY);
    let status = |host: &str| Call::get(host, "/").on(8080).decide(&snapshot).status();
    assert_eq!(status("shop.example.com"), None);
    assert_eq!(status("shop.example.com:8080"), None);
    assert_eq!(status("exact.org"), None);
    assert_eq!(status("other.example.com"), Some(404));
    assert_eq!(status("foreign.org"), Some(404));
}

#[test]
fn objects_for_one_host_are_joined_with_catch_alls_last() {
    let everything = rules("first", "['a.example.com']", "[{route: [{destination: {host: productpage}}]}]");
    let special = rules(
        "second",
        "['a.example.com']",
        "[{match: [{uri: {prefix: /d}}], route: [{destination: {host: details}}]}]",
    );
    let mut world = world(HTTP, &(everything + &special));
    let snapshot = world.sidecar(GATEWAY);
    let cluster =
        |path: &str| Call::get("a.example.com", path).on(8080).decide(&snapshot).shares().into_keys().next();
    assert_eq!(cluster("/d").as_deref(), Some("outbound|9080||details.default.svc.cluster.local"));
    assert_eq!(cluster("/x").as_deref(), Some("outbound|9080||productpage.default.svc.cluster.local"));
}

#[test]
fn plain_requests_are_sent_to_tls_where_asked() {
    let servers = "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['a.org'], tls: {httpsRedirect: true}},
        {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['a.org'], tls: {mode: SIMPLE, credentialName: cert}}]";
    let mut world =
        world(servers, &rules("a", "['a.org']", "[{route: [{destination: {host: productpage}}]}]"));
    world.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: mesh-system}\ndata: {tls.crt: Y2VydA==, tls.key: a2V5}\n");
    let resources = world.compile(GATEWAY);
    assert!(resources.secrets.contains_key("kubernetes://cert"));
    assert!(resources.listeners.contains_key("0.0.0.0_8443"));
    assert!(resources.routes.contains_key("https.8443.https.g.default"));
    // The sidecar's model refuses a certificate that is none, so only listeners and routes are asked here.
    assert!(world.compile("productpage-v1").secrets.is_empty());
}

#[test]
fn a_gateway_without_rules_answers_404() {
    let mut world = world(HTTP, "");
    let snapshot = world.sidecar(GATEWAY);
    assert_eq!(Call::get("a.example.com", "/").on(8080).decide(&snapshot).status(), Some(404));
}

#[test]
fn sidecars_do_not_see_rules_that_are_for_a_gateway() {
    let mut world = world(
        HTTP,
        &rules("a", "['reviews.default.svc.cluster.local']", "[{directResponse: {status: 418}}]"),
    );
    let snapshot = world.sidecar("productpage-v1");
    assert_eq!(Call::get("reviews", "/").decide(&snapshot).status(), None);
}
