//! `DestinationRule` (networking.istio.io): subsets of a host and how connections to it behave.

use serde::Deserialize;

use crate::duration::ApiDuration;
use crate::matching::{PortSelector, StringMap, WorkloadSelector};

/// The spec of a `DestinationRule`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DestinationRule {
    /// Host the rule is for; a wildcard prefix is allowed.
    pub host: String,
    /// Policy of all traffic to the host.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the host's endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see the object; everywhere when empty.
    pub export_to: Vec<String>,
    /// Client pods, in the rule's namespace, the rule is for.
    pub workload_selector: Option<WorkloadSelector>,
}

/// A named part of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subset {
    /// Name that routes use.
    pub name: String,
    /// Labels that endpoints carry.
    pub labels: StringMap,
    /// Policy that goes before the rule's, block by block.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// Policy of connections.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Choice of an endpoint.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the host.
    pub tls: Option<ClientTls>,
    /// Overrides for single ports: they replace the four blocks above.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnelling through a proxy.
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol towards the host.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limit of concurrent retries.
    pub retry_budget: Option<RetryBudget>,
}

/// Policy of one port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortTrafficPolicy {
    /// The port.
    pub port: Option<PortSelector>,
    /// Choice of an endpoint.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the host.
    pub tls: Option<ClientTls>,
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancer {
    /// `LEAST_REQUEST` (default), `ROUND_ROBIN`, `RANDOM`, `PASSTHROUGH`, `LEAST_CONN`.
    pub simple: String,
    /// Sticky choice.
    pub consistent_hash: Option<ConsistentHash>,
    /// Preference of near endpoints.
    pub locality_lb_setting: Option<LocalityLb>,
    /// Older form of `warmup.duration`.
    pub warmup_duration_secs: Option<ApiDuration>,
    /// Slow start of new endpoints.
    pub warmup: Option<Warmup>,
}

/// `consistentHash`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsistentHash {
    /// Key: a header's value.
    pub http_header_name: String,
    /// Key: a cookie's value.
    pub http_cookie: Option<HttpCookie>,
    /// Key: the client's address.
    pub use_source_ip: bool,
    /// Key: a query parameter's value.
    pub http_query_parameter_name: String,
    /// Older form of `ringHash.minimumRingSize`.
    pub minimum_ring_size: Option<u64>,
    /// Ring hash (default).
    pub ring_hash: Option<RingHash>,
    /// Maglev.
    pub maglev: Option<Maglev>,
}

/// `ringHash`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RingHash {
    /// Least number of points; 1024 by default.
    pub minimum_ring_size: Option<u64>,
}

/// `maglev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Maglev {
    /// A prime; 65537 by default.
    pub table_size: Option<u64>,
}

/// `httpCookie`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HttpCookie {
    /// Name of the cookie.
    pub name: String,
    /// Path of a generated cookie.
    pub path: String,
    /// Life of a generated cookie; without it none is generated.
    pub ttl: Option<ApiDuration>,
    /// Further attributes of a generated cookie.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a generated cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CookieAttribute {
    /// Name of the attribute.
    pub name: String,
    /// Its value, perhaps none.
    pub value: String,
}

/// `localityLbSetting`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalityLb {
    /// True unless said otherwise.
    pub enabled: Option<bool>,
    /// Explicit weights between localities.
    pub distribute: Vec<Distribute>,
    /// Where to go when a region fails.
    pub failover: Vec<Failover>,
    /// Labels by which priorities are made.
    pub failover_priority: Vec<String>,
}

/// Explicit weights from one locality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Distribute {
    /// `region/zone/subzone` of the client, `*` allowed.
    pub from: String,
    /// Locality to weight; the sum is 100.
    pub to: std::collections::BTreeMap<String, u32>,
}

/// Region to region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// Region of the client.
    pub from: String,
    /// Region used next.
    pub to: String,
}

/// `warmup`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Warmup {
    /// Length of the slow start.
    pub duration: Option<ApiDuration>,
    /// Least share in percent; 10 by default.
    pub minimum_percent: Option<f64>,
    /// Shape of the ramp; 1.0 by default.
    pub aggression: Option<f64>,
}

