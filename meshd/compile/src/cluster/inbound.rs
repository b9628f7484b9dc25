//! Clusters from a sidecar to its application: to the address the connection came for, from 127.0.0.6 so that it is not intercepted again.

use meshd_model::ProxyKind;
use policies_xds::cluster::Cluster;
use policies_xds::core::{BindConfig, SocketAddress, socket_address::PortSpecifier};

use super::{INBOUND_PASSTHROUGH, original_dst};
use crate::inbound;
use crate::proto::{list, metadata, structure, text};
use crate::view::View;

/// Source address of connections to the application.
const SOURCE: &str = "127.0.0.6";

pub(super) fn clusters(view: &View<'_>) -> Vec<Cluster> {
    if view.proxy.kind == ProxyKind::Router {
        return Vec::new();
    }
    let passthrough =
        Cluster { upstream_bind_config: Some(bind()), ..original_dst(view, INBOUND_PASSTHROUGH) };
    let mut clusters = vec![passthrough];
    for port in inbound::ports(view) {
        let service = structure(vec![
            ("host", text(&*port.service.host)),
            ("name", text(&*port.service.name)),
            ("namespace", text(&*port.service.namespace)),
        ]);
        let services = list(vec![policies_xds::protobuf::Value {
            kind: Some(policies_xds::protobuf::value::Kind::StructValue(service)),
        }]);
        let mut cluster = Cluster {
            upstream_bind_config: Some(bind()),
            metadata: Some(metadata(vec![("istio", structure(vec![("services", services)]))])),
            ..original_dst(view, &inbound::name(port.port))
        };
        if port.protocol.is_http2() {
            cluster.typed_extension_protocol_options = super::policy::explicit_http2();
        } else if !port.protocol.is_unset() {
            cluster.typed_extension_protocol_options.clear();
        }
        clusters.push(cluster);
    }
    clusters
}

fn bind() -> BindConfig {
    BindConfig {
        source_address: Some(SocketAddress {
            address: SOURCE.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(0)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
