//! Texts of strangers: identities, headers, certificates, selectors, patches, policies.

use std::time::Duration;

use base_tls::{CertificateAuthority, LeafProfile, Material, Roots};
use base_types::SpiffeId;
use cluster_machinery::patch;
use http::{HeaderMap, HeaderValue};
use policies_api::document;
use serde_json::Value;

use crate::Target;

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "spiffe_id",
            seeds: || seeds(&["spiffe://cluster.local/ns/a/sa/b", "spiffe://a/"]),
            run: spiffe_id,
        },
        Target {
            name: "duration",
            seeds: || seeds(&["1h2m3.5s", "10ms", "0s"]),
            run: |input| drop(text(input).map(base_types::duration::parse)),
        },
        Target {
            name: "peer_metadata",
            seeds: || seeds(&["ChIKBE5BTUUSChoIYS0xMjM0NTY=", "CgA="]),
            run: |input| drop(sidecar_telemetry::peer::decode(input)),
        },
        Target {
            name: "trace_context",
            seeds: || {
                seeds(&[
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                    "80f198ee56343ba8-e457b5a2e4d86bd1-1",
                ])
            },
            run: trace,
        },
        Target {
            name: "certificates_pem",
            seeds: certificates,
            run: |input| drop(text(input).map(Roots::from_pem)),
        },
        Target { name: "certificate_and_key", seeds: certificates, run: material },
        Target {
            name: "label_selector",
            seeds: || seeds(&["a=b,c!=d,e in (f,g),!h,i notin (j),k"]),
            run: |input| drop(text(input).map(str::parse::<cluster_machinery::LabelSelector>)),
        },
        Target {
            name: "field_selector",
            seeds: || seeds(&["metadata.name=a,status.phase!=Running", "a=b\\,c"]),
            run: |input| drop(text(input).map(str::parse::<cluster_machinery::FieldSelector>)),
        },
        Target {
            name: "quantity",
            seeds: || seeds(&["100m", "1.5Gi", "1e3", "-2k"]),
            run: |input| drop(text(input).map(str::parse::<cluster_machinery::Quantity>)),
        },
        Target {
            name: "timestamp",
            seeds: || seeds(&["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456+01:00"]),
            run: |input| {
                let _ = text(input).map(cluster_machinery::time::parse);
            },
        },
        Target {
            name: "json_patch",
            seeds: || {
                seeds(&[
                    r#"[{"op":"add","path":"/a/0","value":1},{"op":"move","from":"/b","path":"/a/-"},{"op":"test","path":"","value":{}}]"#,
                    // What the library behind it could not take back.
                    r#"[{"op":"add","path":"/a/0","value":1},{"op":"move","from":"/b","path":""},{"op":"test","path":"","value":{}}]"#,
                ])
            },
            run: |input| patched(input, patch::json),
        },
        Target {
            name: "merge_patch",
            seeds: || seeds(&[r#"{"a":null,"b":{"c":[1,2]}}"#]),
            run: |input| patched(input, patch::merge),
        },
        Target { name: "policy_document", seeds: documents, run: documents_of },
        Target { name: "policy_object", seeds: objects, run: object },
        Target {
            name: "selector_object",
            seeds: || {
                seeds(&[
                    r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"In","values":["d"]}]}"#,
                ])
            },
            run: |input| {
                if let Ok(value) = serde_json::from_slice::<Value>(input) {
                    drop(cluster_machinery::LabelSelector::from_object(&value));
                }
            },
        },
    ]
}

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// What is taken is written as it was read: nothing is dropped that a policy would compare.
fn spiffe_id(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.as_str(), text, "an identity changes when it is read");
        let _ = (id.trust_domain(), id.path(), id.namespace(), id.service_account(), id.principal());
    }
}

fn trace(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    for name in ["traceparent", "b3", "x-b3-traceid"] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.clone());
        let _ = sidecar_telemetry::trace::trace_id(&headers);
    }
}

fn certificates() -> Vec<Vec<u8>> {
    let Ok(authority) = CertificateAuthority::generate("a", "b", Duration::from_secs(3600)) else {
        return Vec::new();
    };
    let Ok(leaf) = authority.issue(&LeafProfile {
        server: true,
        lifetime: Duration::from_secs(60),
        ..LeafProfile::default()
    }) else {
        return Vec::new();
    };
    vec![
        authority.certificate_pem().as_bytes().to_vec(),
        format!("{}{}", leaf.chain_pem, leaf.key_pem.as_str()).into_bytes(),
    ]
}

fn material(input: &[u8]) {
    if let Some(text) = text(input) {
        let _ = Material::from_pem(text, text, None);
    }
}

fn patched<E>(input: &[u8], apply: fn(&mut Value, &Value) -> Result<(), E>) {
    let Ok(patch) = serde_json::from_slice::<Value>(input) else { return };
    let mut object =
        serde_json::json!({ "a": [1, { "b": "c" }], "b": { "d": null }, "metadata": { "name": "x" } });
    // Applied or refused: both are answers.
    let _ = apply(&mut object, &patch);
}

const VIRTUAL_SERVICE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: b}\nspec:\n  hosts: [reviews]\n  http:\n  - match: [{uri: {regex: /a(b|c)*}, headers: {x: {exact: y}}}]\n    fault: {delay: {percentage: {value: 10}, fixedDelay: 5s}}\n    retries: {attempts: 3, perTryTimeout: 2s, retryOn: 5xx}\n    route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews}, weight: 10}]\n";
const AUTHORIZATION_POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: b}\nspec:\n  action: DENY\n  rules:\n  - from: [{source: {principals: [\"*/sa/x\"], notIpBlocks: [10.0.0.0/8]}}]\n    to: [{operation: {paths: [/a/*], methods: [GET]}}]\n    when: [{key: \"request.headers[x]\", values: [\"y*\"]}]\n";

fn documents() -> Vec<Vec<u8>> {
    seeds(&[VIRTUAL_SERVICE, AUTHORIZATION_POLICY, "a: &a [x, x]\nb: [*a, *a]\n---\n- 1\n"])
}

fn documents_of(input: &[u8]) {
    let Some(text) = text(input) else { return };
    for document in document::parse(text).into_iter().flatten() {
        let _ = policies_api::validate::validate(&document.value);
        let _ = document.positions.locate("spec.http[0].route[0]");
    }
}

fn objects() -> Vec<Vec<u8>> {
    let all = [VIRTUAL_SERVICE, AUTHORIZATION_POLICY].map(document::parse);
    all.into_iter().flatten().flatten().map(|document| document.value.to_string().into_bytes()).collect()
}

fn object(input: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        let _ = policies_api::validate::validate(&value);
    }
}
