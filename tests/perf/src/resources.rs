//! Listeners and clusters of the measured proxies: the same messages for ours, over xDS, and for Envoy, as a bootstrap.

use anyhow::Result;
use base_tls::{CertificateAuthority, LeafProfile};
use policies_xds::cluster::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType};
use policies_xds::core::{
    Address, DataSource, Http1ProtocolOptions, Http2ProtocolOptions, Node, SocketAddress, TrafficDirection,
    TransportSocket, address, data_source::Specifier, socket_address::PortSpecifier, transport_socket,
};
use policies_xds::endpoint::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use policies_xds::hcm::http_connection_manager::RouteSpecifier;
use policies_xds::hcm::{HttpConnectionManager, HttpFilter, http_filter};
use policies_xds::http_protocol_options::HttpProtocolOptions;
use policies_xds::http_protocol_options::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use policies_xds::listener::{Filter, FilterChain, Listener, filter};
use policies_xds::protobuf::{Any, BoolValue};
use policies_xds::route::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action::ClusterSpecifier,
    route_match::PathSpecifier,
};
use policies_xds::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate, TlsParameters,
    UpstreamTlsContext, common_tls_context::ValidationContextType, tls_parameters::TlsProtocol,
};
use policies_xds::{any, router, type_url};
use prost::Message;
use std::time::Duration;

/// Name that clients send and servers are found by.
const SNI: &str = "outbound_.80_._.app.default.svc.cluster.local";

/// Ports of one pair of proxies. The first three listen in the outbound proxy.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Mutual TLS and HTTP/2 towards the inbound proxy.
    pub mesh_h2: u16,
    /// Mutual TLS and HTTP/1.1 towards the inbound proxy.
    pub mesh_h1: u16,
    /// Plain HTTP/1.1 towards the backend.
    pub one_hop: u16,
    /// The inbound proxy's.
    pub inbound: u16,
    /// The application's.
    pub backend: u16,
}

/// A certificate with its key and the root it is trusted by, all PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    chain: String,
    key: String,
    root: String,
}

/// What one proxy is configured with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    pub listeners: Vec<Listener>,
    pub clusters: Vec<Cluster>,
}

/// Envoy's `Bootstrap`, the fields needed here.
#[derive(Clone, PartialEq, Message)]
struct Bootstrap {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(message, optional, tag = "2")]
    static_resources: Option<StaticResources>,
}

#[derive(Clone, PartialEq, Message)]
struct StaticResources {
    #[prost(message, repeated, tag = "1")]
    listeners: Vec<Listener>,
    #[prost(message, repeated, tag = "2")]
    clusters: Vec<Cluster>,
}

// === impl Identity ===

impl Identity {
    /// An identity of the service account `name`.
    pub fn issue(ca: &CertificateAuthority, name: &str) -> Result<Self> {
        let id = format!("spiffe://cluster.local/ns/default/sa/{name}").parse()?;
        let issued = ca.issue(&LeafProfile {
            spiffe_id: Some(id),
            server: true,
            client: true,
            lifetime: Duration::from_secs(86_400),
            ..LeafProfile::default()
        })?;
        Ok(Self {
            chain: issued.chain_pem,
            key: issued.key_pem.to_string(),
            root: ca.certificate_pem().to_owned(),
        })
    }

    fn context(&self, alpn: &[&str]) -> CommonTlsContext {
        let inline = |text: &str| {
            Some(DataSource {
                specifier: Some(Specifier::InlineString(text.to_owned())),
                ..Default::default()
            })
        };
        CommonTlsContext {
            tls_params: Some(TlsParameters {
                tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
                tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
                ..Default::default()
            }),
            tls_certificates: vec![TlsCertificate {
                certificate_chain: inline(&self.chain),
                private_key: inline(&self.key),
                ..Default::default()
            }],
            validation_context_type: Some(ValidationContextType::ValidationContext(
                CertificateValidationContext { trusted_ca: inline(&self.root), ..Default::default() },
            )),
            alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }
    }
}

// === impl Resources ===

