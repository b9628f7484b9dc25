//! Clusters: sets of endpoints that serve the same thing, and how they are reached.

pub(crate) mod proto;

use crate::endpoint::Endpoints;
use crate::hcm::{Http1Options, Http2Options};
use crate::health_check::HealthCheck;
use crate::metadata::Metadata;
use crate::tls::UpstreamTls;
use http::HeaderName;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterKind {
    /// From the endpoints resource of this name.
    Eds {
        /// Its name: the cluster's own unless said otherwise.
        service_name: Arc<str>,
    },
    /// From the cluster itself.
    Static,
    /// Names in the cluster are resolved; every address is an endpoint.
    StrictDns(DnsOptions),
    /// A name in the cluster is resolved; the first address is used for new connections.
    LogicalDns(DnsOptions),
    /// The connection's original destination is the endpoint.
    OriginalDst {
        /// A header may name the destination instead.
        #[serde(serialize_with = "crate::dump::display_option")]
        header: Option<HeaderName>,
        /// The port is replaced by this one.
        port_override: Option<u16>,
    },
}

/// How names are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsOptions {
    /// How often, unless the record's own life says so.
    pub refresh: Duration,
    /// The record's own life decides.
    pub respect_ttl: bool,
    /// Which addresses are wanted.
    pub family: DnsFamily,
}

/// Which addresses are wanted of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DnsFamily {
    /// IPv6 if there is any, else IPv4.
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4 if there is any, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

/// Hash that consistent hashing uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HashFunction {
    /// xxHash64.
    #[default]
    XxHash,
    /// MurmurHash2 as in libstdc++.
    MurmurHash2,
}

/// A slow start of new endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// How long an endpoint is new.
    pub window: Duration,
    /// Curve of its growing weight; 1: linear.
    pub aggression: f64,
    /// Lowest share of its weight, 0.0 to 1.0.
    pub weight_min: f64,
}

/// A moving average of response times that jumps up at once and comes down slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeakEwma {
    /// In this time an observation loses all but 1/e of its weight; above zero.
    pub decay: Duration,
    /// What an endpoint without observations is taken to need.
    pub default_rtt: Duration,
}

/// What happens to requests whose labels no subset has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SubsetFallback {
    /// No endpoint serves them.
    None,
    /// Every endpoint does.
    AnyEndpoint,
    /// Those of the default subset do.
    DefaultSubset,
    /// Only these keys are looked at.
    Keys(Vec<Box<str>>),
}

/// Keys by whose values subsets are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubsetSelector {
    /// The keys, sorted; never empty.
    pub keys: Vec<Box<str>>,
    /// What happens when no endpoint has the values asked for; `None`: what the cluster says.
    pub fallback: Option<SubsetFallback>,
}

/// Subsets of the endpoints by their metadata under `envoy.lb`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subsets {
    /// What happens to requests that ask for nothing, or for what no selector has.
    pub fallback: SubsetFallback,
    /// Labels of the default subset.
    pub default_subset: Vec<(Box<str>, serde_json::Value)>,
    /// How subsets are made; never empty.
    pub selectors: Vec<SubsetSelector>,
    /// Weights of localities hold within a subset, too.
    pub locality_weight_aware: bool,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LbPolicy {
    /// In turn.
    RoundRobin {
        /// Slow start.
        slow_start: Option<SlowStart>,
    },
    /// The least busy of `choices` drawn by chance.
    LeastRequest {
        /// How many are drawn; at least 2.
        choices: u32,
        /// Slow start.
        slow_start: Option<SlowStart>,
        /// How strongly active requests count against weights; 1.0 is Envoy's default.
        active_request_bias: f64,
    },
    /// By chance.
    Random,
    /// The cheaper of two drawn by chance, by response times and requests under way.
    PeakEwma(PeakEwma),
    /// Consistent hashing on a ring.
    RingHash {
        /// Fewest points.
        ring_size_min: u64,
        /// Most points.
        ring_size_max: u64,
        /// The hash.
        hash: HashFunction,
    },
    /// Consistent hashing with a Maglev table.
    Maglev {
        /// Its size, a prime number.
        table_size: u64,
    },
    /// The cluster itself says where: original destination.
    ClusterProvided,
}

