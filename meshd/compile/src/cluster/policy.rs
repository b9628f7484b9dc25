//! Traffic policies in Envoy's terms: which block applies, circuit breakers, outlier detection, load balancing, HTTP options.

use std::collections::HashMap;
use std::time::Duration;

use policies_api::destination_rule::{
    ClientTls, ConnectionPool, HttpSettings, LoadBalancer, OutlierDetection, RetryBudget, TcpSettings,
    TrafficPolicy, Warmup,
};
use policies_xds::cluster::circuit_breakers::{Thresholds, thresholds};
use policies_xds::cluster::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig,
};
use policies_xds::cluster::{CircuitBreakers, OutlierDetection as OutlierMessage};
use policies_xds::http_protocol_options::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};
use policies_xds::protobuf::{Any, UInt64Value};
use policies_xds::{any, core, http_protocol_options, type_url, types};

use crate::proto::{duration, flag, number};

/// The blocks that apply to one port of one part of a host.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effective<'a> {
    pub(crate) load_balancer: Option<&'a LoadBalancer>,
    pub(crate) connection_pool: Option<&'a ConnectionPool>,
    pub(crate) outlier_detection: Option<&'a OutlierDetection>,
    pub(crate) tls: Option<&'a ClientTls>,
    pub(crate) retry_budget: Option<&'a RetryBudget>,
}

/// How a cluster speaks HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    Http1,
    Http2,
    FollowClient,
}

// === impl Effective ===

impl<'a> Effective<'a> {
    /// The subset's blocks go before the rule's; settings of the port replace all four.
    pub(crate) fn new(rule: Option<&'a TrafficPolicy>, subset: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let base = Self::default().with(rule, port);
        base.with(subset, port)
    }

    fn with(self, policy: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else { return self };
        let retry_budget = policy.retry_budget.as_ref().or(self.retry_budget);
        let of_port = policy
            .port_level_settings
            .iter()
            .find(|it| it.port.is_some_and(|it| it.number == u32::from(port)));
        match of_port {
            Some(settings) => Self {
                load_balancer: settings.load_balancer.as_ref(),
                connection_pool: settings.connection_pool.as_ref(),
                outlier_detection: settings.outlier_detection.as_ref(),
                tls: settings.tls.as_ref(),
                retry_budget,
            },
            None => Self {
                load_balancer: policy.load_balancer.as_ref().or(self.load_balancer),
                connection_pool: policy.connection_pool.as_ref().or(self.connection_pool),
                outlier_detection: policy.outlier_detection.as_ref().or(self.outlier_detection),
                tls: policy.tls.as_ref().or(self.tls),
                retry_budget,
            },
        }
    }

    pub(crate) fn tcp(&self) -> Option<&'a TcpSettings> {
        self.connection_pool.and_then(|it| it.tcp.as_ref())
    }

    pub(crate) fn http(&self) -> Option<&'a HttpSettings> {
        self.connection_pool.and_then(|it| it.http.as_ref())
    }

    /// `PASSTHROUGH`: connections go where they were going.
    pub(crate) fn is_passthrough(&self) -> bool {
        self.load_balancer.is_some_and(|it| it.simple == "PASSTHROUGH")
    }
}

/// Limits; what is not limited stands at the greatest value, as in Istio, so that Envoy's own defaults never bite.
pub(crate) fn circuit_breakers(
    pool: Option<&ConnectionPool>,
    budget: Option<&RetryBudget>,
) -> CircuitBreakers {
    let limit = |value: Option<i32>| {
        number(value.and_then(|it| u32::try_from(it).ok()).filter(|it| *it > 0).unwrap_or(u32::MAX))
    };
    let tcp = pool.and_then(|it| it.tcp.as_ref());
    let http = pool.and_then(|it| it.http.as_ref());
    let thresholds = Thresholds {
        max_connections: limit(tcp.and_then(|it| it.max_connections)),
        max_pending_requests: limit(http.and_then(|it| it.http1_max_pending_requests)),
        max_requests: limit(http.and_then(|it| it.http2_max_requests)),
        max_retries: limit(http.and_then(|it| it.max_retries)),
        track_remaining: true,
        retry_budget: budget.map(|it| thresholds::RetryBudget {
            budget_percent: Some(types::Percent { value: bounded_percent(it.percent.unwrap_or(20.0)) }),
            min_retry_concurrency: number(it.min_retry_concurrency.unwrap_or(3)),
            ..Default::default()
        }),
        ..Default::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// Ejection of failing endpoints; success rates are never looked at, and one endpoint can always be ejected.
pub(crate) fn outlier_detection(written: &OutlierDetection) -> OutlierMessage {
    let percent = |value: i32| u32::try_from(value).ok().filter(|it| *it > 0).map(|it| it.min(100));
    let mut message = OutlierMessage {
        enforcing_success_rate: number(0),
        interval: written.interval.map(|it| duration(it.0)),
        base_ejection_time: written.base_ejection_time.map(|it| duration(it.0)),
        max_ejection_percent: written.max_ejection_percent.and_then(percent).and_then(number),
        always_eject_one_host: flag(true),
        ..Default::default()
    };
    if let Some(errors) = written.consecutive_5xx_errors {
        message.consecutive_5xx = number(errors);
        message.enforcing_consecutive_5xx = number(if errors > 0 { 100 } else { 0 });
    }
    let legacy = written.consecutive_errors.and_then(|it| u32::try_from(it).ok());
    if let Some(errors) = written.consecutive_gateway_errors.or(legacy) {
        message.consecutive_gateway_failure = number(errors);
        message.enforcing_consecutive_gateway_failure = number(if errors > 0 { 100 } else { 0 });
    }
    if written.split_external_local_origin_errors {
        message.split_external_local_origin_errors = true;
        message.enforcing_local_origin_success_rate = number(0);
        if let Some(failures) = written.consecutive_local_origin_failures.filter(|it| *it > 0) {
            message.consecutive_local_origin_failure = number(failures);
            message.enforcing_consecutive_local_origin_failure = number(100);
        }
    }
    message
}

/// Policy and its options.
pub(crate) fn load_balancing(written: Option<&LoadBalancer>) -> (LbPolicy, Option<LbConfig>) {
    let Some(written) = written else { return (LbPolicy::LeastRequest, None) };
    if let Some(hash) = &written.consistent_hash {
        if let Some(maglev) = &hash.maglev {
            let table_size = maglev.table_size.filter(|it| *it > 0).map(|value| UInt64Value { value });
            return (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size })));
        }
        let size = hash
            .ring_hash
            .as_ref()
            .and_then(|it| it.minimum_ring_size)
            .or(hash.minimum_ring_size)
            .unwrap_or(1024);
        // Envoy's bound on a ring.
        let minimum_ring_size = Some(UInt64Value { value: size.min(8_388_608) });
        return (
            LbPolicy::RingHash,
            Some(LbConfig::RingHashLbConfig(RingHashLbConfig { minimum_ring_size, ..Default::default() })),
        );
    }
    let slow_start_config = slow_start(written);
    match written.simple.as_str() {
        "ROUND_ROBIN" => {
            let config = slow_start_config
                .map(|it| LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(it) }));
            (LbPolicy::RoundRobin, config)
        }
        "RANDOM" => (LbPolicy::Random, None),
        "PASSTHROUGH" => (LbPolicy::ClusterProvided, None),
        _ => {
            let config = slow_start_config.map(|it| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(it),
                    ..Default::default()
                })
            });
            (LbPolicy::LeastRequest, config)
        }
    }
}

