//! Labels, annotations, ports, namespaces and image names that people and other programs know.

/// Root namespace of the mesh.
pub const ROOT_NAMESPACE: &str = "mesh-system";
/// Default trust domain.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// Default DNS suffix of the cluster.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Default name of the (Kubernetes) cluster, as metrics show it.
pub const CLUSTER_ID: &str = "Kubernetes";

/// Deployment, Service and service account of the control plane.
pub const CONTROL_PLANE: &str = "meshd";
/// Deployment and Service of the ingress gateway.
pub const INGRESS_GATEWAY: &str = "istio-ingressgateway";
/// ConfigMap that holds the mesh configuration, in the root namespace, key [`MESH_CONFIG_KEY`].
pub const MESH_CONFIG_MAP: &str = "istio";
/// Key of the mesh configuration.
pub const MESH_CONFIG_KEY: &str = "mesh";
/// ConfigMap with the mesh's root certificate, in every namespace.
pub const ROOT_CERT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// Key of the root certificate.
pub const ROOT_CERT_KEY: &str = "root-cert.pem";
/// Audience of the tokens that sidecars present.
pub const TOKEN_AUDIENCE: &str = "istio-ca";
/// Name of the sidecar's container.
pub const SIDECAR_CONTAINER: &str = "istio-proxy";

/// Image of the sidecar, without its tag.
pub const SIDECAR_IMAGE: &str = "mesh.local/sidecar";
/// Image of the control plane, without its tag.
pub const MESHD_IMAGE: &str = "mesh.local/meshd";
/// Image of the sample application, without its tag.
pub const BOOKINFO_IMAGE: &str = "mesh.local/bookinfo";

/// User and group of the sidecar.
pub const PROXY_UID: u32 = 1337;

/// Ports of the sidecar and the control plane.
pub mod ports {
    /// Admin of the sidecar, loopback only.
    pub const ADMIN: u16 = 15000;
    /// Outbound connections are redirected here.
    pub const OUTBOUND: u16 = 15001;
    /// Inbound connections are redirected here.
    pub const INBOUND: u16 = 15006;
    /// xDS and CSR of the control plane, TLS.
    pub const DISCOVERY: u16 = 15012;
    /// Metrics and debug pages of the control plane.
    pub const CONTROL_PLANE_METRICS: u16 = 15014;
    /// Webhooks of the control plane.
    pub const WEBHOOK: u16 = 15017;
    /// Merged metrics and probes of the sidecar.
    pub const MERGED_METRICS: u16 = 15020;
    /// Readiness of the sidecar.
    pub const HEALTH: u16 = 15021;
    /// Metrics of the sidecar.
    pub const METRICS: u16 = 15090;
}

/// Labels.
pub mod labels {
    /// On a namespace: `enabled` or `disabled`.
    pub const INJECTION: &str = "istio-injection";
    /// On a namespace or pod: revision that injects.
    pub const REVISION: &str = "istio.io/rev";
    /// On a pod: whether to inject.
    pub const INJECT: &str = "sidecar.istio.io/inject";
    /// On a pod: `istio` when it accepts mutual TLS.
    pub const TLS_MODE: &str = "security.istio.io/tlsMode";
    /// On a pod: name in metrics.
    pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
    /// On a pod: version in metrics.
    pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
    /// Kubernetes' recommended application name.
    pub const APP_NAME: &str = "app.kubernetes.io/name";
    /// Kubernetes' recommended application version.
    pub const APP_VERSION: &str = "app.kubernetes.io/version";
    /// Region of a node.
    pub const REGION: &str = "topology.kubernetes.io/region";
    /// Zone of a node.
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    /// Subzone of a node.
    pub const SUBZONE: &str = "topology.istio.io/subzone";
}

/// Annotations.
pub mod annotations {
    /// On a pod that is being deleted: its `deletionTimestamp`, written by the control plane once every connected proxy has acknowledged
    /// that the pod takes no new requests. Until then, for a few seconds at most, the kubelet leaves the application alone.
    pub const RELEASED: &str = "meshd.dev/released-by-clients";
    /// On an injected pod: what was injected.
    pub const STATUS: &str = "sidecar.istio.io/status";
    /// On a pod: whether to inject (older than the label).
    pub const INJECT: &str = "sidecar.istio.io/inject";
    /// On a Service: namespaces that see it.
    pub const EXPORT_TO: &str = "networking.istio.io/exportTo";
    /// On a Service: namespaces whose virtual services may take its host for all clients, separated by commas; `*` is any.
    pub const ROUTE_GRANTS: &str = "meshd.dev/virtual-service-namespaces";
    /// On an `AuthorizationPolicy`: evaluate without effect.
    pub const DRY_RUN: &str = "istio.io/dry-run";
    /// Annotation of a `VirtualService`: `true` lets the key of the destinations' `consistentHash` choose among weights, too, so that
    /// a user stays with a version, and a version's users stay with it when its weight grows.
    pub const STICKY_SPLIT: &str = "meshd.dev/sticky-split";
    /// On a pod: inbound ports that are redirected.
    pub const INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
    /// On a pod: inbound ports that are not.
    pub const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
    /// On a pod: outbound ports that are redirected in any case.
    pub const INCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
    /// On a pod: outbound ports that are not.
    pub const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
    /// On a pod: outbound addresses that are redirected.
    pub const INCLUDE_OUTBOUND_IP_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
    /// On a pod: outbound addresses that are not.
    pub const EXCLUDE_OUTBOUND_IP_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
}
