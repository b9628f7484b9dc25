//! Clusters towards services: one for each port and subset.

use std::collections::BTreeSet;

use meshd_model::{Config, EndpointAddress, Resolution, Service, ServicePort};
use policies_api::DestinationRule;
use policies_api::destination_rule::Subset;
use policies_xds::cluster::Cluster;
use policies_xds::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
    TransportSocketMatch,
};
use policies_xds::protobuf::{Struct, Value, value};
use policies_xds::{core, types};

use super::policy::{self, Effective, Upgrade};
use crate::endpoint;
use crate::proto::{ads, duration, list, metadata, number, structure, text};
use crate::tls::{self, Inner};
use crate::view::{View, outbound_name, parts, tcp_ports};

/// How Envoy finds the endpoints of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// Endpoints are sent apart.
    Eds,
    /// Endpoints stand in the cluster, as names to resolve.
    Dns,
    /// As `Dns`, one address at a time.
    LogicalDns,
    /// Wherever the connection was going.
    OriginalDst,
}

/// The discovery of a cluster.
pub(crate) fn discovery(service: &Service, effective: &Effective<'_>) -> Discovery {
    if effective.is_passthrough() {
        return Discovery::OriginalDst;
    }
    match service.resolution {
        Resolution::Static => Discovery::Eds,
        Resolution::Passthrough => Discovery::OriginalDst,
        Resolution::Dns => Discovery::Dns,
        Resolution::DnsRoundRobin => Discovery::LogicalDns,
    }
}

/// The policy of one part of a service.
pub(crate) fn effective_of<'a>(
    rule: Option<&'a Config<DestinationRule>>,
    subset: Option<&'a Subset>,
    port: u16,
) -> Effective<'a> {
    let of_rule = rule.and_then(|it| it.spec.traffic_policy.as_ref());
    Effective::new(of_rule, subset.and_then(|it| it.traffic_policy.as_ref()), port)
}

pub(super) fn clusters(view: &View<'_>, service: &Service) -> Vec<Cluster> {
    let rule = view.rule(service);
    let accounts = accounts(view, service);
    let mut clusters = Vec::new();
    for port in tcp_ports(service) {
        for subset in parts(rule.as_deref()) {
            clusters.push(cluster(view, service, port, rule.as_deref(), subset, &accounts));
        }
    }
    clusters
}

fn cluster(
    view: &View<'_>,
    service: &Service,
    port: &ServicePort,
    rule: Option<&Config<DestinationRule>>,
    subset: Option<&Subset>,
    accounts: &[String],
) -> Cluster {
    let subset_name = subset.map_or("", |it| &it.name);
    let name = outbound_name(port.port, subset_name, &service.host);
    let effective = effective_of(rule, subset, port.port);
    let upgrade = upgrade_of(port, &effective);
    let (lb_policy, lb_config) = policy::load_balancing(effective.load_balancer);
    let tcp = effective.tcp();
    let mut cluster = Cluster {
        connect_timeout: Some(duration(
            tcp.and_then(|it| it.connect_timeout).map_or(view.mesh.connect_timeout, |it| it.0),
        )),
        lb_policy: lb_policy.into(),
        lb_config,
        circuit_breakers: Some(policy::circuit_breakers(effective.connection_pool, effective.retry_budget)),
        outlier_detection: effective.outlier_detection.map(policy::outlier_detection),
        common_lb_config: common_lb(&effective),
        typed_extension_protocol_options: policy::http_options(upgrade, effective.http(), tcp),
        upstream_connection_options: tcp.and_then(|it| it.tcp_keepalive.as_ref()).map(keepalive),
        metadata: Some(cluster_metadata(service, rule, subset_name)),
        ..Default::default()
    };
    set_discovery(&mut cluster, view, service, port, subset, discovery(service, &effective), &name);
    set_tls(&mut cluster, view, service, port, &effective, subset_name, upgrade, accounts);
    cluster.name = name;
    cluster
}

#[expect(deprecated, reason = "what Istio sends; Envoy and our sidecar read it")]
fn set_discovery(
    cluster: &mut Cluster,
    view: &View<'_>,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
    discovery: Discovery,
    name: &str,
) {
    let kind = match discovery {
        Discovery::Eds => {
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name.to_owned() });
            DiscoveryType::Eds
        }
        Discovery::OriginalDst => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.lb_config = None;
            DiscoveryType::OriginalDst
        }
        Discovery::Dns | Discovery::LogicalDns => {
            let single = discovery == Discovery::LogicalDns;
            let assignment = endpoint::assignment(view, service, port, subset, name, single);
            // Logical DNS needs exactly one name.
            let logical = single && !assignment.endpoints.is_empty();
            cluster.load_assignment = Some(assignment);
            cluster.dns_refresh_rate = Some(duration(view.mesh.dns_refresh_rate));
            cluster.respect_dns_ttl = true;
            cluster.dns_lookup_family = DnsLookupFamily::V4Only.into();
            if logical { DiscoveryType::LogicalDns } else { DiscoveryType::StrictDns }
        }
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
}