/// How localities and priorities are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityLb {
    /// Localities are chosen by their weight before endpoints are.
    pub weighted_localities: bool,
    /// Below this percentage of healthy endpoints all are used; 0: never.
    pub healthy_panic_percent: u8,
    /// Percentage by which a priority's health may be low before the next one helps, as 100 × factor.
    pub overprovisioning_percent: u32,
    /// Connections to endpoints that fail health checks or are removed are closed.
    pub close_connections_on_host_health_failure: bool,
}

/// Retries at once, as a share of active requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Percentage of active and pending requests, 0.0 to 100.0.
    pub percent: f64,
    /// Retries always allowed.
    pub min_concurrency: u32,
}

/// Limits of one priority; `u32::MAX`: none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Thresholds {
    /// Connections.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending_requests: u32,
    /// Requests at once.
    pub max_requests: u32,
    /// Retries at once; does not count when there is a budget.
    pub max_retries: u32,
    /// Connection pools.
    pub max_connection_pools: u32,
    /// Retry budget.
    pub retry_budget: Option<RetryBudget>,
    /// Remaining room is published as metrics.
    pub track_remaining: bool,
}

/// Limits of a cluster, and of each of its endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreakers {
    /// Ordinary requests.
    pub default: Thresholds,
    /// Requests of high priority.
    pub high: Thresholds,
    /// Connections to one endpoint.
    pub per_host_max_connections: Option<u32>,
}

/// When endpoints are put aside for failing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// 5xx answers (or local failures, unless split) in a row; 0: not looked at.
    pub consecutive_5xx: u32,
    /// Chance in percent that this ejects.
    pub enforcing_consecutive_5xx: u8,
    /// 502, 503 and 504 answers in a row; 0: not looked at.
    pub consecutive_gateway_failure: u32,
    /// Chance in percent that this ejects.
    pub enforcing_consecutive_gateway_failure: u8,
    /// Local failures (connect, reset, timeout) are counted apart from answers.
    pub split_external_local_origin_errors: bool,
    /// Local failures in a row, when split.
    pub consecutive_local_origin_failure: u32,
    /// Chance in percent that this ejects.
    pub enforcing_consecutive_local_origin_failure: u8,
    /// How often ejected endpoints are looked at.
    pub interval: Duration,
    /// First ejection; multiplied by how often the endpoint was ejected.
    pub base_ejection_time: Duration,
    /// Longest ejection.
    pub max_ejection_time: Duration,
    /// Random addition to an ejection.
    pub max_ejection_time_jitter: Duration,
    /// Share of endpoints that may be ejected, in percent; one always may.
    pub max_ejection_percent: u8,
    /// One endpoint may be ejected whatever the percentage says.
    pub always_eject_one: bool,
    /// Success rate ejection: chance in percent; 0: off.
    pub enforcing_success_rate: u8,
    /// Endpoints with enough requests before rates are compared.
    pub success_rate_minimum_hosts: u32,
    /// Requests in an interval before an endpoint's rate counts.
    pub success_rate_request_volume: u32,
    /// Standard deviations, in thousandths, below the mean that eject.
    pub success_rate_stdev_factor: u32,
    /// Failure percentage ejection: chance in percent; 0: off.
    pub enforcing_failure_percentage: u8,
    /// Failure percentage that ejects.
    pub failure_percentage_threshold: u8,
    /// Endpoints with enough requests before percentages count.
    pub failure_percentage_minimum_hosts: u32,
    /// Requests in an interval before an endpoint's percentage counts.
    pub failure_percentage_request_volume: u32,
    /// Success rate ejection by connections, when split: chance in percent; 0: off.
    pub enforcing_local_origin_success_rate: u8,
    /// Failure percentage ejection by connections, when split: chance in percent; 0: off.
    pub enforcing_failure_percentage_local_origin: u8,
    /// An endpoint that passes active health checks comes back at once.
    pub successful_check_unejects: bool,
}

/// Which HTTP is spoken to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, by prior knowledge.
    Http2,
    /// What the downstream speaks.
    UseDownstream,
    /// What ALPN says, HTTP/1.1 without.
    Auto,
}

