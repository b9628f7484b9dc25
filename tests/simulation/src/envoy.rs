//! A bootstrap that holds everything compiled for a proxy, for `envoy --mode validate --config-path bootstrap.pb`.
//!
//! A real Envoy gets routes, endpoints and secrets by name over ADS; validation has no server, so they are put in place of their names.

use std::collections::BTreeMap;

use meshd_compile::Resources;
use policies_xds::cluster::Cluster;
use policies_xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use policies_xds::core::config_source::ConfigSourceSpecifier;
use policies_xds::endpoint::ClusterLoadAssignment;
use policies_xds::hcm::HttpConnectionManager;
use policies_xds::hcm::http_connection_manager::RouteSpecifier;
use policies_xds::listener::{FilterChain, Listener, filter::ConfigType};
use policies_xds::route::RouteConfiguration;
use policies_xds::tls::{DownstreamTlsContext, SdsSecretConfig, Secret, UpstreamTlsContext};
use policies_xds::{any, core, unpack};
use prost::Message;

/// Fields of `Bootstrap` and of its `StaticResources`.
const NODE: u32 = 1;
const STATIC_RESOURCES: u32 = 2;
const LISTENERS: u32 = 1;
const CLUSTERS: u32 = 2;
const SECRETS: u32 = 3;
/// Debian's bundle.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The bootstrap's bytes.
///
/// # Panics
/// When a compiled resource is not the message it should be.
#[must_use]
pub fn bootstrap(resources: &Resources) -> Vec<u8> {
    let routes: BTreeMap<String, RouteConfiguration> =
        decode(&resources.routes).map(|it: RouteConfiguration| (it.name.clone(), it)).collect();
    let endpoints: BTreeMap<String, ClusterLoadAssignment> =
        decode(&resources.endpoints).map(|it: ClusterLoadAssignment| (it.cluster_name.clone(), it)).collect();
    let mut fixed = Vec::new();
    for mut listener in decode::<Listener>(&resources.listeners) {
        for chain in listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain) {
            with_routes(chain, &routes);
        }
        prost::encoding::message::encode(LISTENERS, &listener, &mut fixed);
    }
    for mut cluster in decode::<Cluster>(&resources.clusters) {
        if cluster.eds_cluster_config.take().is_some() {
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
            let name = cluster.name.clone();
            cluster.load_assignment =
                Some(endpoints.get(&name).cloned().unwrap_or_else(|| panic!("no endpoints {name}")));
        }
        cluster.transport_socket.iter_mut().for_each(with_roots);
        prost::encoding::message::encode(CLUSTERS, &cluster, &mut fixed);
    }
    let sds = Cluster {
        name: "sds-grpc".to_owned(),
        typed_extension_protocol_options: http2(),
        ..Default::default()
    };
    prost::encoding::message::encode(CLUSTERS, &sds, &mut fixed);
    for secret in decode::<Secret>(&resources.secrets) {
        prost::encoding::message::encode(SECRETS, &secret, &mut fixed);
    }
    let node = core::Node {
        id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".to_owned(),
        cluster: "test".to_owned(),
        ..Default::default()
    };
    let mut bytes = Vec::new();
    prost::encoding::message::encode(NODE, &node, &mut bytes);
    prost::encoding::bytes::encode(STATIC_RESOURCES, &fixed, &mut bytes);
    bytes
}

fn decode<M: Message + Default>(resources: &meshd_compile::ResourceMap) -> impl Iterator<Item = M> {
    resources.values().map(|it| M::decode(&*it.value).unwrap_or_else(|error| panic!("{}: {error}", it.name)))
}

fn http2() -> std::collections::HashMap<String, policies_xds::protobuf::Any> {
    use policies_xds::http_protocol_options::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    };
    let options = policies_xds::http_protocol_options::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(
                ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default()),
            ),
        })),
        ..Default::default()
    };
    std::collections::HashMap::from([(
        policies_xds::type_url::HTTP_PROTOCOL_OPTIONS_KEY.to_owned(),
        any(&options),
    )])
}

fn with_routes(chain: &mut FilterChain, routes: &BTreeMap<String, RouteConfiguration>) {
    for filter in &mut chain.filters {
        let Some(ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
        let Ok(mut manager) = unpack::<HttpConnectionManager>(config) else { continue };
        if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
            let name = &rds.route_config_name;
            let config = routes.get(name).cloned().unwrap_or_else(|| panic!("no routes {name}"));
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(config));
        }
        *config = any(&manager);
    }
    with_secrets(chain);
}

/// Secrets that come over ADS are the bootstrap's own.
fn with_secrets(chain: &mut FilterChain) {
    let Some(socket) = &mut chain.transport_socket else { return };
    let Some(core::transport_socket::ConfigType::TypedConfig(config)) = &mut socket.config_type else {
        return;
    };
    let Ok(mut context) = unpack::<DownstreamTlsContext>(config) else { return };
    if let Some(common) = &mut context.common_tls_context {
        common.tls_certificate_sds_secret_configs.iter_mut().for_each(own);
        use policies_xds::tls::common_tls_context::ValidationContextType;
        if let Some(ValidationContextType::CombinedValidationContext(combined)) =
            &mut common.validation_context_type
        {
            combined.validation_context_sds_secret_config.iter_mut().for_each(own);
        }
    }
    *config = any(&context);
}

/// A plain Envoy has the system's roots by file only.
fn with_roots(socket: &mut core::TransportSocket) {
    use policies_xds::tls::common_tls_context::ValidationContextType;
    let Some(core::transport_socket::ConfigType::TypedConfig(config)) = &mut socket.config_type else {
        return;
    };
    let Ok(mut context) = unpack::<UpstreamTlsContext>(config) else { return };
    let validation = context.common_tls_context.as_mut().and_then(|it| it.validation_context_type.as_mut());
    if let Some(ValidationContextType::ValidationContext(validation)) = validation
        && validation.system_root_certs.take().is_some()
    {
        let file = core::data_source::Specifier::Filename(SYSTEM_ROOTS.to_owned());
        validation.trusted_ca = Some(core::DataSource { specifier: Some(file), ..Default::default() });
    }
    *config = any(&context);
}

fn own(secret: &mut SdsSecretConfig) {
    let is_ads =
        |it: &core::ConfigSource| matches!(it.config_source_specifier, Some(ConfigSourceSpecifier::Ads(_)));
    if secret.sds_config.as_ref().is_some_and(is_ads) {
        secret.sds_config = None;
    }
}