#[expect(clippy::too_many_arguments, reason = "one call site; each is a different fact of the cluster")]
fn set_tls(
    cluster: &mut Cluster,
    view: &View<'_>,
    service: &Service,
    port: &ServicePort,
    effective: &Effective<'_>,
    subset: &str,
    upgrade: Upgrade,
    accounts: &[String],
) {
    let inner = match upgrade {
        Upgrade::Http2 => Inner::Http2,
        _ if port.protocol.is_http() => Inner::Http1,
        _ => Inner::Bytes,
    };
    let sni = tls::cluster_sni(port.port, subset, &service.host);
    match effective.tls {
        Some(written) if matches!(written.mode.as_str(), "SIMPLE" | "MUTUAL") => {
            cluster.transport_socket =
                Some(tls::configured_upstream(written, &service.host, &service.subject_alt_names, inner));
        }
        Some(written) if written.mode == "ISTIO_MUTUAL" => {
            let names =
                if written.subject_alt_names.is_empty() { accounts } else { &written.subject_alt_names };
            let sni = if written.sni.is_empty() { &sni } else { &written.sni };
            cluster.transport_socket = Some(tls::mutual_upstream(view.mesh, sni, names, inner));
        }
        None if view.mesh.auto_mtls && !service.external => {
            let mutual = tls::mutual_upstream(view.mesh, &sni, accounts, inner);
            if discovery(service, effective) != Discovery::OriginalDst {
                let by_mode = structure(vec![("tlsMode", text("istio"))]);
                cluster.transport_socket_matches = vec![
                    socket_match("tlsMode-istio", by_mode, mutual),
                    socket_match("tlsMode-disabled", Struct::default(), tls::plain()),
                ];
            } else if endpoint::all_accept_mutual_tls(view, service) {
                // Endpoints found by original destination carry no metadata to choose by.
                cluster.transport_socket = Some(mutual);
            }
        }
        _ => {}
    }
}

fn socket_match(name: &str, condition: Struct, socket: core::TransportSocket) -> TransportSocketMatch {
    TransportSocketMatch { name: name.to_owned(), r#match: Some(condition), transport_socket: Some(socket) }
}

fn upgrade_of(port: &ServicePort, effective: &Effective<'_>) -> Upgrade {
    let http = effective.http();
    if port.protocol.is_http2() {
        Upgrade::Http2
    } else if http.is_some_and(|it| it.use_client_protocol) || port.protocol.is_unset() {
        Upgrade::FollowClient
    } else if port.protocol.is_http() && http.is_some_and(|it| it.h2_upgrade_policy == "UPGRADE") {
        Upgrade::Http2
    } else {
        Upgrade::Http1
    }
}

/// With outlier detection the panic mode is off unless asked for: ejected endpoints stay ejected.
fn common_lb(effective: &Effective<'_>) -> Option<CommonLbConfig> {
    let outlier = effective.outlier_detection?;
    let percent = f64::from(outlier.min_health_percent.clamp(0, 100));
    Some(CommonLbConfig {
        healthy_panic_threshold: Some(types::Percent { value: percent }),
        ..Default::default()
    })
}

fn keepalive(
    written: &policies_api::destination_rule::TcpKeepalive,
) -> policies_xds::cluster::UpstreamConnectionOptions {
    let seconds = |it: Option<policies_api::duration::ApiDuration>| {
        it.and_then(|it| number(u32::try_from(it.0.as_secs()).unwrap_or(u32::MAX).max(1)))
    };
    policies_xds::cluster::UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: written.probes.filter(|it| *it > 0).and_then(number),
            keepalive_time: seconds(written.time),
            keepalive_interval: seconds(written.interval),
        }),
        ..Default::default()
    }
}

/// SPIFFE identities of everything behind the service, for the check of server certificates.
fn accounts(view: &View<'_>, service: &Service) -> Vec<String> {
    let endpoints = view.snapshot.endpoints_of(service).iter();
    let mesh = view.mesh;
    let mut names: BTreeSet<String> = service.subject_alt_names.iter().cloned().collect();
    for endpoint in endpoints.filter(|it| matches!(it.address, EndpointAddress::Ip(_))) {
        let workload = &endpoint.workload;
        if workload.service_account.is_empty() {
            continue;
        }
        for domain in std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases) {
            names.insert(format!(
                "spiffe://{domain}/ns/{}/sa/{}",
                workload.namespace, workload.service_account
            ));
        }
    }
    names.into_iter().collect()
}

fn cluster_metadata(
    service: &Service,
    rule: Option<&Config<DestinationRule>>,
    subset: &str,
) -> core::Metadata {
    let identity = structure(vec![
        ("host", text(&*service.host)),
        ("name", text(&*service.name)),
        ("namespace", text(&*service.namespace)),
    ]);
    let services = list(vec![Value { kind: Some(value::Kind::StructValue(identity)) }]);
    let mut fields = vec![("services", services)];
    if let Some(rule) = rule {
        let path = format!(
            "/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}",
            rule.namespace, rule.name
        );
        fields.push(("config", text(path)));
    }
    if !subset.is_empty() {
        fields.push(("subset", text(subset)));
    }
    metadata(vec![("istio", structure(fields))])
}
