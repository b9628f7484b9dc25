//! Custom resource definitions of every kind, written from the same schemas by which objects are checked.

mod destination_rule;
mod gateway;
mod security;
mod service_entry;
mod virtual_service;

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::schema::{Schema, boolean, list, map, object, one_of, open, text, uint32};

/// The CRD of every kind.
#[must_use]
pub fn all() -> Vec<Value> {
    Kind::ALL.into_iter().map(definition).collect()
}

/// The CRD of a kind.
#[must_use]
pub fn definition(kind: Kind) -> Value {
    let family = kind.group().split('.').next().unwrap_or_default();
    let schema = json!({
        "type": "object",
        "properties": { "spec": spec(kind).to_json(), "status": status().to_json() },
    });
    let stored = storage_version(kind);
    let versions: Vec<Value> = kind
        .versions()
        .iter()
        .map(|version| {
            json!({
                "name": version,
                "served": true,
                "storage": *version == stored,
                "schema": { "openAPIV3Schema": schema },
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns(kind),
            })
        })
        .collect();
    let mut names = json!({
        "kind": kind.name(),
        "listKind": format!("{}List", kind.name()),
        "plural": kind.plural(),
        "singular": kind.name().to_ascii_lowercase(),
        "categories": ["istio-io", format!("{family}-istio-io")],
    });
    if !kind.short_names().is_empty() {
        names["shortNames"] = json!(kind.short_names());
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural(), kind.group()),
            "labels": { "app.kubernetes.io/part-of": "mesh" },
        },
        "spec": { "group": kind.group(), "names": names, "scope": "Namespaced", "versions": versions },
    })
}

/// The schema of a kind's `spec`.
#[must_use]
pub fn spec(kind: Kind) -> Schema {
    match kind {
        Kind::VirtualService => virtual_service::spec(),
        Kind::DestinationRule => destination_rule::spec(),
        Kind::Gateway => gateway::spec(),
        Kind::ServiceEntry => service_entry::spec(),
        Kind::Sidecar => gateway::sidecar(),
        Kind::PeerAuthentication => security::peer_authentication(),
        Kind::RequestAuthentication => security::request_authentication(),
        Kind::AuthorizationPolicy => security::authorization_policy(),
        Kind::Telemetry => security::telemetry(),
    }
}

const fn storage_version(kind: Kind) -> &'static str {
    match kind {
        Kind::Telemetry => "v1alpha1",
        _ => "v1",
    }
}

fn columns(kind: Kind) -> Vec<Value> {
    let column = |name: &str, path: &str, kind: &str| json!({ "name": name, "jsonPath": path, "type": kind });
    let own: &[(&str, &str)] = match kind {
        Kind::VirtualService => &[("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")],
        Kind::DestinationRule => &[("Host", ".spec.host")],
        Kind::ServiceEntry => {
            &[("Hosts", ".spec.hosts"), ("Location", ".spec.location"), ("Resolution", ".spec.resolution")]
        }
        Kind::PeerAuthentication => &[("Mode", ".spec.mtls.mode")],
        Kind::AuthorizationPolicy => &[("Action", ".spec.action")],
        Kind::Gateway | Kind::Sidecar | Kind::RequestAuthentication | Kind::Telemetry => &[],
    };
    let own = own.iter().map(|(name, path)| column(name, path, "string"));
    own.chain(std::iter::once(column("Age", ".metadata.creationTimestamp", "date"))).collect()
}

/// Istio's status, to which ours adds fields.
fn status() -> Schema {
    open(vec![(
        "conditions",
        list(open(vec![
            ("type", text()),
            ("status", text()),
            ("reason", text()),
            ("message", text()),
            ("lastProbeTime", text()),
            ("lastTransitionTime", text()),
        ])),
    )])
}

/// A duration such as `1.5s`.
fn duration() -> Schema {
    text()
}

fn strings() -> Schema {
    list(text())
}

fn string_map() -> Schema {
    map(text())
}

fn string_match() -> Schema {
    object(vec![("exact", text()), ("prefix", text()), ("regex", text())])
        .exclusive(&["exact", "prefix", "regex"])
}

fn percent() -> Schema {
    object(vec![("value", crate::schema::number())])
}

fn port_selector() -> Schema {
    object(vec![("number", uint32())])
}

fn destination() -> Schema {
    object(vec![("host", text()), ("port", port_selector()), ("subset", text())]).required(&["host"])
}

/// `workloadSelector` of the networking kinds.
fn labels_selector() -> Schema {
    object(vec![("labels", string_map())])
}

fn server_port(required: &'static [&'static str]) -> Schema {
    object(vec![("name", text()), ("number", uint32()), ("protocol", text()), ("targetPort", uint32())])
        .required(required)
}

fn server_tls() -> Schema {
    let version = || one_of(&["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]);
    object(vec![
        ("caCertCredentialName", text()),
        ("caCertificates", text()),
        ("caCrl", text()),
        ("cipherSuites", strings()),
        ("credentialName", text()),
        ("credentialNames", strings().at_most(2)),
        ("ecdhCurves", strings()),
        ("httpsRedirect", boolean()),
        ("insecureSkipVerify", boolean().nullable()),
        ("maxProtocolVersion", version()),
        ("minProtocolVersion", version()),
        (
            "mode",
            one_of(&[
                "PASSTHROUGH",
                "SIMPLE",
                "MUTUAL",
                "AUTO_PASSTHROUGH",
                "ISTIO_MUTUAL",
                "OPTIONAL_MUTUAL",
            ]),
        ),
        ("privateKey", text()),
        ("serverCertificate", text()),
        ("subjectAltNames", strings()),
        (
            "tlsCertificates",
            list(object(vec![
                ("caCertificates", text()),
                ("privateKey", text()),
                ("serverCertificate", text()),
            ]))
            .at_most(2),
        ),
        ("verifyCertificateHash", strings()),
        ("verifyCertificateSpki", strings()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_exactly_one_stored_version() {
        for definition in all() {
            let versions = definition["spec"]["versions"].as_array().unwrap();
            assert_eq!(versions.iter().filter(|it| it["storage"] == true).count(), 1, "{definition}");
            assert!(versions.iter().all(|it| it["subresources"]["status"].is_object()));
        }
    }

    #[test]
    fn every_example_of_a_typed_field_is_known_to_the_schema() {
        // The serde types and the schemas are written apart; a spec that fills many fields must satisfy both.
        let spec_value = json!({
            "hosts": ["a"], "http": [{ "match": [{ "uri": { "prefix": "/" }, "withoutHeaders": { "x": {} } }],
            "route": [{ "destination": { "host": "a", "port": { "number": 80 } }, "weight": 1 }],
            "retries": { "attempts": 1, "perTryTimeout": "1s" }, "timeout": "2s", "mirror_percent": 5 }],
        });
        assert_eq!(crate::schema::check(&spec(Kind::VirtualService), &spec_value, "spec"), vec![]);
        crate::Spec::parse(Kind::VirtualService, Some(&spec_value)).unwrap();
    }
}
