//! Hand-made configuration: everything at its default but what a test is about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use sidecar_model::access_log::{LogFormat, LogSink};
use sidecar_model::cluster::{
    CircuitBreakers, ClusterKind, LbPolicy, LocalityLb, Thresholds, UpstreamHttp, UpstreamProtocol,
};
use sidecar_model::filter_chain::{FilterChainMatch, Terminal};
use sidecar_model::hcm::{
    Codec, EscapedSlashes, ForwardClientCert, Http1Options, Http2Options, RouteSource, ServerHeader, Upgrade,
};
use sidecar_model::http_filter::Router;
use sidecar_model::listener::{Direction, ListenerFilters};
use sidecar_model::route::TlsRequirement;
use sidecar_model::route_action::{GrpcTimeout, IdleTimeout};
use sidecar_model::tcp::TcpCluster;
use sidecar_model::tls::{
    CertificateSource, RootSource, SECRET_DEFAULT, SECRET_ROOT_CA, TlsParameters, Validation,
};
use sidecar_model::{
    AccessLog, Action, Address, Cluster, ClusterChoice, DownstreamTls, Endpoint, Endpoints, FilterChain,
    HeaderOps, Health, HttpConnectionManager, HttpFilter, HttpFilterKind, Listener, Locality,
    LocalityEndpoints, Metadata, PathMatch, Route, RouteAction, RouteConfig, RouteFilters, RouteMatch,
    Snapshot, TcpProxy, UpstreamTls, VirtualHost,
};

/// No limit at all, as Istio configures.
pub(crate) const UNLIMITED: Thresholds = Thresholds {
    max_connections: u32::MAX,
    max_pending_requests: u32::MAX,
    max_requests: u32::MAX,
    max_retries: u32::MAX,
    max_connection_pools: u32::MAX,
    retry_budget: None,
    track_remaining: false,
};

/// A cluster of fixed endpoints.
pub(crate) fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let mut metadata = Metadata::default();
    let host = name.rsplit('|').next().unwrap();
    metadata.set(
        "istio",
        json!({ "services": [{ "host": host, "name": host.split('.').next(), "namespace": "default" }] }),
    );
    Cluster {
        name: name.into(),
        alt_stat_name: "".into(),
        kind: ClusterKind::Static,
        load_assignment: Some(Arc::new(endpoints(name, addresses, &Metadata::default()))),
        lb: LbPolicy::RoundRobin { slow_start: None },
        locality_lb: LocalityLb::default(),
        connect_timeout: Duration::from_secs(5),
        circuit_breakers: CircuitBreakers {
            default: UNLIMITED,
            high: UNLIMITED,
            per_host_max_connections: None,
        },
        outlier: None,
        http: UpstreamHttp::default(),
        tls: None,
        transport_socket_matches: Vec::new(),
        proxy_protocol: None,
        tcp_keepalive: None,
        source_address: None,
        per_connection_buffer_bytes_max: 1 << 20,
        tcp_idle_timeout: None,
        metadata,
        subsets: None,
        health_checks: Vec::new(),
        ignore_health_on_host_removal: false,
    }
}

/// Endpoints of one locality.
pub(crate) fn endpoints(name: &str, addresses: &[SocketAddr], metadata: &Metadata) -> Endpoints {
    let one = |address: &SocketAddr| {
        Arc::new(Endpoint {
            address: Address::Socket(*address),
            weight: 1,
            health: Health::Healthy,
            hostname: "".into(),
            metadata: metadata.clone(),
        })
    };
    let locality = LocalityEndpoints {
        locality: Locality::default(),
        priority: 0,
        weight: None,
        endpoints: addresses.iter().map(one).collect(),
    };
    Endpoints {
        name: name.into(),
        localities: vec![locality],
        drop_overloads: Vec::new(),
        overprovisioning_percent: None,
        weighted_priority_health: false,
    }
}

