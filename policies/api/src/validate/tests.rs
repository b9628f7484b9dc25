use serde_json::{Value, json};

use super::*;
use crate::document;

fn problems(yaml: &str) -> Vec<Problem> {
    validate(&document::parse(yaml).unwrap()[0].value).unwrap()
}

fn virtual_service(http: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "it", "namespace": "default" },
        "spec": { "hosts": ["reviews"], "http": http },
    })
}

fn errors_of(object: &Value) -> Vec<(String, String)> {
    let found = validate(object).unwrap().into_iter().filter(|it| it.severity == Severity::Error);
    found.map(|it| (it.path, it.reason)).collect()
}

#[test]
fn good_objects_have_no_problems() {
    let yaml = "
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {delay: {percentage: {value: 100.0}, fixedDelay: 7s}}
    route: [{destination: {host: ratings, subset: v1}}]
  - route: [{destination: {host: ratings, subset: v1}, weight: 90}, {destination: {host: ratings, subset: v2}, weight: 10}]
    timeout: 0.5s
    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'gateway-error,connect-failure,503'}
";
    assert_eq!(problems(yaml), vec![]);
}

#[test]
fn foreign_kinds_are_left_alone() {
    assert!(
        validate(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a" } })).is_none()
    );
    assert!(validate(&json!({ "apiVersion": "networking.istio.io/v9", "kind": "VirtualService" })).is_none());
}

#[test]
fn http_rules_say_what_istio_says() {
    let route = json!([{ "destination": { "host": "reviews" } }]);
    let cases = [
        (
            json!([{ "route": route, "redirect": { "uri": "/" } }]),
            "spec.http[0]",
            "HTTP route cannot contain both route and redirect",
        ),
        (json!([{}]), "spec.http[0]", "HTTP route, redirect or direct_response is required"),
        (
            json!([{ "match": [{ "uri": { "prefix": "" } }], "route": route }]),
            "spec.http[0].match[0].uri",
            "prefix string match should not be empty",
        ),
        (
            json!([{ "route": [{ "destination": { "host": "a" }, "weight": 0 }, { "destination": { "host": "b" }, "weight": 0 }] }]),
            "spec.http[0].route",
            "total destination weight = 0",
        ),
        (
            json!([{ "route": [{ "destination": { "host": "a" }, "weight": -1 }] }]),
            "spec.http[0].route[0].weight",
            "weight -1 < 0",
        ),
        (
            json!([{ "route": [{ "destination": { "host": "" } }] }]),
            "spec.http[0].route[0].destination.host",
            "destination host is empty",
        ),
        (
            json!([{ "route": route, "fault": { "abort": { "httpStatus": 99 } } }]),
            "spec.http[0].fault.abort.httpStatus",
            "HTTP status 99 is not in range 200-599",
        ),
        (
            json!([{ "route": route, "fault": { "delay": { "exponentialDelay": "1s" } } }]),
            "spec.http[0].fault.delay.exponentialDelay",
            "exponentialDelay not supported yet",
        ),
        (
            json!([{ "route": route, "fault": { "delay": { "fixedDelay": "1s", "percentage": { "value": 101.0 } } } }]),
            "spec.http[0].fault.delay.percentage.value",
            "percentage 101 is not in range 0..100",
        ),
        (
            json!([{ "route": route, "retries": { "attempts": 1, "retryOn": "5xxx" } }]),
            "spec.http[0].retries.retryOn",
            "5xxx is not a valid retryOn policy",
        ),
        (
            json!([{ "redirect": { "redirectCode": 200, "uri": "/" } }]),
            "spec.http[0].redirect.redirectCode",
            "redirect code 200 is not supported",
        ),
        (
            json!([{ "directResponse": { "status": 99 } }]),
            "spec.http[0].directResponse.status",
            "HTTP status 99 is not in range 200-599",
        ),
        (
            json!([{ "delegate": { "name": "a" }, "route": route }]),
            "spec.http[0]",
            "root HTTP route can not set route or redirect or direct response with delegate",
        ),
    ];
    for (http, path, reason) in cases {
        let found = errors_of(&virtual_service(http.clone()));
        assert_eq!(found, vec![(path.to_owned(), reason.to_owned())], "{http}");
    }
}

#[test]
fn malformed_fields_are_located_and_explained() {
    let yaml = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - route:
    - destination:
        host: reviews
        subst: v1
      weight: \"90\"
    timeout: 5 seconds
";
    let document = &document::parse(yaml).unwrap()[0];
    let found = validate(&document.value).unwrap();
    let unknown = &found[0];
    assert_eq!(unknown.path, "spec.http[0].route[0].destination.subst");
    assert_eq!(unknown.fix, "did you mean `subset`?");
    assert_eq!(document.positions.locate(&unknown.path).unwrap().line, 12);
    let weight = &found[1];
    assert_eq!(weight.reason, "is \"90\", text");
    assert_eq!(weight.fix, "write a whole number without quotes: 90");
    assert_eq!(document.positions.locate(&weight.path).unwrap().line, 13);
    let only_duration = yaml.replace("\"90\"", "90").replace("subst", "subset");
    let found = problems(&only_duration);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "spec.http[0].timeout");
    assert!(found[0].reason.contains("5 seconds"), "{}", found[0].reason);
}

