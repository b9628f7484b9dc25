//! Type URLs of resources and extensions.

/// Clusters.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Endpoints.
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Listeners.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Route configurations.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Secrets.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A struct with a type of its own, xDS form.
pub const TYPED_STRUCT_XDS: &str = "type.googleapis.com/xds.type.v3.TypedStruct";
/// A struct with a type of its own, older form.
pub const TYPED_STRUCT_UDPA: &str = "type.googleapis.com/udpa.type.v1.TypedStruct";

/// Istio's metrics filter, HTTP and TCP.
pub const ISTIO_STATS: &str = "type.googleapis.com/stats.PluginConfig";
/// Istio's metadata exchange, TCP.
pub const ISTIO_METADATA_EXCHANGE: &str =
    "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange";
/// Istio's metadata exchange, HTTP.
pub const ISTIO_PEER_METADATA: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";
/// Istio's choice of ALPN.
pub const ISTIO_ALPN: &str = "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// Key of HTTP options in a cluster's `typed_extension_protocol_options`.
pub const HTTP_PROTOCOL_OPTIONS_KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Key of TCP options in a cluster's `typed_extension_protocol_options`.
pub const TCP_PROTOCOL_OPTIONS_KEY: &str = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions";

#[cfg(test)]
mod tests {
    use prost::Name;

    #[test]
    fn constants_agree_with_the_messages() {
        assert_eq!(super::CLUSTER, crate::cluster::Cluster::type_url());
        assert_eq!(super::ENDPOINTS, crate::endpoint::ClusterLoadAssignment::type_url());
        assert_eq!(super::LISTENER, crate::listener::Listener::type_url());
        assert_eq!(super::ROUTE, crate::route::RouteConfiguration::type_url());
        assert_eq!(super::SECRET, crate::tls::Secret::type_url());
        assert_eq!(super::TYPED_STRUCT_XDS, crate::typed_struct::TypedStruct::type_url());
    }
}
