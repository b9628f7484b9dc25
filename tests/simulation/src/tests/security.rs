//! Mutual TLS and policies of access, as the compiled chains have them.

use sidecar_model::{FilterChain, HttpFilterKind, Snapshot, Terminal};

use crate::World;

fn inbound(snapshot: &Snapshot, port: u16) -> Vec<&FilterChain> {
    let chains = &snapshot.listeners["virtualInbound"].filter_chains;
    chains.iter().map(|it| &**it).filter(|it| it.matches.destination_port == Some(port)).collect()
}

fn plain_chains(snapshot: &Snapshot, port: u16) -> usize {
    let takes_traffic = |it: &&&FilterChain| match &it.terminal {
        Terminal::Http(_) => true,
        Terminal::Tcp(proxy) => !format!("{proxy:?}").contains("BlackHoleCluster"),
    };
    inbound(snapshot, port).iter().filter(|it| it.tls.is_none()).filter(takes_traffic).count()
}

fn policy(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn mutual_tls_is_demanded_unless_a_policy_says_otherwise() {
    let mut world = World::bookinfo();
    assert_eq!(plain_chains(&world.sidecar("reviews-v1"), 9080), 0);
    world.apply(&policy("PeerAuthentication", "mesh", "mesh-system", "{mtls: {mode: PERMISSIVE}}"));
    assert!(plain_chains(&world.sidecar("reviews-v1"), 9080) > 0);
    world.apply(&policy("PeerAuthentication", "ns", "default", "{mtls: {mode: STRICT}}"));
    assert_eq!(plain_chains(&world.sidecar("reviews-v1"), 9080), 0);
    world.apply(&policy("PeerAuthentication", "pod", "default", "{selector: {matchLabels: {app: reviews}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {9080: {mode: STRICT}}}"));
    assert_eq!(plain_chains(&world.sidecar("reviews-v1"), 9080), 0);
    assert_eq!(plain_chains(&world.sidecar("ratings-v1"), 9080), 0);
    world.delete("PeerAuthentication", "default", "pod");
    world.apply(&policy(
        "PeerAuthentication",
        "pod",
        "default",
        "{selector: {matchLabels: {app: reviews}}, mtls: {mode: DISABLE}}",
    ));
    let chains = world.sidecar("reviews-v1");
    assert!(inbound(&chains, 9080).iter().all(|it| it.tls.is_none()));
}

#[test]
fn clients_use_mutual_tls_with_the_accounts_of_the_endpoints() {
    let mut world = World::bookinfo();
    let snapshot = world.sidecar("productpage-v1");
    let cluster = &snapshot.clusters["outbound|9080|v1|reviews.default.svc.cluster.local"];
    let written = format!("{cluster:?}");
    assert!(written.contains("spiffe://cluster.local/ns/default/sa/bookinfo-reviews"), "{written}");
    assert!(written.contains("outbound_.9080_.v1_.reviews.default.svc.cluster.local"), "{written}");
    let endpoints = snapshot.endpoints_of(cluster).expect("endpoints");
    assert!(format!("{endpoints:?}").contains("tlsMode"));
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints.iter().next().and_then(|it| it.workload()).map(|it| it[0]), Some("reviews-v1"));
    // Where the server's policy turns mutual TLS off, clients must not use it.
    world.apply(&policy(
        "PeerAuthentication",
        "pod",
        "default",
        "{selector: {matchLabels: {app: reviews}}, mtls: {mode: DISABLE}}",
    ));
    let snapshot = world.sidecar("productpage-v1");
    let cluster = &snapshot.clusters["outbound|9080|v1|reviews.default.svc.cluster.local"];
    assert!(!format!("{:?}", snapshot.endpoints_of(cluster)).contains("tlsMode"));
}

fn access_filters(world: &mut World, workload: &str) -> Vec<String> {
    let snapshot = world.sidecar(workload);
    let chains = inbound(&snapshot, 9080);
    let Terminal::Http(manager) = &chains[0].terminal else { panic!("not HTTP") };
    let rbac = manager.http_filters.iter().filter(|it| matches!(it.kind, HttpFilterKind::Rbac(_)));
    rbac.map(|it| format!("{it:?}")).collect()
}

#[test]
fn policies_of_access_become_filters_refusing_first() {
    let mut world = World::bookinfo();
    assert!(access_filters(&mut world, "reviews-v1").is_empty());
    world.apply(&policy("AuthorizationPolicy", "allow", "default", "{selector: {matchLabels: {app: reviews}}, rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-productpage]}}], to: [{operation: {methods: [GET], paths: ['/reviews/*']}}]}]}"));
    world.apply(&policy(
        "AuthorizationPolicy",
        "deny",
        "default",
        "{action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}",
    ));
    let filters = access_filters(&mut world, "reviews-v1");
    assert_eq!(filters.len(), 2);
    assert!(filters[0].contains("ns[default]-policy[deny]-rule[0]"), "{}", filters[0]);
    assert!(filters[1].contains("ns[default]-policy[allow]-rule[0]"), "{}", filters[1]);
    assert!(filters[1].contains("spiffe://cluster.local/ns/default/sa/bookinfo-productpage"));
    assert_eq!(access_filters(&mut world, "ratings-v1").len(), 1);
}

#[test]
fn an_allowing_policy_without_rules_refuses_everything() {
    let mut world = World::bookinfo();
    world.apply(&policy("AuthorizationPolicy", "nothing", "mesh-system", "{}"));
    for workload in ["reviews-v1", "productpage-v1"] {
        let filters = access_filters(&mut world, workload);
        assert_eq!(filters.len(), 1, "{workload}");
        assert!(!filters[0].contains("rule["), "{}", filters[0]);
    }
}