/// The cluster, spoken to over mutual TLS.
pub(crate) fn mutual(mut cluster: Cluster, identity: &str, protocol: UpstreamProtocol) -> Cluster {
    let validation = Validation {
        roots: Some(RootSource::Secret(SECRET_ROOT_CA.into())),
        subject_alt_names: vec![sidecar_model::tls::SanMatch {
            kind: sidecar_model::tls::SanKind::Uri,
            matcher: sidecar_model::StringMatch::exact(identity),
        }],
        ..Validation::default()
    };
    let common = TlsParameters {
        certificates: vec![CertificateSource::Secret(SECRET_DEFAULT.into())],
        validation,
        ..TlsParameters::default()
    };
    let sni = "outbound_.9080_._.reviews.default.svc.cluster.local";
    cluster.tls = Some(Arc::new(UpstreamTls { common, sni: sni.into(), ..UpstreamTls::default() }));
    cluster.http.protocol = protocol;
    cluster
}

/// What an inbound listener of the mesh ends.
pub(crate) fn mesh_tls() -> DownstreamTls {
    let common = TlsParameters {
        certificates: vec![CertificateSource::Secret(SECRET_DEFAULT.into())],
        validation: Validation {
            roots: Some(RootSource::Secret(SECRET_ROOT_CA.into())),
            ..Validation::default()
        },
        alpn: vec!["istio-peer-exchange".into(), "h2".into(), "http/1.1".into()],
        ..TlsParameters::default()
    };
    DownstreamTls { common, require_client_certificate: true, require_sni: false }
}

/// A route of every path to a cluster.
pub(crate) fn route(cluster: &str) -> Route {
    Route {
        name: "default".into(),
        matches: RouteMatch {
            path: PathMatch::Prefix("/".into()),
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            metadata: Vec::new(),
            fraction: None,
        },
        action: Action::Forward(Box::new(action(ClusterChoice::Single(cluster.into())))),
        filters: RouteFilters::default(),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        metadata: Metadata::default(),
        decorator: None,
        stat_prefix: "".into(),
    }
}

/// Forwarding without any extras.
pub(crate) fn action(cluster: ClusterChoice) -> RouteAction {
    RouteAction {
        cluster,
        cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
        metadata_match: Metadata::default(),
        timeout: None,
        idle_timeout: IdleTimeout::Inherit,
        grpc_timeout: GrpcTimeout::UpTo(Duration::ZERO),
        max_stream_duration: None,
        retry: None,
        hash_policy: Vec::new(),
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        mirrors: Vec::new(),
        upgrades: Vec::new(),
        high_priority: false,
    }
}

/// A route whose forwarding a test changes.
pub(crate) fn route_with(cluster: &str, change: impl FnOnce(&mut RouteAction)) -> Route {
    let mut action = action(ClusterChoice::Single(cluster.into()));
    change(&mut action);
    Route { action: Action::Forward(Box::new(action)), ..route(cluster) }
}

/// Routes of every host.
pub(crate) fn routes(routes: Vec<Route>) -> RouteConfig {
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: routes.into_iter().map(Arc::new).collect(),
        require_tls: TlsRequirement::None,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        retry: None,
        mirrors: Vec::new(),
        include_request_attempt_count: true,
        include_attempt_count_in_response: false,
        filters: RouteFilters::default(),
        metadata: Metadata::default(),
    };
    RouteConfig {
        name: "routes".into(),
        virtual_hosts: vec![Arc::new(host)],
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        ignore_port_in_host_matching: false,
        most_specific_header_mutations_wins: false,
        filters: RouteFilters::default(),
        metadata: Metadata::default(),
    }
}

