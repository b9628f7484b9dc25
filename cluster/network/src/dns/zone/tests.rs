use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::services::tests::{key, service, slice};

fn catalog() -> Arc<ServiceCatalog> {
    let catalog = ServiceCatalog::new();
    let put = |name: &str, spec| catalog.put_service(&key(name), service(spec));
    let ports = json!([{"name": "web", "port": 80}]);
    put("web", json!({"clusterIP": "10.96.0.5", "ports": ports}));
    put("peers", json!({"clusterIP": "None", "ports": ports}));
    put("quiet", json!({"clusterIP": "None", "ports": ports}));
    put("out", json!({"type": "ExternalName", "externalName": "example.com"}));
    let endpoints = json!([
        {"addresses": ["10.244.1.2"], "hostname": "peer-0", "conditions": {"ready": true}},
        {"addresses": ["10.244.2.2"], "conditions": {"ready": true}},
        {"addresses": ["10.244.2.3"], "conditions": {"ready": false}},
    ]);
    catalog.put_slice(&key("peers-1"), &key("peers"), slice("peers", 8080, endpoints));
    catalog
}

/// `NXDomain`, or the records as words, or nothing for an existing name without such a record.
fn ask(name: &str, wanted: RecordType) -> String {
    let answer = Zone::new("cluster.local")
        .unwrap()
        .answer(&catalog(), &Query::query(Name::from_ascii(name).unwrap(), wanted));
    if answer.code != ResponseCode::NoError {
        return format!("{:?}", answer.code);
    }
    let has_soa = answer.authority.iter().any(|record| record.record_type() == RecordType::SOA);
    assert_eq!(has_soa, answer.records.is_empty(), "SOA exactly when nothing is there");
    let words = |records: &[Record]| records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>();
    let mut all = words(&answer.records);
    all.extend(words(&answer.additional).iter().map(|text| format!("+{text}")));
    all.join(" | ")
}

#[test]
fn addresses() {
    for (name, expected) in [
        ("web.default.svc.cluster.local.", "10.96.0.5"),
        ("WEB.Default.svc.cluster.LOCAL.", "10.96.0.5"),
        ("peers.default.svc.cluster.local.", "10.244.1.2 | 10.244.2.2"),
        ("peer-0.peers.default.svc.cluster.local.", "10.244.1.2"),
        ("10-244-2-2.peers.default.svc.cluster.local.", "10.244.2.2"),
        ("10-244-2-3.peers.default.svc.cluster.local.", "NXDomain"),
        ("10-244-7-9.default.pod.cluster.local.", "10.244.7.9"),
        ("ns.dns.cluster.local.", "10.96.0.10"),
        ("quiet.default.svc.cluster.local.", ""),
        ("default.svc.cluster.local.", ""),
        ("svc.cluster.local.", ""),
        ("out.default.svc.cluster.local.", "example.com."),
        ("none.default.svc.cluster.local.", "NXDomain"),
        ("web.other.svc.cluster.local.", "NXDomain"),
        ("other.svc.cluster.local.", "NXDomain"),
        ("x.y.web.default.svc.cluster.local.", "NXDomain"),
        ("nonsense.default.pod.cluster.local.", "NXDomain"),
        ("web.default.svc.cluster.local.default.svc.cluster.local.", "NXDomain"),
        ("example.com.", "NXDomain"),
        (".", "NXDomain"),
    ] {
        assert_eq!(ask(name, RecordType::A), expected, "{name}");
    }
}

#[test]
fn other_types() {
    for (name, wanted, expected) in [
        ("web.default.svc.cluster.local.", RecordType::AAAA, ""),
        ("none.default.svc.cluster.local.", RecordType::AAAA, "NXDomain"),
        (
            "_web._tcp.web.default.svc.cluster.local.",
            RecordType::SRV,
            "0 100 80 web.default.svc.cluster.local. | +10.96.0.5",
        ),
        (
            "_web._tcp.peers.default.svc.cluster.local.",
            RecordType::SRV,
            "0 100 8080 peer-0.peers.default.svc.cluster.local. | 0 100 8080 10-244-2-2.peers.default.svc.cluster.local. \
             | +10.244.1.2 | +10.244.2.2",
        ),
        ("_web._tcp.quiet.default.svc.cluster.local.", RecordType::SRV, ""),
        ("_web._udp.web.default.svc.cluster.local.", RecordType::SRV, "NXDomain"),
        ("_tcp.web.default.svc.cluster.local.", RecordType::SRV, ""),
        ("_web._tcp.web.default.svc.cluster.local.", RecordType::A, ""),
        ("5.0.96.10.in-addr.arpa.", RecordType::PTR, "web.default.svc.cluster.local."),
        ("2.1.244.10.in-addr.arpa.", RecordType::PTR, "peer-0.peers.default.svc.cluster.local."),
        ("3.2.244.10.in-addr.arpa.", RecordType::PTR, "NXDomain"),
        ("8.8.8.8.in-addr.arpa.", RecordType::PTR, "NXDomain"),
        ("dns-version.cluster.local.", RecordType::TXT, "1.1.0"),
        ("out.default.svc.cluster.local.", RecordType::CNAME, "example.com."),
        (
            "cluster.local.",
            RecordType::SOA,
            "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
        ),
        ("cluster.local.", RecordType::NS, "ns.dns.cluster.local."),
    ] {
        assert_eq!(ask(name, wanted), expected, "{name} {wanted}");
    }
}

#[test]
fn a_name_changes_with_its_service() {
    let catalog = catalog();
    let zone = Zone::new("cluster.local").unwrap();
    let ask = || {
        let name = Name::from_ascii("out.default.svc.cluster.local.").unwrap();
        zone.answer(&catalog, &Query::query(name, RecordType::A)).records[0].data.to_string()
    };
    assert_eq!(ask(), "example.com.");
    catalog.put_service(&key("out"), service(json!({"clusterIP": "10.96.0.8"})));
    assert_eq!(ask(), "10.96.0.8");
}
