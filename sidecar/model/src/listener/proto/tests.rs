use super::*;
use crate::address::Address;
use crate::filter_chain::{NetworkFilter, SourceType, Terminal, TransportProtocol};
use crate::fixtures::{bytes, flag, listener as message, manager, millis, network_filter, number, socket};
use policies_xds::core::CidrRange;
use policies_xds::listener::ListenerFilterChainMatchPredicate;
use policies_xds::listener::filter_chain_match::ConnectionSourceType;
use policies_xds::listener::{FilterChain as ChainMessage, FilterChainMatch, ListenerFilter};
use policies_xds::protobuf::Any;
use policies_xds::tcp_proxy::{TcpProxy, tcp_proxy::ClusterSpecifier};
use policies_xds::{any, network_rbac, type_url};

fn tcp(cluster: &str) -> Any {
    any(&TcpProxy {
        stat_prefix: cluster.into(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        ..Default::default()
    })
}

fn inspector(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.into(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn path(message: &pb::Listener) -> String {
    Listener::decode(&bytes(message)).unwrap_err().field
}

#[test]
fn virtual_inbound_as_istio_sends_it() {
    let matches = FilterChainMatch {
        destination_port: number(9080),
        transport_protocol: "tls".into(),
        application_protocols: vec!["istio".into(), "istio-http/1.1".into()],
        source_type: ConnectionSourceType::External.into(),
        server_names: vec!["*.Example.org".into()],
        prefix_ranges: vec![CidrRange { address_prefix: "10.0.0.0".into(), prefix_len: number(8) }],
        ..Default::default()
    };
    let native = |url: &str| network_filter("n", Any { type_url: url.into(), value: vec![] });
    let chain = ChainMessage {
        name: "0.0.0.0_9080".into(),
        filter_chain_match: Some(matches),
        filters: vec![
            native(type_url::ISTIO_METADATA_EXCHANGE),
            network_filter("rbac", any(&network_rbac::Rbac::default())),
            native(type_url::ISTIO_STATS),
            network_filter("tcp", tcp("inbound|9080||")),
        ],
        transport_socket_connect_timeout: millis(15_000),
        ..Default::default()
    };
    let converted = Listener::decode(&bytes(&pb::Listener {
        name: "virtualInbound".into(),
        address: socket("0.0.0.0", 15006),
        traffic_direction: TrafficDirection::Inbound.into(),
        listener_filters: vec![
            inspector("o", any(&OriginalDst::default())),
            inspector("t", any(&TlsInspector::default())),
            inspector("h", any(&HttpInspector::default())),
        ],
        listener_filters_timeout: millis(0),
        continue_on_listener_filters_timeout: true,
        filter_chains: vec![chain],
        ..message()
    }))
    .unwrap();
    let filters = converted.listener_filters;
    assert!(
        filters.original_dst
            && filters.tls_inspector
            && filters.http_inspector
            && filters.proxy_protocol.is_none()
    );
    assert_eq!((converted.listener_filters_timeout, converted.direction), (None, Direction::Inbound));
    let chain = &converted.filter_chains[0];
    assert_eq!(chain.matches.transport_protocol, TransportProtocol::Tls);
    assert_eq!(chain.matches.source_type, SourceType::External);
    assert_eq!(&*chain.matches.server_names[0], "*.example.org");
    assert!(matches!(
        chain.network_filters[..],
        [NetworkFilter::MetadataExchange, NetworkFilter::Rbac(_), NetworkFilter::Stats]
    ));
    assert!(matches!(chain.terminal, Terminal::Tcp(_)));
}

#[test]
fn a_listener_without_a_socket() {
    let converted =
        Listener::decode(&bytes(&pb::Listener { bind_to_port: flag(false), ..message() })).unwrap();
    assert!(!converted.bind_to_port);
    assert_eq!(converted.address, Address::Socket("0.0.0.0:9080".parse().unwrap()));
    assert_eq!(converted.listener_filters_timeout, Some(LISTENER_FILTERS_TIMEOUT));
    let Terminal::Http(manager) = &converted.filter_chains[0].terminal else { panic!("HTTP was expected") };
    assert_eq!(manager.route, crate::hcm::RouteSource::Rds("9080".into()));
}

#[test]
fn filters_out_of_place_are_refused_by_path() {
    let mut both = message();
    both.filter_chains[0].filters.push(network_filter("tcp", tcp("x")));
    assert_eq!(path(&both), "filter_chains[0].filters[0]");
    both.filter_chains[0].filters.clear();
    assert_eq!(path(&both), "filter_chains[0].filters");
    let unknown = Any { type_url: "type.googleapis.com/mongo".into(), value: vec![] };
    both.filter_chains[0].filters.push(network_filter("mongo", unknown));
    let error = Listener::decode(&bytes(&both)).unwrap_err();
    assert_eq!(error.field, "filter_chains[0].filters[0].typed_config");
    assert!(error.reason.contains("mongo"));
    let mut deep = message();
    let bad = policies_xds::hcm::HttpConnectionManager { codec_type: 9, ..manager() };
    deep.filter_chains[0].filters = vec![network_filter("hcm", any(&bad))];
    assert_eq!(path(&deep), "filter_chains[0].filters[0].typed_config.codec_type");
}

#[test]
fn what_leaves_a_choice_to_chance_is_refused() {
    let mut twice = message();
    twice.filter_chains.push(twice.filter_chains[0].clone());
    assert_eq!(path(&twice), "filter_chains[1].filter_chain_match");
    let mut names = message();
    let matches = FilterChainMatch { server_names: vec!["*".into()], ..Default::default() };
    names.filter_chains[0].filter_chain_match = Some(matches);
    assert_eq!(path(&names), "filter_chains[0].filter_chain_match.server_names[0]");
    let quic = FilterChainMatch { transport_protocol: "quic".into(), ..Default::default() };
    names.filter_chains[0].filter_chain_match = Some(quic);
    assert_eq!(path(&names), "filter_chains[0].filter_chain_match.transport_protocol");
}

#[test]
fn listener_filters_can_be_off() {
    let predicate = |rule| Some(ListenerFilterChainMatchPredicate { rule: Some(rule) });
    let off = ListenerFilter {
        filter_disabled: predicate(Rule::AnyMatch(true)),
        ..inspector("t", any(&TlsInspector::default()))
    };
    let range = policies_xds::types::Int32Range { start: 3306, end: 3307 };
    let for_some = ListenerFilter {
        filter_disabled: predicate(Rule::DestinationPortRange(range)),
        ..inspector("h", any(&HttpInspector::default()))
    };
    let listener_filters = vec![off, for_some];
    let converted = Listener::decode(&bytes(&pb::Listener { listener_filters, ..message() })).unwrap();
    assert!(!converted.listener_filters.tls_inspector && converted.listener_filters.http_inspector);
    let unknown = inspector("x", Any { type_url: "type.googleapis.com/x".into(), value: vec![] });
    let unknown = pb::Listener { listener_filters: vec![unknown], ..message() };
    assert_eq!(path(&unknown), "listener_filters[0].typed_config");
}