/// A connection manager with these routes and filters before the router.
pub(crate) fn manager(route_config: RouteConfig, filters: Vec<HttpFilterKind>) -> HttpConnectionManager {
    let mut kinds = filters;
    kinds.push(HttpFilterKind::Router(Router::default()));
    let filter = |(index, kind): (usize, HttpFilterKind)| HttpFilter {
        name: format!("f{index}").into(),
        disabled: false,
        kind,
    };
    HttpConnectionManager {
        stat_prefix: "test".into(),
        codec: Codec::Auto,
        route: RouteSource::Inline(Arc::new(route_config)),
        http_filters: kinds.into_iter().enumerate().map(filter).collect(),
        access_log: Vec::new(),
        upgrades: vec![Upgrade { protocol: "websocket".into(), enabled: true, terminates: false }],
        tracing: None,
        idle_timeout: None,
        max_connection_duration: None,
        max_requests_per_connection: None,
        max_stream_duration: None,
        stream_idle_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        drain_timeout: Duration::from_secs(5),
        delayed_close_timeout: Some(Duration::from_secs(1)),
        request_headers_bytes_max: 0,
        headers_count_max: 0,
        http2: Http2Options::default(),
        http1: Http1Options::default(),
        http10_host: "".into(),
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        skip_xff_append: true,
        forward_client_cert: ForwardClientCert::Sanitize,
        client_cert_details: sidecar_model::hcm::ClientCertDetails::default(),
        generate_request_id: true,
        preserve_external_request_id: true,
        always_set_request_id_in_response: false,
        server_name: "envoy".into(),
        server_header: ServerHeader::Overwrite,
        normalize_path: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
        strip_port_from_host: false,
        strip_trailing_host_dot: false,
        scheme_override: None,
        via: "".into(),
    }
}

/// A log of Istio's fields into a file.
pub(crate) fn log(path: &std::path::Path, format: &str) -> AccessLog {
    AccessLog {
        sink: LogSink::File(path.to_str().unwrap().into()),
        format: LogFormat::Text(format.into()),
        omit_empty_values: false,
        filter: None,
    }
}

/// A chain for every connection.
pub(crate) fn chain(terminal: Terminal, tls: Option<DownstreamTls>) -> FilterChain {
    FilterChain {
        name: "chain".into(),
        matches: FilterChainMatch::default(),
        tls: tls.map(Arc::new),
        network_filters: Vec::new(),
        terminal,
        transport_connect_timeout: None,
    }
}

/// A chain that ends in bytes to a cluster.
pub(crate) fn tcp(cluster: &str) -> Terminal {
    Terminal::Tcp(Arc::new(TcpProxy {
        stat_prefix: "tcp".into(),
        cluster: TcpCluster::Single(cluster.into()),
        metadata_match: Metadata::default(),
        idle_timeout: None,
        max_connection_duration: None,
        connect_attempts_max: 1,
        hash_policy: Vec::new(),
        access_log: Vec::new(),
    }))
}

/// A listener on a free port of the loopback address.
pub(crate) fn listener(name: &str, direction: Direction, chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.into(),
        address: Address::Socket("127.0.0.1:0".parse().unwrap()),
        additional_addresses: Vec::new(),
        bind_to_port: true,
        use_original_dst: false,
        direction,
        listener_filters: ListenerFilters {
            tls_inspector: true,
            http_inspector: true,
            ..ListenerFilters::default()
        },
        listener_filters_timeout: None,
        continue_on_listener_filters_timeout: true,
        filter_chains: chains.into_iter().map(Arc::new).collect(),
        default_filter_chain: None,
        access_log: Vec::new(),
        per_connection_buffer_bytes_max: 1 << 20,
    }
}

/// A listener with one HTTP chain.
pub(crate) fn http_listener(
    name: &str,
    direction: Direction,
    manager: HttpConnectionManager,
    tls: Option<DownstreamTls>,
) -> Listener {
    listener(name, direction, vec![chain(Terminal::Http(Arc::new(manager)), tls)])
}

/// All of these as one snapshot.
pub(crate) fn snapshot(listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Snapshot {
    Snapshot {
        version: 1,
        listeners: Arc::new(
            listeners.into_iter().map(|one| (Arc::clone(&one.name), Arc::new(one))).collect(),
        ),
        clusters: Arc::new(clusters.into_iter().map(|one| (Arc::clone(&one.name), Arc::new(one))).collect()),
        ..Snapshot::default()
    }
}
