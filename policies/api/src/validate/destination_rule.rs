//! Rules of `DestinationRule`.

use super::texts::is_label;
use super::{Problem, field};
use crate::DestinationRule;
use crate::destination_rule::{
    ClientTls, ConnectionPool, ConsistentHash, LoadBalancer, OutlierDetection, TrafficPolicy,
};

pub(super) fn check(spec: &DestinationRule, problems: &mut Vec<Problem>) {
    field::host(&spec.host, true, "spec.host", problems);
    traffic_policy(spec.traffic_policy.as_ref(), "spec.trafficPolicy", problems);
    for (index, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        if !is_label(&subset.name, false) {
            let reason = format!("subset name \"{}\" is invalid", subset.name);
            problems.push(Problem::error(
                format!("{path}.name"),
                reason,
                "use letters, digits and dashes, at most 63",
            ));
        }
        if spec.subsets[..index].iter().any(|it| it.name == subset.name) {
            let reason = format!("duplicate subset name \"{}\"", subset.name);
            problems.push(Problem::error(format!("{path}.name"), reason, "give each subset its own name"));
        }
        field::labels(&subset.labels, &format!("{path}.labels"), problems);
        traffic_policy(subset.traffic_policy.as_ref(), &format!("{path}.trafficPolicy"), problems);
    }
    field::export_to(&spec.export_to, problems);
    if let Some(selector) = &spec.workload_selector {
        field::labels(&selector.match_labels, "spec.workloadSelector.matchLabels", problems);
        if spec.export_to.iter().any(|it| it != ".") {
            let reason = "a rule with a workloadSelector must be exported to its own namespace only";
            problems.push(Problem::error("spec.exportTo", reason, "use [\".\"]"));
        }
    }
}

fn traffic_policy(policy: Option<&TrafficPolicy>, path: &str, problems: &mut Vec<Problem>) {
    let Some(policy) = policy else { return };
    blocks(
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        path,
        problems,
    );
    for (index, of_port) in policy.port_level_settings.iter().enumerate() {
        let inner = format!("{path}.portLevelSettings[{index}]");
        match of_port.port {
            Some(port) => field::port(port.number, &format!("{inner}.port.number"), problems),
            None => problems.push(Problem::error(
                format!("{inner}.port"),
                "port must be set for portLevelSettings",
                "add port.number",
            )),
        }
        blocks(
            of_port.load_balancer.as_ref(),
            of_port.connection_pool.as_ref(),
            of_port.outlier_detection.as_ref(),
            of_port.tls.as_ref(),
            &inner,
            problems,
        );
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        problems.push(Problem::error(
            path,
            "tunnel and proxyProtocol cannot be set together",
            "keep one of them",
        ));
    }
}

fn blocks(
    balancer: Option<&LoadBalancer>,
    pool: Option<&ConnectionPool>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTls>,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    if let Some(balancer) = balancer {
        load_balancer(balancer, &format!("{path}.loadBalancer"), problems);
    }
    if let Some(pool) = pool {
        connection_pool(pool, &format!("{path}.connectionPool"), problems);
    }
    if let Some(outlier) = outlier {
        outlier_detection(outlier, &format!("{path}.outlierDetection"), problems);
    }
    if let Some(tls) = tls {
        client_tls(tls, &format!("{path}.tls"), problems);
    }
}

fn load_balancer(written: &LoadBalancer, path: &str, problems: &mut Vec<Problem>) {
    if let Some(hash) = &written.consistent_hash {
        consistent_hash(hash, &format!("{path}.consistentHash"), problems);
    }
    let slow_start = written.warmup.is_some() || written.warmup_duration_secs.is_some();
    let fits = matches!(
        written.simple.as_str(),
        "" | "UNSPECIFIED" | "ROUND_ROBIN" | "LEAST_REQUEST" | "LEAST_CONN"
    );
    if slow_start && (!fits || written.consistent_hash.is_some()) {
        let reason = "warmup is only supported with ROUND_ROBIN and LEAST_REQUEST";
        problems.push(Problem::error(path, reason, "remove warmup or change simple"));
    }
    let Some(locality) = &written.locality_lb_setting else { return };
    let path = format!("{path}.localityLbSetting");
    let kinds = [!locality.distribute.is_empty(), !locality.failover.is_empty()];
    if kinds.iter().filter(|it| **it).count() > 1 {
        problems.push(Problem::error(
            &path,
            "can not simultaneously specify 'distribute' and 'failover'",
            "keep one of them",
        ));
    }
    for (index, share) in locality.distribute.iter().enumerate() {
        let sum: u64 = share.to.values().map(|it| u64::from(*it)).sum();
        if sum != 100 {
            let inner = format!("{path}.distribute[{index}].to");
            problems.push(Problem::error(
                inner,
                format!("total locality weight {sum} != 100"),
                "make the shares add up to 100",
            ));
        }
    }
    for (index, rule) in locality.failover.iter().enumerate().filter(|(_, rule)| rule.from == rule.to) {
        let inner = format!("{path}.failover[{index}]");
        problems.push(Problem::error(
            inner,
            "locality lb failover settings must specify different regions",
            format!("use another region than {}", rule.from),
        ));
    }
}

