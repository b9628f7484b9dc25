//! Listeners and clusters of the measured proxies: the same messages for ours, over xDS, and for Envoy, as a bootstrap.

use crate::backend;
use crate::entry::{Entry, Ports};
use crate::identity::Identity;
use crate::peers::{MANY, Role};
use policies_xds::access_log::{AccessLog, access_log};
use policies_xds::cluster::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType};
use policies_xds::core::{
    Address, DataSource, Http1ProtocolOptions, Http2ProtocolOptions, Node, SocketAddress, TrafficDirection,
    TransportSocket, address, data_source::Specifier, socket_address::PortSpecifier, transport_socket,
};
use policies_xds::endpoint::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use policies_xds::fault::{FaultAbort, HttpFault, fault_abort::ErrorType};
use policies_xds::file_access_log::FileAccessLog;
use policies_xds::hcm::http_connection_manager::RouteSpecifier;
use policies_xds::hcm::{HttpConnectionManager, HttpFilter, http_filter};
use policies_xds::http_protocol_options::HttpProtocolOptions;
use policies_xds::http_protocol_options::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use policies_xds::listener::{Filter, FilterChain, Listener, filter};
use policies_xds::matcher::{StringMatcher, string_matcher::MatchPattern};
use policies_xds::protobuf::{Any, BoolValue, UInt32Value};
use policies_xds::route::{
    HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
    header_matcher::HeaderMatchSpecifier, route, route_action::ClusterSpecifier, route_match::PathSpecifier,
};
use policies_xds::tcp_proxy::{TcpProxy, tcp_proxy::ClusterSpecifier as BytesTo};
use policies_xds::tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsCertificate, TlsParameters,
    UpstreamTlsContext, common_tls_context::ValidationContextType, tls_parameters::TlsProtocol,
};
use policies_xds::types::{FractionalPercent, fractional_percent::DenominatorType};
use policies_xds::{any, router, type_url};
use prost::Message;

/// Name that clients send and servers are found by.
const SNI: &str = "outbound_.80_._.app.default.svc.cluster.local";

/// Routes by a header in front of the one that matches, where features are switched on.
pub const HEADER_ROUTES: usize = 20;

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

fn context(identity: &Identity, alpn: &[&str]) -> CommonTlsContext {
    let inline = |text: &str| {
        Some(DataSource { specifier: Some(Specifier::InlineString(text.to_owned())), ..Default::default() })
    };
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..Default::default()
        }),
        tls_certificates: vec![TlsCertificate {
            certificate_chain: inline(&identity.chain),
            private_key: inline(&identity.key),
            ..Default::default()
        }],
        validation_context_type: Some(ValidationContextType::ValidationContext(
            CertificateValidationContext { trusted_ca: inline(&identity.root), ..Default::default() },
        )),
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

// === impl Resources ===

impl Resources {
    /// What a proxy in `role` gets. `identities` are the client's and the server's. `istio` adds Istio's metrics and peer metadata, which
    /// an Envoy of the project Envoy does not have.
    pub fn of(role: Role, identities: [&Identity; 2], ports: Ports, istio: bool) -> Self {
        let [client, server] = identities;
        match role {
            Role::Inbound => Self::inbound(server, ports, istio),
            Role::Outbound => Self::outbound(client, ports, istio),
            Role::Large => {
                let mut all = Self::outbound(client, ports, istio);
                let many: Vec<String> = (0..MANY).map(|index| format!("service-{index}.default")).collect();
                all.clusters.extend(many.iter().map(|name| cluster(name, backend::HTTP1, false, None)));
                let hop = Entry::Hop;
                let mut routes = routes(hop.name());
                routes.virtual_hosts.extend(many.iter().map(|name| virtual_host(name, name, Vec::new())));
                let large = http_listener(hop, ports, routes, None, istio);
                all.listeners.retain(|it| it.name != hop.name());
                all.listeners.push(large);
                all
            }
        }
    }

    fn outbound(identity: &Identity, ports: Ports, istio: bool) -> Self {
        let mut all = Self::default();
        for entry in Entry::OUTBOUND {
            let tls = |alpn: &[&str]| {
                Some(socket(any(&UpstreamTlsContext {
                    common_tls_context: Some(context(identity, alpn)),
                    sni: SNI.into(),
                    ..Default::default()
                })))
            };
            let (http2, tls) = match entry {
                Entry::MeshHttp2 => (true, tls(&["h2"])),
                Entry::MeshHttp1 => (false, tls(&["http/1.1"])),
                Entry::MeshBytes => (false, tls(&[])),
                Entry::Http2 => (true, None),
                _ => (false, None),
            };
            all.clusters.push(cluster(entry.name(), entry.next(ports), http2, tls));
            all.listeners.push(match entry {
                Entry::Bytes | Entry::MeshBytes => bytes_listener(entry, ports, None),
                Entry::Features => {
                    let mut routes = routes(entry.name());
                    if let Some(host) = routes.virtual_hosts.first_mut() {
                        host.routes.splice(0..0, header_routes(entry.name()));
                    }
                    http_listener(entry, ports, routes, None, istio)
                }
                _ => http_listener(entry, ports, routes(entry.name()), None, istio),
            });
        }
        all
    }