fn slow_start(written: &LoadBalancer) -> Option<SlowStartConfig> {
    let legacy =
        written.warmup_duration_secs.map(|duration| Warmup { duration: Some(duration), ..Warmup::default() });
    let warmup = written.warmup.as_ref().or(legacy.as_ref())?;
    Some(SlowStartConfig {
        slow_start_window: Some(duration(warmup.duration?.0)),
        aggression: Some(core::RuntimeDouble {
            default_value: warmup.aggression.filter(|it| it.is_finite() && *it > 0.0).unwrap_or(1.0),
            runtime_key: String::new(),
        }),
        min_weight_percent: Some(types::Percent {
            value: bounded_percent(warmup.minimum_percent.unwrap_or(10.0)),
        }),
    })
}

fn bounded_percent(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 100.0) }
}

/// HTTP options of a cluster; empty when Envoy's defaults say the same.
pub(crate) fn http_options(
    upgrade: Upgrade,
    http: Option<&HttpSettings>,
    tcp: Option<&TcpSettings>,
) -> HashMap<String, Any> {
    let limits = core::HttpProtocolOptions {
        idle_timeout: http.and_then(|it| it.idle_timeout).map(|it| duration(it.0)),
        max_requests_per_connection: http
            .and_then(|it| it.max_requests_per_connection)
            .and_then(|it| u32::try_from(it).ok())
            .filter(|it| *it > 0)
            .and_then(number),
        max_connection_duration: tcp.and_then(|it| it.max_connection_duration).map(|it| duration(it.0)),
        ..Default::default()
    };
    let has_limits = limits != core::HttpProtocolOptions::default();
    if upgrade == Upgrade::Http1 && !has_limits {
        return HashMap::new();
    }
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: http
            .and_then(|it| it.max_concurrent_streams)
            .and_then(|it| u32::try_from(it).ok())
            .filter(|it| *it > 0)
            .and_then(number),
        connection_keepalive: http.and_then(|it| it.http2_keep_alive.as_ref()).and_then(keepalive),
        ..Default::default()
    };
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let protocol = match upgrade {
        Upgrade::Http1 => {
            explicit(ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default()))
        }
        Upgrade::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
        Upgrade::FollowClient => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2),
                ..Default::default()
            })
        }
    };
    let options = http_protocol_options::HttpProtocolOptions {
        common_http_protocol_options: has_limits.then_some(limits),
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    HashMap::from([(type_url::HTTP_PROTOCOL_OPTIONS_KEY.to_owned(), any(&options))])
}

fn keepalive(written: &policies_api::destination_rule::Http2KeepAlive) -> Option<core::KeepaliveSettings> {
    let bounded = |it: Duration| duration(it.max(Duration::from_millis(1)));
    Some(core::KeepaliveSettings {
        interval: Some(bounded(written.interval?.0)),
        timeout: Some(bounded(written.timeout?.0)),
        ..Default::default()
    })
}

/// Speaks to the upstream what the client speaks.
pub(crate) fn follow_client() -> HashMap<String, Any> {
    http_options(Upgrade::FollowClient, None, None)
}

/// Speaks HTTP/2.
pub(crate) fn explicit_http2() -> HashMap<String, Any> {
    http_options(Upgrade::Http2, None, None)
}
