//! Small pieces of resources.

use policies_xds::core::{
    Address, Http2ProtocolOptions, SocketAddress, address, socket_address::PortSpecifier,
};
use policies_xds::endpoint::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use policies_xds::http_protocol_options::HttpProtocolOptions;
use policies_xds::http_protocol_options::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use policies_xds::protobuf::Any;
use policies_xds::{any, type_url};
use std::collections::HashMap;
use std::net::SocketAddr;

/// A TCP address.
#[must_use]
pub fn socket(address: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..Default::default()
        })),
    }
}

/// Endpoints of a cluster, all in one locality.
#[must_use]
pub fn load_assignment(cluster: &str, endpoints: &[SocketAddr]) -> ClusterLoadAssignment {
    let one = |at: &SocketAddr| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(socket(*at)),
            ..Default::default()
        })),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: endpoints.iter().map(one).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A cluster's `typed_extension_protocol_options` for HTTP/2.
#[must_use]
pub fn http2() -> HashMap<String, Any> {
    let explicit = ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    };
    HashMap::from([(type_url::HTTP_PROTOCOL_OPTIONS_KEY.to_owned(), any(&options))])
}