#[test]
fn tokens_are_verified_where_a_policy_asks_for_it() {
    let mut world = World::bookinfo();
    let keys = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256","kid":"1"}]}"#;
    world.apply(&policy(
        "RequestAuthentication",
        "tokens",
        "default",
        &format!(
            "{{selector: {{matchLabels: {{app: reviews}}}}, jwtRules: [{{issuer: me, jwks: '{keys}'}}]}}"
        ),
    ));
    let resources = world.compile("reviews-v1");
    let listener = &resources.listeners["virtualInbound"].value;
    let text = String::from_utf8_lossy(listener);
    assert!(text.contains("envoy.filters.http.jwt_authn") && text.contains("origins-0"));
    assert!(
        !String::from_utf8_lossy(&world.compile("ratings-v1").listeners["virtualInbound"].value)
            .contains("jwt_authn")
    );
}

const PROVIDERS: &str = "extensionProviders:
- name: opa
  envoyExtAuthzGrpc: {service: ratings.default.svc.cluster.local, port: 9080, timeout: 1s}
- name: opa-two
  envoyExtAuthzHttp:
    service: details.default.svc.cluster.local
    port: 9080
    pathPrefix: /check
    failOpen: true
    statusOnError: '503'
    includeRequestHeadersInCheck: [x-user, x-b3-*]
    headersToUpstreamOnAllow: [x-current-user]
    headersToDownstreamOnDeny: [set-cookie]
    includeRequestBodyInCheck: {maxRequestBytes: 1024, allowPartialMessage: true}
- name: gone
  envoyExtAuthzGrpc: {service: nowhere.default.svc.cluster.local, port: 9000}
";

fn custom(name: &str, provider: &str, path: &str) -> String {
    let spec = format!(
        "{{selector: {{matchLabels: {{app: reviews}}}}, action: CUSTOM, provider: {{name: {provider}}}, rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}"
    );
    policy("AuthorizationPolicy", name, "default", &spec)
}

#[test]
fn custom_policies_select_and_ask_before_tokens_are_looked_at() {
    let mut world = World::bookinfo();
    world.configure(PROVIDERS);
    world.apply(&custom("a", "opa", "/admin"));
    world.apply(&custom("b", "opa-two", "/admin/*"));
    world.apply(&policy(
        "AuthorizationPolicy",
        "deny",
        "default",
        "{action: DENY, rules: [{to: [{operation: {methods: [TRACE]}}]}]}",
    ));
    world.apply(&policy(
        "AuthorizationPolicy",
        "audit",
        "default",
        "{action: AUDIT, rules: [{to: [{operation: {methods: [GET]}}]}]}",
    ));
    let snapshot = world.sidecar("reviews-v1");
    let chains = inbound(&snapshot, 9080);
    let Terminal::Http(manager) = &chains[0].terminal else { panic!("not HTTP") };
    let names: Vec<&str> = manager.http_filters.iter().map(|it| &*it.name).collect();
    let wanted = [
        "envoy.filters.http.rbac.custom.opa",
        "envoy.filters.http.ext_authz.opa",
        "envoy.filters.http.rbac.custom.opa-two",
        "envoy.filters.http.ext_authz.opa-two",
        "envoy.filters.http.rbac.audit",
        "envoy.filters.http.rbac.deny",
    ];
    let at: Vec<Option<usize>> = wanted.iter().map(|name| names.iter().position(|it| it == name)).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{names:?}");
    let kinds: Vec<&HttpFilterKind> = manager.http_filters.iter().map(|it| &it.kind).collect();
    let HttpFilterKind::Rbac(selects) = kinds[at[0].unwrap()] else { panic!("{names:?}") };
    assert!(selects.rules.is_none(), "selecting refuses nothing");
    let selected = selects.shadow_rules.as_ref().unwrap();
    assert_eq!(&*selected.policies[0].name, "istio-ext-authz-opa-ns[default]-policy[a]-rule[0]");
    assert_eq!(&*selects.shadow_prefix, "istio_ext_authz_");
    let HttpFilterKind::ExtAuthz(first) = kinds[at[1].unwrap()] else { panic!("{names:?}") };
    let HttpFilterKind::ExtAuthz(second) = kinds[at[3].unwrap()] else { panic!("{names:?}") };
    assert!(format!("{first:?}").contains("outbound|9080||ratings.default.svc.cluster.local"));
    assert!(second.failure_mode_allow && second.status_on_error == 503 && second.body.unwrap().allow_partial);
    // What one provider's policies select is not the other's business, though its name begins alike.
    let found = |policy: &str| {
        let mut metadata = sidecar_model::Metadata::default();
        let field = ("istio_ext_authz_shadow_effective_policy_id".to_owned(), policy.into());
        metadata.extend("envoy.filters.http.rbac", [field]);
        [first, second].map(|it| it.enabled_metadata.as_ref().unwrap().is_match(&metadata))
    };
    assert_eq!(found("istio-ext-authz-opa-ns[default]-policy[a]-rule[0]"), [true, false]);
    assert_eq!(found("istio-ext-authz-opa-two-ns[default]-policy[b]-rule[0]"), [false, true]);
    assert_eq!(found("ns[default]-policy[deny]-rule[0]"), [false, false]);
}

#[test]
fn what_is_meant_for_a_provider_that_there_is_not_is_refused() {
    for provider in ["gone", "unheard-of"] {
        let mut world = World::bookinfo();
        world.configure(PROVIDERS);
        world.apply(&custom("a", provider, "/admin"));
        let filters = access_filters(&mut world, "reviews-v1");
        assert_eq!(filters.len(), 1, "{provider}");
        assert!(filters[0].contains("deny-due-to-bad-CUSTOM-action") && filters[0].contains("action: Deny"));
    }
}