/// How HTTP is spoken to endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamHttp {
    /// Which HTTP.
    pub protocol: UpstreamProtocol,
    /// How long a connection without requests is kept; `None`: forever.
    pub idle_timeout: Option<Duration>,
    /// How long a connection is kept at all; `None`: forever.
    pub max_connection_duration: Option<Duration>,
    /// Requests before a connection is closed; `None`: unlimited.
    pub max_requests_per_connection: Option<u32>,
    /// HTTP/2 limits; its `max_concurrent_streams` bounds the streams of one connection.
    pub http2: Http2Options,
    /// HTTP/1 oddities.
    pub http1: Http1Options,
}

/// Keep-alive of TCP connections; `None`: the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpKeepalive {
    /// Probes without answer before a connection is dead.
    pub probes: Option<u32>,
    /// Stillness before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// TLS, or none, for the endpoints whose metadata matches.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportSocketMatch {
    /// Its name, such as `tlsMode-istio`.
    pub name: Box<str>,
    /// Labels an endpoint must carry under `envoy.transport_socket_match`; none: every endpoint.
    pub labels: Vec<(Box<str>, serde_json::Value)>,
    /// TLS; `None`: plain text.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// A PROXY protocol header sent to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyProtocolVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// A set of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// Its name in metrics; empty: its name.
    pub alt_stat_name: Box<str>,
    /// Where endpoints come from.
    pub kind: ClusterKind,
    /// Endpoints that the cluster itself carries.
    pub load_assignment: Option<Arc<Endpoints>>,
    /// How an endpoint is chosen.
    pub lb: LbPolicy,
    /// How localities are weighed.
    pub locality_lb: LocalityLb,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// Limits.
    pub circuit_breakers: CircuitBreakers,
    /// When endpoints are put aside; `None`: never.
    pub outlier: Option<OutlierDetection>,
    /// How HTTP is spoken.
    pub http: UpstreamHttp,
    /// TLS of endpoints that no match covers; `None`: plain text.
    pub tls: Option<Arc<UpstreamTls>>,
    /// TLS by endpoint; the first match wins.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// A PROXY protocol header precedes the bytes.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Keep-alive.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Address that connections come from, such as `127.0.0.6`.
    pub source_address: Option<std::net::IpAddr>,
    /// Bytes buffered for one connection.
    pub per_connection_buffer_bytes_max: usize,
    /// Idle timeout of TCP connections through this cluster; `None`: that of the TCP proxy.
    pub tcp_idle_timeout: Option<Duration>,
    /// Metadata, such as Istio's list of services under `istio`.
    pub metadata: Metadata,
    /// Subsets that requests are balanced in; `None`: among all endpoints.
    pub subsets: Option<Subsets>,
    /// How endpoints are asked whether they serve.
    pub health_checks: Vec<HealthCheck>,
    /// Routing follows new endpoints only; connections of those gone are left to end.
    pub ignore_health_on_host_removal: bool,
}

// === impl Thresholds ===

impl Default for Thresholds {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            max_connection_pools: u32::MAX,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

// === impl LocalityLb ===

impl Default for LocalityLb {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            weighted_localities: false,
            healthy_panic_percent: 50,
            overprovisioning_percent: 140,
            close_connections_on_host_health_failure: false,
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Name of the endpoints resource it needs, if it needs one.
    pub fn eds_name(&self) -> Option<&Arc<str>> {
        match &self.kind {
            ClusterKind::Eds { service_name } => Some(service_name),
            _ => None,
        }
    }

    /// TLS towards an endpoint with this metadata; `None`: plain text.
    pub fn tls_for(&self, endpoint: &Metadata) -> Option<&Arc<UpstreamTls>> {
        let labels = endpoint.namespace("envoy.transport_socket_match");
        let found = self.transport_socket_matches.iter().find(|one| {
            one.labels.iter().all(|(key, want)| labels.and_then(|labels| labels.get(&**key)) == Some(want))
        });
        match found {
            Some(one) => one.tls.as_ref(),
            None => self.tls.as_ref(),
        }
    }
}
