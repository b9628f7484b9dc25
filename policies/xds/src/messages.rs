//! Short names for the messages that the mesh speaks.

use envoy_types::pb::envoy;

/// Well-known protobuf types: `Any`, `Duration`, `Struct`, wrappers.
pub mod protobuf {
    pub use envoy_types::pb::google::protobuf::*;
}
/// `google.rpc.Status`.
pub mod rpc {
    pub use envoy_types::pb::google::rpc::*;
}
/// Discovery requests and responses, and the ADS client and server.
pub mod discovery {
    pub use super::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
    pub use super::envoy::service::discovery::v3::aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    };
    pub use super::envoy::service::discovery::v3::*;
}
/// Addresses, config sources, metadata, header values, nodes.
pub mod core {
    pub use super::envoy::config::core::v3::*;
}
/// Listeners and filter chains.
pub mod listener {
    pub use super::envoy::config::listener::v3::*;
}
/// Route configurations.
pub mod route {
    pub use super::envoy::config::route::v3::*;
}
/// Clusters.
pub mod cluster {
    pub use super::envoy::config::cluster::v3::*;
}
/// Endpoints.
pub mod endpoint {
    pub use super::envoy::config::endpoint::v3::*;
}
/// Access log filters.
pub mod access_log {
    pub use super::envoy::config::accesslog::v3::*;
}
/// File access log.
pub mod file_access_log {
    pub use super::envoy::extensions::access_loggers::file::v3::*;
}
/// Standard output and error access logs.
pub mod stream_access_log {
    pub use super::envoy::extensions::access_loggers::stream::v3::*;
}
/// Policies, permissions and principals.
pub mod rbac {
    pub use super::envoy::config::rbac::v3::*;
}
/// The HTTP authorization filter.
pub mod http_rbac {
    pub use super::envoy::extensions::filters::http::rbac::v3::*;
}
/// The network authorization filter.
pub mod network_rbac {
    pub use super::envoy::extensions::filters::network::rbac::v3::*;
}
/// The HTTP connection manager.
pub mod hcm {
    pub use super::envoy::extensions::filters::network::http_connection_manager::v3::*;
}
/// The connection limit filter.
pub mod connection_limit {
    pub use super::envoy::extensions::filters::network::connection_limit::v3::*;
}
/// Load balancing policies as extensions.
pub mod lb {
    /// Settings that several policies share.
    pub mod common {
        pub use super::super::envoy::extensions::load_balancing_policies::common::v3::*;
    }
    /// The least busy of some.
    pub mod least_request {
        pub use super::super::envoy::extensions::load_balancing_policies::least_request::v3::*;
    }
    /// A Maglev table.
    pub mod maglev {
        pub use super::super::envoy::extensions::load_balancing_policies::maglev::v3::*;
    }
    /// By chance.
    pub mod random {
        pub use super::super::envoy::extensions::load_balancing_policies::random::v3::*;
    }
    /// A ring.
    pub mod ring_hash {
        pub use super::super::envoy::extensions::load_balancing_policies::ring_hash::v3::*;
    }
    /// In turn.
    pub mod round_robin {
        pub use super::super::envoy::extensions::load_balancing_policies::round_robin::v3::*;
    }
}
/// The TCP proxy.
pub mod tcp_proxy {
    pub use super::envoy::extensions::filters::network::tcp_proxy::v3::*;
}
/// The router filter.
pub mod router {
    pub use super::envoy::extensions::filters::http::router::v3::*;
}
/// The fault filter.
pub mod fault {
    pub use super::envoy::extensions::filters::http::fault::v3::*;
}
/// Delays that several fault filters share.
pub mod fault_common {
    pub use super::envoy::extensions::filters::common::fault::v3::*;
}
/// The cross-origin filter.
pub mod cors {
    pub use super::envoy::extensions::filters::http::cors::v3::*;
}
/// The token filter.
pub mod jwt_authn {
    pub use super::envoy::extensions::filters::http::jwt_authn::v3::*;
}
/// The HTTP external authorization filter.
pub mod ext_authz {
    pub use super::envoy::extensions::filters::http::ext_authz::v3::*;
}
/// The network external authorization filter.
pub mod network_ext_authz {
    pub use super::envoy::extensions::filters::network::ext_authz::v3::*;
}
/// What an external authorization service is asked and answers.
pub mod auth_service {
    pub use super::envoy::service::auth::v3::*;
}
/// The local rate limit filter.
pub mod local_ratelimit {
    pub use super::envoy::extensions::filters::http::local_ratelimit::v3::*;
}
/// The global rate limit filter.
pub mod ratelimit {
    pub use super::envoy::extensions::filters::http::ratelimit::v3::*;
}
/// Descriptors that both rate limit filters share.
pub mod ratelimit_common {
    pub use super::envoy::extensions::common::ratelimit::v3::*;
}
/// Where a rate limit service is.
pub mod ratelimit_config {
    pub use super::envoy::config::ratelimit::v3::*;
}
/// What a rate limit service is asked and answers.
pub mod ratelimit_service {
    pub use super::envoy::service::ratelimit::v3::*;
}
/// Keys of metadata.
pub mod metadata_key {
    pub use super::envoy::r#type::metadata::v3::*;
}
/// The gRPC counters filter.
pub mod grpc_stats {
    pub use super::envoy::extensions::filters::http::grpc_stats::v3::*;
}
/// The gRPC-Web filter.
pub mod grpc_web {
    pub use super::envoy::extensions::filters::http::grpc_web::v3::*;
}
/// The header mutation filter.
pub mod header_mutation {
    pub use super::envoy::extensions::filters::http::header_mutation::v3::*;
}
/// Rules of header mutation.
pub mod mutation_rules {
    pub use super::envoy::config::common::mutation_rules::v3::*;
}
/// TLS contexts and secrets.
pub mod tls {
    pub use super::envoy::extensions::transport_sockets::tls::v3::*;
}
/// Plain text as a transport socket.
pub mod raw_buffer {
    pub use super::envoy::extensions::transport_sockets::raw_buffer::v3::*;
}
/// PROXY protocol towards upstreams.
pub mod upstream_proxy_protocol {
    pub use super::envoy::extensions::transport_sockets::proxy_protocol::v3::*;
}
/// HTTP options of clusters.
pub mod http_protocol_options {
    pub use super::envoy::extensions::upstreams::http::v3::*;
}
/// TCP options of clusters.
pub mod tcp_protocol_options {
    pub use super::envoy::extensions::upstreams::tcp::v3::*;
}
/// String, regex, metadata and value matchers.
pub mod matcher {
    pub use super::envoy::r#type::matcher::v3::*;
}
/// Percentages and ranges.
pub mod types {
    pub use super::envoy::r#type::v3::*;
}
/// Path templates.
pub mod uri_template {
    pub use super::envoy::extensions::path::r#match::uri_template::v3::*;
}
/// The listener filter that reads the original destination.
pub mod original_dst {
    pub use super::envoy::extensions::filters::listener::original_dst::v3::*;
}
/// The listener filter that reads a TLS client hello.
pub mod tls_inspector {
    pub use super::envoy::extensions::filters::listener::tls_inspector::v3::*;
}
/// The listener filter that detects HTTP.
pub mod http_inspector {
    pub use super::envoy::extensions::filters::listener::http_inspector::v3::*;
}
/// The listener filter that reads a PROXY protocol header.
pub mod proxy_protocol {
    pub use super::envoy::extensions::filters::listener::proxy_protocol::v3::*;
}
/// The retry predicate that avoids endpoints tried before.
pub mod previous_hosts {
    pub use super::envoy::extensions::retry::host::previous_hosts::v3::*;
}
/// The retry predicate that avoids priorities tried before.
pub mod previous_priorities {
    pub use super::envoy::extensions::retry::priority::previous_priorities::v3::*;
}
/// Tracing providers.
pub mod trace {
    pub use super::envoy::config::trace::v3::*;
}
/// Tags of spans.
pub mod tracing_tag {
    pub use super::envoy::r#type::tracing::v3::*;
}
/// Whose metadata is meant, and keys in it.
pub mod metadata_kind {
    pub use super::envoy::r#type::metadata::v3::*;
}
/// What OpenTelemetry spans say of their producer.
pub mod otel_resource {
    pub use super::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::*;
}
/// Samplers of OpenTelemetry.
pub mod otel_sampler {
    pub use super::envoy::extensions::tracers::opentelemetry::samplers::v3::*;
}
/// The access log filter that evaluates an expression.
pub mod access_log_cel {
    pub use super::envoy::extensions::access_loggers::filters::cel::v3::*;
}