    fn inbound(identity: &Identity, ports: Ports, istio: bool) -> Self {
        let tls = |alpn: &[&str]| {
            socket(any(&DownstreamTlsContext {
                common_tls_context: Some(context(identity, alpn)),
                require_client_certificate: Some(BoolValue { value: true }),
                ..Default::default()
            }))
        };
        let (http, bytes) = (Entry::Inbound, Entry::InboundBytes);
        let accepted = Some(tls(&["h2", "http/1.1"]));
        Self {
            listeners: vec![
                http_listener(http, ports, routes(http.name()), accepted, istio),
                bytes_listener(bytes, ports, Some(tls(&[]))),
            ],
            clusters: vec![
                cluster(http.name(), http.next(ports), false, None),
                cluster(bytes.name(), bytes.next(ports), false, None),
            ],
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

/// A listener whose requests go where `routes` says.
fn http_listener(
    entry: Entry,
    ports: Ports,
    routes: RouteConfiguration,
    tls: Option<TransportSocket>,
    istio: bool,
) -> Listener {
    let features = entry == Entry::Features;
    let manager = any(&HttpConnectionManager {
        stat_prefix: entry.name().into(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: filters(istio, features),
        access_log: if features { vec![log()] } else { Vec::new() },
        ..Default::default()
    });
    listener(entry, ports, "envoy.filters.network.http_connection_manager", manager, tls)
}

/// A listener whose bytes all go to the cluster of its name.
fn bytes_listener(entry: Entry, ports: Ports, tls: Option<TransportSocket>) -> Listener {
    let proxy = any(&TcpProxy {
        stat_prefix: entry.name().into(),
        cluster_specifier: Some(BytesTo::Cluster(entry.name().into())),
        ..Default::default()
    });
    listener(entry, ports, "envoy.filters.network.tcp_proxy", proxy, tls)
}

fn listener(
    entry: Entry,
    ports: Ports,
    name: &str,
    config: Any,
    transport_socket: Option<TransportSocket>,
) -> Listener {
    let filter = Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(config)) };
    let inbound = matches!(entry, Entry::Inbound | Entry::InboundBytes);
    let direction = if inbound { TrafficDirection::Inbound } else { TrafficDirection::Outbound };
    Listener {
        name: entry.name().into(),
        address: loopback(ports.of(entry)),
        filter_chains: vec![FilterChain { filters: vec![filter], transport_socket, ..Default::default() }],
        traffic_direction: direction.into(),
        ..Default::default()
    }
}

fn filters(istio: bool, features: bool) -> Vec<HttpFilter> {
    let filter = |name: &str, config: Any| HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    };
    let named = |url: &str| Any { type_url: url.into(), value: Vec::new() };
    let mut filters = Vec::new();
    if istio {
        filters.push(filter("istio.metadata_exchange", named(type_url::ISTIO_PEER_METADATA)));
    }
    if features {
        let never = FractionalPercent { numerator: 0, denominator: DenominatorType::Hundred.into() };
        let fault = HttpFault {
            abort: Some(FaultAbort {
                percentage: Some(never),
                error_type: Some(ErrorType::HttpStatus(503)),
                ..Default::default()
            }),
            ..Default::default()
        };
        filters.push(filter("envoy.filters.http.fault", any(&fault)));
    }
    if istio {
        filters.push(filter("istio.stats", named(type_url::ISTIO_STATS)));
    }
    filters.push(filter("envoy.filters.http.router", any(&router::Router::default())));
    filters
}

/// The default format, on standard output.
fn log() -> AccessLog {
    let file = FileAccessLog { path: "/dev/stdout".into(), ..Default::default() };
    AccessLog {
        name: "envoy.access_loggers.file".into(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&file))),
        ..Default::default()
    }
}

/// Everything to the cluster.
fn routes(cluster: &str) -> RouteConfiguration {
    let host = virtual_host("*", cluster, Vec::new());
    RouteConfiguration { name: cluster.into(), virtual_hosts: vec![host], ..Default::default() }
}

/// Routes of which none matches what the generator sends.
fn header_routes(cluster: &str) -> Vec<Route> {
    let one = |index: usize| {
        let exact =
            StringMatcher { match_pattern: Some(MatchPattern::Exact("yes".into())), ..Default::default() };
        let header = HeaderMatcher {
            name: format!("x-route-{index}"),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact)),
            ..Default::default()
        };
        route(cluster, vec![header])
    };
    (0..HEADER_ROUTES).map(one).collect()
}

fn route(cluster: &str, headers: Vec<HeaderMatcher>) -> Route {
    let retry = RetryPolicy {
        retry_on: "connect-failure,refused-stream,unavailable,cancelled".into(),
        num_retries: Some(UInt32Value { value: 2 }),
        ..Default::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        retry_policy: (cluster == Entry::Features.name()).then_some(retry),
        ..Default::default()
    };
    let path = PathSpecifier::Prefix("/".into());
    Route {
        r#match: Some(RouteMatch { path_specifier: Some(path), headers, ..Default::default() }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    }
}

fn virtual_host(domain: &str, cluster: &str, headers: Vec<HeaderMatcher>) -> VirtualHost {
    VirtualHost {
        name: domain.into(),
        domains: vec![domain.into()],
        routes: vec![route(cluster, headers)],
        ..Default::default()
    }
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
