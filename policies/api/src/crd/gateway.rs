//! Schemas of `Gateway` and `Sidecar`, which share ports and TLS.

use super::destination_rule::connection_pool;
use super::{destination, labels_selector, server_port, server_tls, string_map, strings};
use crate::schema::{Schema, list, object, one_of, text};

pub(super) fn spec() -> Schema {
    let server = object(vec![
        ("bind", text()),
        ("defaultEndpoint", text()),
        ("hosts", strings()),
        ("name", text()),
        ("port", server_port(&["number", "protocol", "name"])),
        ("tls", server_tls()),
    ])
    .required(&["port", "hosts"]);
    object(vec![("selector", string_map()), ("servers", list(server))])
}

pub(super) fn sidecar() -> Schema {
    let capture = || one_of(&["DEFAULT", "IPTABLES", "NONE"]);
    let egress = object(vec![
        ("bind", text()),
        ("captureMode", capture()),
        ("hosts", strings()),
        ("port", server_port(&[])),
    ])
    .required(&["hosts"]);
    let ingress = object(vec![
        ("bind", text()),
        ("captureMode", capture()),
        ("connectionPool", connection_pool()),
        ("defaultEndpoint", text()),
        ("port", server_port(&[])),
        ("tls", server_tls()),
    ])
    .required(&["port"]);
    object(vec![
        ("egress", list(egress)),
        ("inboundConnectionPool", connection_pool()),
        ("ingress", list(ingress)),
        (
            "outboundTrafficPolicy",
            object(vec![("egressProxy", destination()), ("mode", one_of(&["REGISTRY_ONLY", "ALLOW_ANY"]))]),
        ),
        ("workloadSelector", labels_selector()),
    ])
}