impl Resources {
    /// The proxy beside the client. `istio` adds Istio's metrics and peer metadata, which an Envoy of the project Envoy does not have.
    pub fn outbound(identity: &Identity, ports: &Ports, istio: bool) -> Self {
        let tls = |alpn: &str| {
            Some(socket(any(&UpstreamTlsContext {
                common_tls_context: Some(identity.context(&[alpn])),
                sni: SNI.into(),
                ..Default::default()
            })))
        };
        let listener = |name, port| listener(name, port, TrafficDirection::Outbound, None, istio);
        Self {
            listeners: vec![
                listener("mesh_h2", ports.mesh_h2),
                listener("mesh_h1", ports.mesh_h1),
                listener("one_hop", ports.one_hop),
            ],
            clusters: vec![
                cluster("mesh_h2", ports.inbound, true, tls("h2")),
                cluster("mesh_h1", ports.inbound, false, tls("http/1.1")),
                cluster("one_hop", ports.backend, false, None),
            ],
        }
    }

    /// The proxy beside the application.
    pub fn inbound(identity: &Identity, ports: &Ports, istio: bool) -> Self {
        let tls = socket(any(&DownstreamTlsContext {
            common_tls_context: Some(identity.context(&["h2", "http/1.1"])),
            require_client_certificate: Some(BoolValue { value: true }),
            ..Default::default()
        }));
        Self {
            listeners: vec![listener("inbound", ports.inbound, TrafficDirection::Inbound, Some(tls), istio)],
            clusters: vec![cluster("inbound", ports.backend, false, None)],
        }
    }

    /// Envoy's bootstrap with these, encoded.
    pub fn bootstrap(&self) -> Vec<u8> {
        let node = Node { id: "perf".into(), cluster: "perf".into(), ..Default::default() };
        let resources =
            StaticResources { listeners: self.listeners.clone(), clusters: self.clusters.clone() };
        Bootstrap { node: Some(node), static_resources: Some(resources) }.encode_to_vec()
    }
}

/// A listener whose requests all go to the cluster of its name.
fn listener(
    name: &str,
    port: u16,
    direction: TrafficDirection,
    tls: Option<TransportSocket>,
    istio: bool,
) -> Listener {
    let manager = any(&HttpConnectionManager {
        stat_prefix: name.into(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes(name))),
        http_filters: filters(istio),
        ..Default::default()
    });
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(filter::ConfigType::TypedConfig(manager)),
    };
    Listener {
        name: name.into(),
        address: loopback(port),
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            transport_socket: tls,
            ..Default::default()
        }],
        traffic_direction: direction.into(),
        ..Default::default()
    }
}

fn filters(istio: bool) -> Vec<HttpFilter> {
    let filter = |name: &str, config: Any| HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    };
    let named = |url: &str| Any { type_url: url.into(), value: Vec::new() };
    let mut filters = Vec::new();
    if istio {
        filters.push(filter("istio.metadata_exchange", named(type_url::ISTIO_PEER_METADATA)));
        filters.push(filter("istio.stats", named(type_url::ISTIO_STATS)));
    }
    filters.push(filter("envoy.filters.http.router", any(&router::Router::default())));
    filters
}

fn routes(cluster: &str) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    };
    let path = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() };
    let host = VirtualHost {
        name: "app".into(),
        domains: vec!["*".into()],
        routes: vec![Route {
            r#match: Some(path),
            action: Some(route::Action::Route(action)),
            ..Default::default()
        }],
        ..Default::default()
    };
    RouteConfiguration { name: cluster.into(), virtual_hosts: vec![host], ..Default::default() }
}

fn cluster(name: &str, port: u16, http2: bool, tls: Option<TransportSocket>) -> Cluster {
    let protocol = if http2 {
        ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())
    } else {
        ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
    };
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol) };
    let options = any(&HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    });
    let endpoint = Endpoint { address: loopback(port), ..Default::default() };
    let one = LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![one], ..Default::default() }],
            ..Default::default()
        }),
        typed_extension_protocol_options: [(type_url::HTTP_PROTOCOL_OPTIONS_KEY.to_owned(), options)].into(),
        transport_socket: tls,
        ..Default::default()
    }
}

fn socket(config: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    }
}

fn loopback(port: u16) -> Option<Address> {
    Some(Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: "127.0.0.1".into(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    })
}