/// `connectionPool`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConnectionPool {
    /// Limits of connections.
    pub tcp: Option<TcpSettings>,
    /// Limits of requests.
    pub http: Option<HttpSettings>,
}

/// `connectionPool.tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpSettings {
    /// Connections at most; no limit when absent or 0.
    pub max_connections: Option<i32>,
    /// Time to connect; 10 s by default.
    pub connect_timeout: Option<ApiDuration>,
    /// Keep-alive of the operating system.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<ApiDuration>,
    /// Idle connections are closed after this; 1 h by default.
    pub idle_timeout: Option<ApiDuration>,
}

/// `tcpKeepalive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TcpKeepalive {
    /// Probes without answer before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before probes start.
    pub time: Option<ApiDuration>,
    /// Time between probes.
    pub interval: Option<ApiDuration>,
}

/// `connectionPool.http`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpSettings {
    /// Requests that may wait for a connection.
    pub http1_max_pending_requests: Option<i32>,
    /// Requests in flight.
    pub http2_max_requests: Option<i32>,
    /// Requests on one connection.
    pub max_requests_per_connection: Option<i32>,
    /// Retries in flight.
    pub max_retries: Option<i32>,
    /// Idle upstream connections are closed after this.
    pub idle_timeout: Option<ApiDuration>,
    /// `DEFAULT`, `DO_NOT_UPGRADE` or `UPGRADE`.
    pub h2_upgrade_policy: String,
    /// Speak to the upstream what the client speaks.
    pub use_client_protocol: bool,
    /// Streams on one HTTP/2 connection.
    pub max_concurrent_streams: Option<i32>,
    /// HTTP/2 pings.
    #[serde(rename = "http2KeepAlive")]
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// `http2KeepAlive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Http2KeepAlive {
    /// Time between pings.
    pub interval: Option<ApiDuration>,
    /// Time for the answer.
    pub timeout: Option<ApiDuration>,
}

/// `outlierDetection`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Oldest form of `consecutive5xxErrors`.
    pub consecutive_errors: Option<i32>,
    /// Count local-origin errors apart.
    pub split_external_local_origin_errors: bool,
    /// Local-origin errors in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503, 504 in a row; off by default.
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 5 by default, 0 is off.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between analyses; 10 s by default.
    pub interval: Option<ApiDuration>,
    /// First ejection time; 30 s by default.
    pub base_ejection_time: Option<ApiDuration>,
    /// Share that may be ejected; 10 by default.
    pub max_ejection_percent: Option<i32>,
    /// Below this share of healthy endpoints detection is off.
    pub min_health_percent: i32,
}

/// `tls` towards a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientTls {
    /// `DISABLE`, `SIMPLE`, `MUTUAL` or `ISTIO_MUTUAL`.
    pub mode: String,
    /// File of the client certificate.
    pub client_certificate: String,
    /// File of the client key.
    pub private_key: String,
    /// File of the roots.
    pub ca_certificates: String,
    /// File of the revocation list.
    pub ca_crl: String,
    /// Secret that holds the certificates.
    pub credential_name: String,
    /// Names the server must have.
    pub subject_alt_names: Vec<String>,
    /// Server name to ask for.
    pub sni: String,
    /// Accept any server certificate.
    pub insecure_skip_verify: Option<bool>,
}

/// `tunnel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tunnel {
    /// `CONNECT` (default) or `POST`.
    pub protocol: String,
    /// Host at the far end.
    pub target_host: String,
    /// Port at the far end.
    pub target_port: u32,
}

/// `proxyProtocol`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProxyProtocol {
    /// `V1` (default) or `V2`.
    pub version: String,
}

/// `retryBudget`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryBudget {
    /// Share of active requests; 20 by default.
    pub percent: Option<f64>,
    /// Retries always allowed; 3 by default.
    pub min_retry_concurrency: Option<u32>,
}
