//! Schema of `DestinationRule`.

use super::{duration, port_selector, string_map, strings};
use crate::schema::{Schema, boolean, int32, list, map, number, object, one_of, text, uint32, unsigned};

pub(super) fn spec() -> Schema {
    let subset =
        object(vec![("labels", string_map()), ("name", text()), ("trafficPolicy", traffic_policy())])
            .required(&["name"]);
    object(vec![
        ("exportTo", strings()),
        ("host", text()),
        ("subsets", list(subset)),
        ("trafficPolicy", traffic_policy()),
        ("workloadSelector", super::security::selector()),
    ])
    .required(&["host"])
}

fn traffic_policy() -> Schema {
    let mut of_port = blocks();
    of_port.push(("port", port_selector()));
    let mut fields = blocks();
    fields.extend([
        ("portLevelSettings", list(object(of_port)).at_most(4096)),
        ("proxyProtocol", object(vec![("version", one_of(&["V1", "V2"]))])),
        (
            "retryBudget",
            object(vec![
                ("budgetInterval", duration()),
                ("minRetryConcurrency", uint32()),
                ("percent", number().between(0.0, 100.0).nullable()),
            ]),
        ),
        (
            "tunnel",
            object(vec![("protocol", text()), ("targetHost", text()), ("targetPort", uint32())])
                .required(&["targetHost", "targetPort"]),
        ),
    ]);
    object(fields)
}

fn blocks() -> Vec<(&'static str, Schema)> {
    vec![
        ("connectionPool", connection_pool()),
        ("loadBalancer", load_balancer()),
        ("outlierDetection", outlier_detection()),
        ("tls", client_tls()),
    ]
}

pub(super) fn connection_pool() -> Schema {
    let http = object(vec![
        ("h2UpgradePolicy", one_of(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"])),
        ("http1MaxPendingRequests", int32()),
        ("http2KeepAlive", object(vec![("interval", duration()), ("timeout", duration())])),
        ("http2MaxRequests", int32()),
        ("idleTimeout", duration()),
        ("maxConcurrentStreams", int32()),
        ("maxRequestsPerConnection", int32()),
        ("maxRetries", int32()),
        ("useClientProtocol", boolean()),
    ]);
    let tcp = object(vec![
        ("connectTimeout", duration()),
        ("idleTimeout", duration()),
        ("maxConnectionDuration", duration()),
        ("maxConnections", int32()),
        ("tcpKeepalive", object(vec![("interval", duration()), ("probes", uint32()), ("time", duration())])),
    ]);
    object(vec![("http", http), ("tcp", tcp)])
}

fn load_balancer() -> Schema {
    object(vec![
        ("backendUtilization", crate::schema::open(vec![])),
        ("consistentHash", consistent_hash()),
        ("localityLbSetting", locality()),
        (
            "simple",
            one_of(&["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]),
        ),
        (
            "warmup",
            object(vec![
                ("aggression", Schema { minimum: Some(0.0), ..number().nullable() }),
                ("duration", duration()),
                ("minimumPercent", number().between(0.0, 100.0).nullable()),
            ])
            .required(&["duration"]),
        ),
        ("warmupDurationSecs", duration()),
        (
            "zoneAwareLbSetting",
            object(vec![
                ("enabled", boolean().nullable()),
                ("failover", list(failover())),
                ("failoverPriority", strings()),
                ("minClusterSize", uint32().between(1.0, f64::from(u32::MAX)).nullable()),
            ]),
        ),
    ])
    .exclusive(&["simple", "consistentHash", "backendUtilization"])
}

fn consistent_hash() -> Schema {
    let attribute = object(vec![("name", text()), ("value", text())]).required(&["name"]);
    let cookie = object(vec![
        ("attributes", list(attribute)),
        ("name", text()),
        ("path", text()),
        ("ttl", duration()),
    ]);
    object(vec![
        ("httpCookie", cookie.required(&["name"])),
        ("httpHeaderName", text()),
        ("httpQueryParameterName", text()),
        ("maglev", object(vec![("tableSize", unsigned())])),
        ("minimumRingSize", unsigned()),
        ("ringHash", object(vec![("minimumRingSize", unsigned())])),
        ("useSourceIp", boolean()),
    ])
}

fn locality() -> Schema {
    object(vec![
        ("distribute", list(object(vec![("from", text()), ("to", map(uint32()))]))),
        ("enabled", boolean().nullable()),
        ("failover", list(failover())),
        ("failoverPriority", strings()),
    ])
}

fn failover() -> Schema {
    object(vec![("from", text()), ("to", text())])
}

fn outlier_detection() -> Schema {
    object(vec![
        ("baseEjectionTime", duration()),
        ("consecutive5xxErrors", uint32().nullable()),
        ("consecutiveErrors", int32()),
        ("consecutiveGatewayErrors", uint32().nullable()),
        ("consecutiveLocalOriginFailures", uint32().nullable()),
        ("interval", duration()),
        ("maxEjectionPercent", int32()),
        ("minHealthPercent", int32()),
        ("outlierDetectionHttpErrorCodes", list(int32().between(100.0, 599.0))),
        ("splitExternalLocalOriginErrors", boolean()),
    ])
}

fn client_tls() -> Schema {
    object(vec![
        ("caCertificates", text()),
        ("caCrl", text()),
        ("clientCertificate", text()),
        ("credentialName", text()),
        ("insecureSkipVerify", boolean().nullable()),
        ("mode", one_of(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])),
        ("privateKey", text()),
        ("sni", text()),
        ("subjectAltNames", strings()),
    ])
}