#[test]
fn security_kinds_are_checked() {
    let yaml = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {portLevelMtls: {8080: {mode: DISABLE}}}
";
    assert_eq!(problems(yaml)[0].reason, "mesh/namespace peer authentication cannot have port level mTLS");
    let yaml = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec:
  action: ALLOWED
  rules: [{from: [{source: {ipBlocks: [10.0.0]}}], when: [{key: source.ipp, values: [1.2.3.4]}]}]
";
    let found = problems(yaml);
    assert_eq!(found[0].path, "spec.action");
    assert!(found[0].fix.ends_with("did you mean ALLOW?"), "{}", found[0].fix);
    let fixed = yaml.replace("ALLOWED", "ALLOW");
    let paths: Vec<String> = problems(&fixed).into_iter().map(|it| it.path).collect();
    assert_eq!(paths, ["spec.rules[0].from[0].source.ipBlocks[0]", "spec.rules[0].when[0].key"]);
}

#[test]
fn rules_behind_a_catch_all_are_warned_of() {
    let route = json!([{ "destination": { "host": "reviews" } }]);
    let found = validate(&virtual_service(json!([{ "route": route }, { "route": route }]))).unwrap();
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].path, "spec.http[1]");
}

#[test]
fn missing_subsets_and_hosts_are_found() {
    let object = virtual_service(json!([
        { "route": [{ "destination": { "host": "reviews", "subset": "v4" } }, { "destination": { "host": "ratigs" }, "weight": 1 }] }
    ]));
    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "reviews", "namespace": "default" },
        "spec": { "host": "reviews", "subsets": [{ "name": "v1" }, { "name": "v2" }] },
    });
    let service = || KnownService { ports: BTreeSet::from([9080]) };
    let known = Known {
        services: ["reviews", "ratings"]
            .iter()
            .map(|it| (format!("{it}.default.svc.cluster.local"), service()))
            .collect(),
        objects: vec![rule],
        cluster_domain: "cluster.local".to_owned(),
    };
    let found = references(&object, &known);
    assert_eq!(found[0].path, "spec.http[0].route[0].destination.subset");
    assert_eq!(found[0].severity, Severity::Error);
    assert!(found[0].fix.contains("v1, v2"), "{}", found[0].fix);
    assert_eq!(found[1].path, "spec.http[0].route[1].destination.host");
    assert_eq!(found[1].fix, "did you mean ratings?");
}

use std::collections::BTreeSet;

#[test]
fn keys_of_tokens_never_come_from_the_proxys_own_machine() {
    let object = |uri: &str| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": { "name": "it", "namespace": "default" },
            "spec": { "jwtRules": [{ "issuer": "me", "jwksUri": uri }] },
        })
    };
    for uri in [
        "http://127.0.0.1:15000/quitquitquit",
        "http://127.1.2.3/",
        "http://localhost:15000/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[fe80::1]:80/",
        "file:///etc/passwd",
        "http://user@issuer/",
        "gopher://issuer/",
        "http://",
    ] {
        let errors = errors_of(&object(uri));
        assert_eq!(errors.len(), 1, "{uri}: {errors:?}");
        assert_eq!(errors[0].0, "spec.jwtRules[0].jwksUri", "{uri}");
    }
    for uri in ["http://issuer.auth:8080/keys", "https://issuer.example/keys", "http://10.96.0.20/keys"] {
        assert_eq!(errors_of(&object(uri)), vec![], "{uri}");
    }
}
