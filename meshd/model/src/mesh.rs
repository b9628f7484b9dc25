//! The mesh-wide options that compilation depends on, with Istio's defaults and our two exceptions.

mod authz_provider;

pub use authz_provider::{AuthzBody, AuthzProtocol, AuthzProvider};

use std::time::Duration;

use policies_api::names;
use policies_api::peer_authentication::MtlsMode;

use crate::provider::Provider;

/// Mesh-wide options.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// Trust domain of all identities.
    pub trust_domain: String,
    /// Further trust domains whose identities count as ours.
    pub trust_domain_aliases: Vec<String>,
    /// Namespace whose policies are mesh-wide.
    pub root_namespace: String,
    /// DNS suffix of services.
    pub cluster_domain: String,
    /// File of the access log, empty when off.
    pub access_log_file: String,
    /// Text format of the access log; Istio's when empty.
    pub access_log_format: String,
    /// What happens to unknown destinations.
    pub outbound_policy: OutboundPolicy,
    /// Time to connect to an endpoint.
    pub connect_timeout: Duration,
    /// Bound of protocol sniffing; zero means no bound.
    pub protocol_detection_timeout: Duration,
    /// Mode where no `PeerAuthentication` says anything.
    pub default_mtls: MtlsMode,
    /// Whether sidecars use mutual TLS by themselves towards pods that accept it.
    pub auto_mtls: bool,
    /// Whose clients a `VirtualService` for another namespace's host concerns.
    pub host_scope: HostScope,
    /// How often DNS clusters resolve without a TTL.
    pub dns_refresh_rate: Duration,
    /// Identifier of the mesh, empty when it has none.
    pub mesh_id: String,
    /// Places for spans and logs, by name.
    pub providers: Vec<Provider>,
    /// Providers of spans where no object names one; the first counts.
    pub default_tracing: Vec<String>,
    /// Providers of logs where no object names one.
    pub default_access_logging: Vec<String>,
    /// Fields of the access log's JSON instead of a text.
    pub access_log_json: bool,
    /// Request identifiers say what is sampled also where no provider is named.
    pub enable_tracing: bool,
    /// Share of traced requests in percent.
    pub trace_sampling: f64,
    /// Namespaces that see services without an annotation; everywhere when empty.
    pub default_service_export_to: Vec<String>,
    /// Namespaces that see virtual services without `exportTo`.
    pub default_virtual_service_export_to: Vec<String>,
    /// Namespaces that see destination rules without `exportTo`.
    pub default_destination_rule_export_to: Vec<String>,
    /// Services that authorize requests for the action `CUSTOM`.
    pub authz_providers: Vec<AuthzProvider>,
}

/// What happens to outbound connections to unknown destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutboundPolicy {
    /// They pass unchanged.
    #[default]
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

/// Whose clients a `VirtualService` concerns when its host belongs to another namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostScope {
    /// Clients of its own namespace, unless the service's annotation grants more.
    #[default]
    OwnNamespace,
    /// All clients, as in Istio.
    Anywhere,
}

// === impl MeshConfig ===

impl MeshConfig {
    /// A provider by name.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|it| it.name == name)
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: names::TRUST_DOMAIN.to_owned(),
            trust_domain_aliases: Vec::new(),
            root_namespace: names::ROOT_NAMESPACE.to_owned(),
            cluster_domain: names::CLUSTER_DOMAIN.to_owned(),
            access_log_file: String::new(),
            access_log_format: String::new(),
            outbound_policy: OutboundPolicy::AllowAny,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::ZERO,
            default_mtls: MtlsMode::Strict,
            auto_mtls: true,
            host_scope: HostScope::OwnNamespace,
            dns_refresh_rate: Duration::from_secs(60),
            mesh_id: String::new(),
            providers: Vec::new(),
            default_tracing: Vec::new(),
            default_access_logging: Vec::new(),
            access_log_json: false,
            enable_tracing: true,
            trace_sampling: 1.0,
            default_service_export_to: Vec::new(),
            default_virtual_service_export_to: Vec::new(),
            default_destination_rule_export_to: Vec::new(),
            authz_providers: Vec::new(),
        }
    }
}