fn consistent_hash(written: &ConsistentHash, path: &str, problems: &mut Vec<Problem>) {
    let keys = [
        !written.http_header_name.is_empty(),
        written.http_cookie.is_some(),
        written.use_source_ip,
        !written.http_query_parameter_name.is_empty(),
    ];
    if keys.iter().filter(|it| **it).count() != 1 {
        let fix = "use exactly one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName";
        problems.push(Problem::error(path, "consistent hash must have exactly one key", fix));
    }
    if let Some(size) = written.maglev.as_ref().and_then(|it| it.table_size)
        && (size >= 5_000_011 || !is_prime(size))
    {
        let reason = "only prime table size less than 5000011 is supported in maglev";
        problems.push(Problem::error(format!("{path}.maglev.tableSize"), reason, "leave it out for 65537"));
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|it| it * it <= number).all(|it| !number.is_multiple_of(it))
}

fn connection_pool(written: &ConnectionPool, path: &str, problems: &mut Vec<Problem>) {
    let mut not_negative = |value: Option<i32>, name: &str| {
        if value.is_some_and(|it| it < 0) {
            problems.push(Problem::error(
                format!("{path}.{name}"),
                format!("{name} must be non-negative"),
                "use 0 or more",
            ));
        }
    };
    if let Some(tcp) = &written.tcp {
        not_negative(tcp.max_connections, "tcp.maxConnections");
    }
    if let Some(http) = &written.http {
        not_negative(http.http1_max_pending_requests, "http.http1MaxPendingRequests");
        not_negative(http.http2_max_requests, "http.http2MaxRequests");
        not_negative(http.max_requests_per_connection, "http.maxRequestsPerConnection");
        not_negative(http.max_retries, "http.maxRetries");
        not_negative(http.max_concurrent_streams, "http.maxConcurrentStreams");
        if http.use_client_protocol && http.h2_upgrade_policy == "UPGRADE" {
            let reason = "use client protocol must not be true when H2UpgradePolicy is UPGRADE";
            problems.push(Problem::error(format!("{path}.http"), reason, "keep one of them"));
        }
    }
    let tcp = written.tcp.as_ref();
    field::duration(tcp.and_then(|it| it.connect_timeout), &format!("{path}.tcp.connectTimeout"), problems);
    let http = written.http.as_ref();
    field::duration(http.and_then(|it| it.idle_timeout), &format!("{path}.http.idleTimeout"), problems);
}

fn outlier_detection(written: &OutlierDetection, path: &str, problems: &mut Vec<Problem>) {
    field::duration(written.interval, &format!("{path}.interval"), problems);
    field::duration(written.base_ejection_time, &format!("{path}.baseEjectionTime"), problems);
    if let Some(share) = written.max_ejection_percent {
        field::percent(f64::from(share), &format!("{path}.maxEjectionPercent"), problems);
    }
    field::percent(f64::from(written.min_health_percent), &format!("{path}.minHealthPercent"), problems);
    if !written.split_external_local_origin_errors
        && written.consecutive_local_origin_failures.is_some_and(|it| it > 0)
    {
        let reason = "outlier detection consecutive local origin failures is specified, but split external local origin errors is set to false";
        problems.push(Problem::error(path, reason, "set splitExternalLocalOriginErrors to true"));
    }
    if written.consecutive_errors.is_some() {
        let fix = "use consecutiveGatewayErrors or consecutive5xxErrors";
        problems.push(Problem::warning(
            format!("{path}.consecutiveErrors"),
            "outlier detection consecutive errors is deprecated",
            fix,
        ));
    }
}

fn client_tls(written: &ClientTls, path: &str, problems: &mut Vec<Problem>) {
    let has_files = !written.client_certificate.is_empty()
        || !written.private_key.is_empty()
        || !written.ca_certificates.is_empty();
    match written.mode.as_str() {
        "MUTUAL" if written.credential_name.is_empty() => {
            if written.client_certificate.is_empty() {
                problems.push(Problem::error(
                    path,
                    "client certificate required for mutual tls",
                    "add clientCertificate",
                ));
            }
            if written.private_key.is_empty() {
                problems.push(Problem::error(path, "private key required for mutual tls", "add privateKey"));
            }
        }
        "ISTIO_MUTUAL" if has_files || !written.credential_name.is_empty() => {
            let reason = "certificates must not be set with ISTIO_MUTUAL: the mesh's own are used";
            problems.push(Problem::error(path, reason, "remove them, or use MUTUAL"));
        }
        _ => {}
    }
}
